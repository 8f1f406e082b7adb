"""The few functions that ``import edgebnn`` offers beside :mod:`edgebnn.nn`."""

import os
from dataclasses import replace
from pathlib import Path

from torch import nn

from edgebnn import kernels
from edgebnn.checkpoint import Checkpoint, Metadata, load, read, save
from edgebnn.codegen import c, cuda
from edgebnn.codegen.library import ARENAS, Library
from edgebnn.codegen.prepare import Size, prepare_of
from edgebnn.cuda.schedule import schedule
from edgebnn.errors import EdgebnnError
from edgebnn.files import write_texts, write_zip
from edgebnn.packages import project as whole_project
from edgebnn.packages import wrap
from edgebnn.plan import plan
from edgebnn.proof import prove
from edgebnn.targets import board_of, get_target
from edgebnn.targets.cuda import CUDA, check_options

__all__ = ["calibrate", "generate", "load", "read", "release", "save", "write"]


def generate(
    model: nn.Module | str | os.PathLike[str],
    *,
    target: str = "host",
    name: str | None = None,
    first_layer: str = "auto",
    optimize: str = "speed",
    form: str = "all",
    project: bool = False,
    self_test: bool | None = None,
    arena: str = "static",
    prepare: bool = True,
    image: tuple[int, int] | None = None,
    test_vector: bool = False,
    class_names: bool = False,
) -> Library:
    """The C library of a model, as text: a folder for any build; for GPUs one .cu file.

    What the model computes is compared with the emitted network (see :mod:`edgebnn.proof`) first.

    Args:
        model: a module in either mode, or the path of a model file.
        target: a name from :data:`edgebnn.targets.TARGETS` or :data:`edgebnn.targets.BOARDS`, or
            "cuda", which takes none of the arguments below but ``name``.
        name: C prefix; the stem of the file by default, ``model`` for a module.
        first_layer: kernel of the layer on the input, a name from
            :data:`edgebnn.kernels.FIRST_LAYER`.
        optimize: what kernels are chosen for, a name from :data:`edgebnn.kernels.OPTIMIZE`:
            "speed", or "constant-time", of which all inputs take the same.
        form: the files beside the C, a name from :data:`edgebnn.packages.FORMATS`.
        project: instead of that, a whole PlatformIO project: the library and a firmware around it.
        self_test: add ``<name>_intact``, which compares all weights and thresholds in the device's
            memory with their CRC-32, as the firmware of a project then does when it starts. None:
            in a project.
        arena: whose the scratch memory is, a name from
            :data:`edgebnn.codegen.library.ARENAS`: "static", or "caller", who
            gives it to each call.
        prepare: where the model file has steps of preprocessing, add ``<name>_prepare``, which does
            them on the device; not if the images' size is needed and not known.
        image: height and width of images before they are resized, instead of what the file says.
        test_vector: add ``<name>_vector.h``: an input (and the image before its steps) with the
            scores and the class that a device has to give it.
        class_names: add ``<name>_class_names.h``, with the names in a table.

    Raises:
        EdgebnnError: the file, the model or an argument cannot be used; says why.
    """
    prefer = kernels.first_layer_ways(first_layer)
    constant_time = kernels.constant_time(optimize)
    if arena not in ARENAS:
        raise EdgebnnError(f"unknown arena '{arena}'; pick one of: {', '.join(ARENAS)}")
    on_gpu = target == CUDA.name
    if on_gpu:
        check_options(
            {
                "--project": project,
                "--format": form != "all",
                "--arena": arena != "static",
                "--first-layer": first_layer != "auto",
                "--optimize": optimize != "speed",
                "--self-test": self_test is True,
                "--image": image is not None,
                "--test-vector": test_vector,
                "--class-names": class_names,
            }
        )
    chosen = None if on_gpu else get_target(target)
    if project and arena != "static":
        raise EdgebnnError("the firmware of a project has a static arena; leave out --arena")
    board = board_of(target) if project else None
    metadata = Metadata()
    if isinstance(model, nn.Module):
        module, stem = model, "model"
    else:
        checkpoint = read(model)
        module, metadata, stem = checkpoint.model, checkpoint.metadata, Path(model).stem
    proof = prove(module)
    network, library_name = proof.network, stem if name is None else name
    if chosen is None:
        return cuda.generate(
            schedule(network),
            library_name,
            class_names=metadata.class_names,
            test_accuracy=metadata.test_accuracy,
            input_steps=metadata.input_steps,
            columns=metadata.columns,
            zero_point=proof.zero_point,
        )
    if image is not None and not prepare:
        raise EdgebnnError("--no-prepare leaves the preprocessing out; leave out --image")
    before = None
    if prepare:
        before = prepare_of(
            network,
            metadata.preprocessing,
            metadata.right_shift,
            metadata.image,
            None if image is None else Size(*image),
        )
    library = c.generate(
        plan(network, chosen, prefer, constant_time=constant_time),
        library_name,
        class_names=metadata.class_names,
        test_accuracy=metadata.test_accuracy,
        input_steps=metadata.input_steps,
        prepare=before,
        self_test=project if self_test is None else self_test,
        caller_arena=arena == "caller",
        columns=metadata.columns,
        zero_point=proof.zero_point,
        test_vector=test_vector,
        name_table=class_names,
    )
    if board is not None:
        return whole_project.wrap(wrap(library, "platformio"), network, board.name)
    return wrap(library, form)


def release(checkpoint: Checkpoint, path: str | os.PathLike[str]) -> None:
    """Write ``checkpoint`` to ``path`` in release form: signs and norms, about 32 times smaller."""
    _save_again(replace(checkpoint, form="release"), path)


def calibrate(checkpoint: Checkpoint, path: str | os.PathLike[str], samples: object) -> None:
    """Write ``checkpoint`` to ``path`` with other sample inputs (see :func:`save`)."""
    _save_again(checkpoint, path, samples)


def _save_again(
    checkpoint: Checkpoint, path: str | os.PathLike[str], samples: object = None
) -> None:
    metadata = checkpoint.metadata
    if samples is None and len(checkpoint.samples):
        samples = checkpoint.samples
    save(
        checkpoint.model,
        path,
        class_names=metadata.class_names,
        test_accuracy=metadata.test_accuracy,
        dataset=metadata.dataset,
        right_shift=metadata.right_shift,
        preprocessing=metadata.preprocessing,
        recipe=metadata.recipe,
        seed=metadata.seed,
        origin=metadata.origin,
        columns=metadata.columns,
        image=metadata.image,
        training=checkpoint.training,
        samples=samples,
        form=checkpoint.form,
    )


def write(library: Library, folder: str | os.PathLike[str], *, force: bool = False) -> list[Path]:
    """Write the library's files into ``folder``, all or none; returns their paths.

    Args:
        folder: one that ends in ``.zip`` is an archive instead, as the Arduino IDE takes it.
        force: replace an archive, or files of the same names in a folder that is not empty.

    Raises:
        EdgebnnError: the folder is not empty, or cannot be written to.
    """
    folder = Path(folder)
    if folder.suffix == ".zip":
        if not force and folder.exists():
            raise EdgebnnError(f"{folder} exists; add --force to replace it")
        write_zip(folder, library.name, library.files)
        return [folder]
    if folder.exists() and not folder.is_dir():
        raise EdgebnnError(f"{folder} is a file; give a folder for the library")
    if not force and folder.is_dir() and any(folder.iterdir()):
        raise EdgebnnError(f"{folder} is not empty; add --force to replace the files in it")
    return write_texts(folder, library.files)
