"""The float teacher of a recipe that asks for one; trained once, then kept in the cache folder."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from torch import nn

from edgebnn import archive
from edgebnn.data import Dataset, cache_dir
from edgebnn.errors import EdgebnnError
from edgebnn.files import replacing
from edgebnn.train.events import Event
from edgebnn.train.job import Job
from edgebnn.train.processes import Process
from edgebnn.train.recipes import Recipe
from edgebnn.train.resuming import identity_of


def teacher_of(
    recipe: Recipe,
    dataset: Dataset,
    process: Process,
    seed: int,
    held_out: int,
    report: Callable[[Event], None],
) -> nn.Module | None:
    """The recipe's float teacher in eval mode, from the cache folder or trained now."""
    if not recipe.teacher:
        return None
    theirs = Recipe(
        name=f"teacher {recipe.teacher}",
        summary="",
        network=recipe.teacher,
        binary=False,
        epochs=recipe.teacher_epochs,
        batch_size=recipe.batch_size,
        learning_rate=3e-3,
        loss="cross_entropy",
        input_bits=recipe.input_bits,
        image_size=recipe.image_size,
        whiten=recipe.whiten,
        augment_shift=recipe.augment_shift,
        augment_flip=recipe.augment_flip,
        augment_rotate=recipe.augment_rotate,
        augment_scale=recipe.augment_scale,
        precision=recipe.precision,
    )
    identity = sorted(identity_of(theirs, dataset, seed, held_out).items())
    key = hashlib.sha256(repr((identity, theirs.epochs)).encode()).hexdigest()[:16]
    path = cache_dir() / "teachers" / f"{key}.pt"
    job = Job.prepare(theirs, dataset, process, seed, None, held_out, None, False)
    try:
        job.model.load_state_dict(archive.read(path))
    except Exception:  # not there, or not whole: whatever it is, train it
        job.run(report)
        if process.rank == 0:
            _keep(job.model, path)
    return job.model.eval().requires_grad_(False)


def _keep(model: nn.Module, path: Path) -> None:
    """Saves a teacher for later runs; whoever cannot trains it again."""
    with suppress(OSError, EdgebnnError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as file:
            archive.write(model.state_dict(), file)
