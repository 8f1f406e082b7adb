"""Commands on one model file, and the targets that it can be emitted for."""

import math
import re
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from edgebnn.cli.console import (
    DataDir,
    DataSetName,
    Download,
    FirstLayer,
    Flash,
    Json,
    ModelFile,
    Name,
    Optimize,
    Ram,
    TargetName,
    err,
    out,
    print_json,
)
from edgebnn.cli.inputs import class_names, open_model, read_test_set
from edgebnn.codegen.library import ARENAS
from edgebnn.codegen.views import spaced
from edgebnn.errors import EdgebnnError
from edgebnn.kernels import first_layer_ways
from edgebnn.packages import FORMATS
from edgebnn.targets import BOARDS, TARGETS, get_target
from edgebnn.targets.cuda import CUDA
from edgebnn.wishes import Wishes, size
from edgebnn.wording import counted, kind

_USUAL = "cortex-m4"  # whose kernels info shows


def targets() -> None:
    """List the CPUs that edgebnn emits code for, and boards that have them."""
    for target in TARGETS.values():
        emulator = "runs here" if target.is_host else target.doubt or "no emulator"
        if target.emulators:
            titles = dict.fromkeys(one.title for one in target.emulators)
            emulator = f"emulated in {' and '.join(titles)}"
        out.print(f"{target.name:18} {target.title:26} {target.cpu.word_bits} bits  {emulator}")
    out.print(f"{CUDA.name:18} {CUDA.title:26} {'':7}  {CUDA.doubt}")
    out.print("")
    for board in BOARDS.values():
        flash, ram = (spaced(size) if size else "" for size in (board.flash, board.ram))
        sizes = f"flash {flash} bytes, RAM {ram} bytes" if board.flash else ""
        out.print(f"{board.name:18} {board.title:26} {board.target:13} {sizes}".rstrip())


def info(
    model: ModelFile,
    first_layer: FirstLayer = "auto",
    optimize: Optimize = "speed",
    ram: Ram = None,
    flash: Flash = None,
    target: TargetName = _USUAL,
    as_json: Json = False,
) -> None:
    """Show layers, bits, accuracy, and flash, RAM and instructions on every target.

    Instructions are predicted, for the sample inputs that the model file has and for -O2, and how
    many it are at most, whatever the input.
    """
    from edgebnn import records, report
    from edgebnn.cost import cost
    from edgebnn.plan import plan
    from edgebnn.samples import device_rows

    prefer, wishes = first_layer_ways(first_layer), Wishes(optimize, size(ram), size(flash))
    content, network = open_model(model)
    samples = device_rows(content.samples, network.input.channels)
    scheduled = plan(network, get_target(target), prefer, wishes=wishes, samples=samples)
    if as_json:
        found = records.model(model, content, network)
        found["layers"] = records.layers(scheduled)
        found["targets"] = records.targets(network, prefer, wishes, samples)
        print_json(found)
        return
    out.print(report.model_table(str(model), content, network))
    out.print(report.layer_table(cost(scheduled)))
    out.print(report.target_table(network, prefer, wishes, samples))


def filters(model: ModelFile) -> None:
    """Count the unique filters of each convolution, a 2-D kernel and its inverse as one."""
    from edgebnn import report
    from edgebnn.filters import count

    _, network = open_model(model)
    layers = count(network)
    if layers:
        out.print(report.filter_table(layers))
    else:
        out.print(f"{model} has no convolutions, so it has no filters to count")


def release(
    model: ModelFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New file; MODEL_release.pt.")
    ] = None,
) -> None:
    """Write the small form of a model: signs and norms, no latent weights."""
    from edgebnn import api, checkpoint, report

    content = checkpoint.read(model)
    path = output or model.with_name(f"{model.stem}_release.pt")
    if path.exists():
        raise EdgebnnError(f"{path} exists; give another -o")
    api.release(content, path)
    sizes = [report.kilobytes(file.stat().st_size) for file in (model, path)]
    out.print(f"{path}: {sizes[1]} ({model} is {sizes[0]})")


def calibrate(
    model: ModelFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="New file; MODEL itself, if not given.")
    ] = None,
    dataset: DataSetName = None,
    data: DataDir = None,
    download: Download = False,
) -> None:
    """Record a few test images in the model, by which the time of its kernels is known.

    Training records some already; this is for models that were saved without. Nothing else in the
    file changes.
    """
    from edgebnn import api, checkpoint, samples

    content, network = open_model(model)
    if output is not None and output.exists():
        raise EdgebnnError(f"{output} exists; give another -o")
    pixels = read_test_set(content, network, dataset, data, download).pixels
    count = min(samples.room(pixels.shape[1:]), len(pixels))
    if not count:
        raise EdgebnnError(
            f"an input has {spaced(pixels[0].size)} bytes, and no more than "
            f"{spaced(samples.MOST_BYTES)} are recorded"
        )
    api.calibrate(content, output or model, pixels[:: len(pixels) // count])
    kept = len(checkpoint.read(output or model).samples)
    out.print(f"{output or model}: {counted(kept, 'sample input')}")


def generate(
    model: ModelFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="Empty or new folder for the library, or a .zip for Arduino."
        ),
    ] = None,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project",
            help="Empty or new folder for a PlatformIO project: the library and a firmware that "
            "answers edgebnn check.",
        ),
    ] = None,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            help=f"One of: {', '.join(TARGETS)}, {CUDA.name}; or a board of edgebnn targets.",
        ),
    ] = "cortex-m4",
    name: Name = None,
    form: Annotated[
        str, typer.Option("--format", help=f"Files beside the C, one of: {', '.join(FORMATS)}.")
    ] = "all",
    first_layer: FirstLayer = "auto",
    optimize: Optimize = "speed",
    ram: Ram = None,
    flash: Flash = None,
    self_test: Annotated[
        bool | None,
        typer.Option(
            "--self-test/--no-self-test",
            help="Add NAME_intact(), which compares the CRC-32 of all weights in the device's "
            "memory; a --project has it unless told otherwise, and calls it at boot.",
        ),
    ] = None,
    arena: Annotated[
        str,
        typer.Option(
            help=f"Scratch memory, one of: {', '.join(ARENAS)}. A caller gives it to each call, "
            "and calls may run at the same time."
        ),
    ] = "static",
    image: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT",
            help="Size of the images that NAME_prepare() resizes; the training's, if it is known.",
        ),
    ] = None,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare/--no-prepare",
            help="NAME_prepare() makes inputs of images as in training, where the model resizes, "
            "normalizes or shifts them.",
        ),
    ] = True,
    test_vector: Annotated[
        bool,
        typer.Option(
            "--test-vector",
            help="Add NAME_vector.h: an input with its scores and class, for a device's first run.",
        ),
    ] = False,
    names: Annotated[
        bool,
        typer.Option("--class-names", help="Add NAME_class_names.h, a table of the classes."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files in the folder.")] = False,
) -> None:
    """Emit the model as a C99 library: no heap, no libc, no float; or as CUDA."""
    from edgebnn import api

    if (output is None) == (project is None):
        raise typer.BadParameter("name a folder: -o for a library, or --project for a project")
    library = api.generate(
        model,
        target=target,
        name=name,
        first_layer=first_layer,
        optimize=optimize,
        ram=size(ram),
        flash=size(flash),
        form=form,
        project=project is not None,
        self_test=self_test,
        arena=arena,
        prepare=prepare,
        image=None if image is None else _size(image),
        test_vector=test_vector,
        class_names=names,
    )
    if output is not None:
        for path in api.write(library, output, force=force):
            out.print(str(path))
    if project is not None:
        api.write(library, project, force=force)
        out.print(f"{project}: the model is lib/{library.name}; build it by pio run -d {project}")
    if target == CUDA.name:
        out.print(
            f"on the GPU {counted(library.constant_bytes, 'byte')} of tables, and "
            f"{counted(library.arena_bytes, 'byte')} an image of a batch"
        )
        return
    chosen = get_target(target)
    taken = library.arena_bytes + (library.constant_bytes if chosen.cpu.constants_in_ram else 0)
    code, stack = "code", ""
    if library.code_and_stack is not None:
        code, frames = (spaced(math.ceil(size)) for size in library.code_and_stack)
        code, stack = f"about {code} bytes of code", f", stack at most {frames} bytes"
    out.print(
        f"flash {counted(library.constant_bytes, 'byte')} of constants plus {code}, "
        f"static RAM {counted(taken, 'byte')}{stack}",
        soft_wrap=True,
    )
    if library.instructions is not None:
        out.print(
            f"{spaced(round(library.instructions))} instructions an inference are predicted, the "
            "mean of the model's sample inputs"
        )
    if library.most_instructions is not None:
        out.print(
            f"at most {spaced(math.ceil(library.most_instructions))} instructions for any input"
        )
    sizes = (
        ("flash", chosen.flash, library.constant_bytes),
        ("RAM", chosen.ram, taken),
    )
    for memory, there_is, needed in sizes:
        if there_is is not None and needed > there_is:
            err.print(
                f"warning: {chosen.title} has {counted(there_is, 'byte')} of {memory}, the network "
                f"alone takes {spaced(needed)}; make it smaller or take another board",
                soft_wrap=True,
            )


def _size(text: str) -> tuple[int, int]:
    """28x20, a width and a height, as height and width."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})x([1-9][0-9]{0,4})", text)
    if match is None:
        raise typer.BadParameter(f"'{text:.20}' is no size; give WIDTHxHEIGHT, as in 28x28")
    return int(match[2]), int(match[1])


def predict(
    model: ModelFile,
    image: Annotated[Path, typer.Argument(help="Image file of the model's size.")],
) -> None:
    """Classify one image file with the integer network."""
    from edgebnn import reference
    from edgebnn.data import read_image
    from edgebnn.data.transforms import apply_to_image
    from edgebnn.measure import preprocess, to_device_layout

    content, network = open_model(model)
    shape = network.input
    if content.metadata.columns:
        raise EdgebnnError(
            f"{model} takes rows of {counted(len(content.metadata.columns), 'number')} and no "
            "images; give edgebnn verify a table of them, with --dataset"
        )
    if kind((shape.channels, shape.height, shape.width)) == "signal":
        raise EdgebnnError(
            f"{model} takes signals of {counted(shape.height, 'sample')}, "
            f"{counted(shape.channels, 'channel')}, and no images; give edgebnn verify an .npz of "
            "them, with --dataset"
        )
    pixels = read_image(image, channels=shape.channels)
    pixels = apply_to_image(pixels[None], content.metadata.preprocessing)[0]
    if len(pixels) != shape.channels:
        raise EdgebnnError(
            f"{image} has {counted(len(pixels), 'channel')}, {model} takes {shape.channels}"
        )
    if pixels.shape[1:] != (shape.height, shape.width):
        raise EdgebnnError(
            f"{image} is {pixels.shape[2]}x{pixels.shape[1]} pixels, "
            f"{model} takes {shape.width}x{shape.height}"
        )
    inputs = to_device_layout(preprocess(pixels[None], content.metadata.right_shift))
    outputs = reference.run(network, inputs)
    names = class_names(content, network)
    scores, best = outputs.scores[0], int(outputs.classes[0])
    if len(scores) == 1:
        out.print(f"{names[best]:16} {spaced(int(scores[0])):>16}")
        return
    for place in np.argsort(-scores, kind="stable")[:5]:
        out.print(f"{names[place]:16} {spaced(int(scores[place])):>16}")
