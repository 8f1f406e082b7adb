"""Commands that prove: the model in torch, the oracle and the emitted C give equal outputs."""

from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from edgebnn.cli.console import (
    DataDir,
    DataSetName,
    Download,
    FirstLayer,
    ImageCount,
    Json,
    ModelFile,
    Optimize,
    RandomCount,
    TargetName,
    err,
    out,
    print_json,
    progress_on,
    work_folder,
)
from edgebnn.cli.inputs import open_model, read_test_set
from edgebnn.cli.train import train
from edgebnn.errors import EdgebnnError
from edgebnn.kernels import constant_time, first_layer_ways
from edgebnn.targets import TARGETS, get_target
from edgebnn.targets.cuda import CUDA, check_options


def verify(
    model: ModelFile,
    target: Annotated[
        str,
        typer.Option(
            "--target",
            "-t",
            help=f"One of: {', '.join(TARGETS)}, {CUDA.name}; or a board of edgebnn targets.",
        ),
    ] = "host",
    dataset: DataSetName = None,
    data: DataDir = None,
    images: ImageCount = None,
    random: RandomCount = None,
    first_layer: FirstLayer = "auto",
    optimize: Optimize = "speed",
    download: Download = False,
    confusion: Annotated[
        bool, typer.Option("--confusion", help="Show which classes are taken for which.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compile the emitted C, run the whole test set through it and compare every output.

    With --target cuda it is edgebnn.cuda that runs it, on the GPU that has to be there.
    """
    if target == CUDA.name:
        check_options({"--first-layer": first_layer != "auto", "--optimize": optimize != "speed"})
    _prove(
        model,
        (target,),
        dataset=dataset,
        data=data,
        images=images,
        random=random,
        first_layer=first_layer,
        optimize=optimize,
        download=download,
        confusion=confusion,
        as_json=as_json,
    )


def simulate(
    model: ModelFile,
    target: TargetName = "cortex-m4",
    dataset: DataSetName = None,
    data: DataDir = None,
    images: ImageCount = 200,
    random: RandomCount = None,
    first_layer: FirstLayer = "auto",
    optimize: Optimize = "speed",
    counted: Annotated[
        int, typer.Option(min=1, help="Inputs whose instructions are counted (exactly).")
    ] = 20,
    opt_level: Annotated[str, typer.Option(help="Compiler option: -Os, -O2 or -O3.")] = "-O2",
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Run the model on an emulated CPU: accuracy, instructions, flash, RAM and stack."""
    if not get_target(target).emulators:
        raise EdgebnnError(f"target '{target}' has no emulator; use edgebnn verify")
    if opt_level not in ("-Os", "-O1", "-O2", "-O3"):
        raise EdgebnnError(f"unknown --opt-level '{opt_level}'; pick one of: -Os, -O1, -O2, -O3")
    _prove(
        model,
        (target,),
        dataset=dataset,
        data=data,
        images=images,
        random=random,
        first_layer=first_layer,
        counted=counted,
        optimize=optimize,
        opt_level=opt_level,
        download=download,
        as_json=as_json,
    )


def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for model and C.")] = Path(
        "build/demo"
    ),
) -> None:
    """Train on 5,000 real digits, emit C, run it on an emulated Cortex-M4 and prove equality."""
    from edgebnn import api, checkpoint

    output.mkdir(parents=True, exist_ok=True)
    model = output / "digits.pt"
    done = model.exists() and checkpoint.read(model).metadata.test_accuracy is not None
    if done:
        out.print(f"{model} is trained already; delete it to train again")
    else:
        train("mnist-5k", output=model, recipe="mlp-16k", resume=model.exists())
    library = api.generate(model, target="cortex-m4")
    for path in api.write(library, output / "digits", force=True):
        out.print(str(path))
    targets = ("host", "cortex-m4")
    _prove(model, targets, dataset=None, data=None, images=None)


def _prove(
    model: Path,
    target_names: tuple[str, ...],
    *,
    dataset: str | None,
    data: Path | None,
    images: int | None,
    random: int | None = None,
    first_layer: str = "auto",
    counted: int = 20,
    optimize: str = "speed",
    opt_level: str = "-O2",
    download: bool = False,
    confusion: bool = False,
    as_json: bool = False,
) -> None:
    """Run the test set through torch, the oracle and each target; print the tables.

    Raises:
        EdgebnnError: outputs differ; or all test images of the model's own set give another
            accuracy than the model's file says.
    """
    from edgebnn import measure, records, report
    from edgebnn.ir import told_apart

    if confusion and random is not None:
        raise EdgebnnError("random inputs have no classes to confuse; leave out one of the two")
    chosen = [get_target(name) for name in target_names if name != CUDA.name]
    # A wrong name, or a target that nothing runs, is said before the data are read.
    prefer, steady = first_layer_ways(first_layer), constant_time(optimize)
    for target in chosen:
        measure.runner_of(target)
    device = measure.gpu_device() if CUDA.name in target_names else None
    content, network = open_model(model)
    labels: NDArray[np.int64] | None = None
    whole = False
    if random is None:
        pixels, labels, own_set = read_test_set(content, network, dataset, data, download)
        whole = own_set and (images is None or images >= len(pixels))
        pixels, labels = pixels[:images], labels[:images]
    else:
        pixels = measure.noise(network, random)
    with progress_on(err) as progress, work_folder() as folder:
        names = ("torch", "reference", *target_names)
        tasks = {name: progress.add_task(name, total=len(pixels)) for name in names}

        def advance(name: str, done: int) -> None:
            progress.update(tasks[name], completed=done)

        trial = measure.trial(content.model, network, pixels, partial(advance, "torch"))
        oracle = measure.run_reference(trial, partial(advance, "reference"))
        on_targets = list(
            measure.run_on(
                trial,
                chosen,
                folder,
                prefer=prefer,
                constant_time=steady,
                counted=counted,
                optimize=opt_level,
                progress=lambda target, done: advance(target.name, done),
            )
        )
        backends = [oracle, *on_targets]
        if device is not None:
            backends.append(measure.run_gpu(trial, device, partial(advance, CUDA.name)))
    own = measure.Backend("torch (eval mode)", trial.expected, 0)
    matrix = None
    if labels is not None:
        matrix = measure.confusion(own.outputs.classes, labels, told_apart(network.num_classes))
    if as_json:
        print_json({"model": str(model), **records.proof(own, backends, labels, matrix)})
    else:
        out.print(report.equality_table(own, backends, labels))
        for chip in on_targets:
            if not chip.target.is_host:
                out.print(report.chip_table(chip))
        if confusion and matrix is not None:
            out.print(report.confusion_table(matrix, content.metadata.class_names))
    if any(backend.differing for backend in backends):
        raise EdgebnnError("outputs differ; please report this with the model file")
    if not as_json:
        out.print("every output is equal, bit for bit")
    if labels is not None and whole:
        measure.check_accuracy(content.metadata.test_accuracy, own.correct(labels), len(labels))
