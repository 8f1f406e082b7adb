"""The training loop: a recipe and a data set in, a model file out, repeatable to the bit on CPU.

One step is the paper's Algorithm 1 (arXiv 1602.02830): forward and backward through the signs, an
optimizer step on the latent weights, then their clipping to [-1, 1]. After the last epoch the
norms' statistics are measured anew with the final weights, and the test images are used once.

A recipe may ask for a float teacher, which is trained first and kept in the cache folder, or for
two stages, of which the first has real weights (AdamBNN, Liu et al., arXiv 2106.11309).

A run that is resumed ends with the same bits as one that was never interrupted (see
:mod:`edgebnn.train.processes`). Nothing is printed: the loop reports :data:`Event` values.

Under ``torchrun`` (``WORLD_SIZE`` above 1) the processes share each batch by
DistributedDataParallel; rank 0 alone reports and saves.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgebnn.data import Dataset, identified, transforms
from edgebnn.errors import EdgebnnError
from edgebnn.files import only_writer
from edgebnn.train.augment import Augmentation
from edgebnn.train.events import Event, ignore
from edgebnn.train.job import Job, Result
from edgebnn.train.processes import Device, Process, keep_memory, own_generators, processes
from edgebnn.train.recipes import Recipe
from edgebnn.train.teacher import teacher_of
from edgebnn.wording import counted, kind


def train(
    recipe: Recipe,
    dataset: Dataset,
    *,
    output: Path | None,
    seed: int = 0,
    epochs: int | None = None,
    device: Device = "auto",
    resume: bool = False,
    replace: bool = True,
    validation: int | None = None,
    report: Callable[[Event], None] = ignore,
) -> Result:
    """Train ``recipe`` on ``dataset`` and keep ``output`` as the last good model all the time.

    Args:
        recipe: what to train and how.
        dataset: images in uint8; they are all held on the device.
        output: the model file; written after every epoch in training form, whole or not at all;
            None keeps nothing.
        seed: of weights, order and whatever else is random.
        epochs: instead of the recipe's; the learning rate reaches 0 at the end of the last.
        device: "auto" takes CUDA where there is one.
        resume: go on from ``output``, which must come from the same recipe, data and seed.
        replace: False refuses to train where there is an ``output`` already.
        validation: training images held out for the accuracy of each epoch; the default is 5000
            or a tenth, whichever is less. The test images are used once, at the end.
        report: called with each :data:`Event`, on rank 0 only.

    Raises:
        EdgebnnError: no such device, an output that cannot be written or that another process
            writes, nothing that can be resumed, or a network that cannot be lowered, all before
            the first epoch; the message says what to do.
        KeyboardInterrupt: passes through; ``output`` holds the last finished epoch.
    """
    started = time.monotonic()
    total = len(dataset.train_images)
    held_out = min(5000, total // 10) if validation is None else validation
    if not 0 <= held_out < total:
        raise EdgebnnError(f"{_held_out(held_out, dataset)}; leave some to train on")
    if epochs is not None and epochs < 1:
        raise EdgebnnError("no epochs to train; give 1 or more")
    if output is None and resume:
        raise EdgebnnError("nothing to resume; name the model file")
    if output is not None and not recipe.binary:
        raise EdgebnnError("a float twin has no model file; train it with edgebnn compare")
    if output is not None and not output.parent.is_dir():
        raise EdgebnnError(f"no folder {output.parent} to write {output.name} in; make it first")
    if output is not None and output.is_dir():
        raise EdgebnnError(f"{output} is a folder; give the model file a name of its own")
    keep_memory()
    with (
        processes(device) as process,
        own_generators(process.device),
        _writing(output, process, resume or replace),
    ):
        tell = report if process.rank == 0 else ignore
        image = dataset.image_shape
        dataset = transforms.apply(identified(dataset), recipe.preprocessing)
        job = Job.prepare(
            recipe, dataset, process, seed, epochs, held_out, output, resume, image=image
        )
        _check_augmentation(recipe, image)  # of a network that the inputs have room for
        job.check()
        job.teacher = teacher_of(recipe, dataset, process, seed, held_out, tell)
        job.run(tell)
        return job.finish(started, tell)


def _held_out(count: int, dataset: Dataset) -> str:
    noun = kind(dataset.image_shape)
    return f"{counted(count, f'validation {noun}')} of {len(dataset.train_images)}"


def _check_augmentation(recipe: Recipe, shape: tuple[int, int, int]) -> None:
    still = Augmentation(fill=recipe.zero_point)
    if kind(shape) == "row" and recipe.augmentation != still:
        raise EdgebnnError("rows of numbers cannot be moved as images; set augment_... to 0")
    if kind(shape) == "signal" and (recipe.augment_flip or recipe.augment_rotate):
        raise EdgebnnError("signals have no left and right; leave augment_flip and _rotate out")


@contextmanager
def _writing(output: Path | None, process: Process, existing: bool) -> Iterator[None]:
    """Rank 0 alone may write ``output`` in this block, which it may replace if ``existing``."""
    if output is None or process.rank != 0:
        yield
        return
    with only_writer(output):
        if not existing and output.exists():
            raise exists(output)
        yield


def exists(output: Path) -> EdgebnnError:
    """What to say of an ``output`` that is there before the training."""
    return EdgebnnError(
        f"{output} exists; add --force to train it anew, --resume to go on with a training that "
        "was stopped, or give another -o"
    )
