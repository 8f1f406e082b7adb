"""The command line: the only place that prints and that writes files."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from edgebnn import __version__
from edgebnn.codegen.views import spaced
from edgebnn.errors import EdgebnnError
from edgebnn.kernels import FIRST_LAYER, first_layer_ways
from edgebnn.targets import TARGETS, get_target

if TYPE_CHECKING:
    from edgebnn.checkpoint import Checkpoint
    from edgebnn.frontier import Frontier
    from edgebnn.ir import Network
    from edgebnn.train import Event
    from edgebnn.train.compare import Comparison, Entry, Run

out = Console(highlight=False, markup=False, soft_wrap=True)
err = Console(stderr=True, markup=False)
app = typer.Typer(
    name="edgebnn",
    help="Train binarized neural networks, emit bit-packed C for microcontrollers, and prove that "
    "nothing changed on the way.\n\n"
    "A first run: edgebnn demo, or edgebnn train mnist-5k -o model.pt.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
bench = typer.Typer(help="Measure; every number in the documentation comes from here.")
app.add_typer(bench, name="bench", no_args_is_help=True)

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, either form.")]
TargetName = Annotated[str, typer.Option("--target", "-t", help=f"One of: {', '.join(TARGETS)}.")]
DataDir = Annotated[
    Path | None,
    typer.Option("--data", help="Folder with the data sets; EDGEBNN_DATA names one too."),
]
DataSetName = Annotated[
    str | None,
    typer.Option("--dataset", help="Data set, folder of images or .npz, if not the model's own."),
]
ImageCount = Annotated[
    int | None, typer.Option("--images", min=1, help="Only the first so many test images.")
]
RandomCount = Annotated[
    int | None, typer.Option("--random", min=1, help="So many random inputs, not a test set.")
]
FirstLayer = Annotated[
    str,
    typer.Option("--first-layer", help=f"How to compute it, one of: {', '.join(FIRST_LAYER)}."),
]
Name = Annotated[
    str | None, typer.Option("--name", help="C prefix of all public names; the file's stem.")
]


def main() -> None:
    """Run the command line; a user's mistake is one line on stderr and a non-zero status."""
    try:
        status = app(standalone_mode=False)
        if status == 130:  # how typer ends after Ctrl-C
            _fail("interrupted", 130)
        raise SystemExit(status if isinstance(status, int) else 0)
    except EdgebnnError as error:
        _fail(str(error), 1)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        _fail("this needs torch: pip install 'edgebnn[train]'", 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", 130)
    except BrokenPipeError:
        raise SystemExit(141) from None
    except OSError as error:
        _fail(f"{error.filename or 'output'}: {error.strerror or error}", 1)
    except Exception as error:
        message = getattr(error, "format_message", None)  # click's usage errors
        if message is None:
            raise
        _fail(f"{message()} (see edgebnn --help)", 2)


def _fail(message: str, status: int) -> None:
    line = " ".join(message.split())
    print(f"edgebnn: {line}", file=sys.stderr)
    raise SystemExit(status)


def _version(value: bool) -> None:
    if value:
        print(f"edgebnn {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it and stop.")
    ] = False,
) -> None:
    pass


# --- train -------------------------------------------------------------------------------------


@app.command()
def train(
    dataset: Annotated[
        str,
        typer.Argument(
            help="mnist-5k, digits, mnist, fashion-mnist, cifar10, spoken-digits, "
            "a folder of class folders of images, or an .npz."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file.")] = Path("model.pt"),
    recipe: Annotated[
        str, typer.Option(help="A name that edgebnn recipes lists, or your own .toml file.")
    ] = "mlp-32k",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal models on a CPU.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: DataDir = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the set, checked.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUTPUT.")] = False,
) -> None:
    """Train a network. Ctrl-C keeps the last finished epoch; --resume goes on from there.

    Several processes: torchrun --nproc-per-node 2 -m edgebnn train ...
    """
    from edgebnn.train import get_recipe, load_dataset, parse_setting
    from edgebnn.train import train as run

    if device not in ("auto", "cpu", "cuda"):
        raise EdgebnnError(f"unknown device '{device}'; pick one of: auto, cpu, cuda")
    if output.exists() and not resume:
        raise EdgebnnError(f"{output} exists; add --resume to go on with it, or give another -o")
    chosen = get_recipe(recipe).changed(dict(parse_setting(text) for text in change or []))
    images = load_dataset(dataset, data, download=download)
    with _training_progress() as report:
        try:
            run(
                chosen,
                images,
                output=output,
                seed=seed,
                epochs=epochs,
                device=device,  # type: ignore[arg-type]
                resume=resume,
                report=report,
            )
        except KeyboardInterrupt:
            if output.exists():
                raise EdgebnnError(
                    f"stopped; {output} holds the last finished epoch, --resume goes on"
                ) from None
            raise EdgebnnError("stopped before the first epoch was finished") from None


class _TrainingReport:
    """Draws training events: a bar within the epoch, a line for each epoch."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task("", total=None)

    def __call__(self, event: "Event") -> None:
        from edgebnn.train import Batch, Epoch, Finished, Started

        match event:
            case Started():
                processes = f", {event.processes} processes" if event.processes > 1 else ""
                out.print(
                    f"{event.recipe} on {event.dataset}: {spaced(event.weight_bits)} binary "
                    f"weights, {spaced(event.train_images)} training images, {event.epochs} "
                    f"epochs on {event.device}{processes}"
                )
            case Batch():
                description = f"epoch {event.epoch}  accuracy {100 * event.train_accuracy:5.2f} %"
                self.progress.update(
                    self.task, description=description, completed=event.step, total=event.steps
                )
            case Epoch():
                held_out = ""
                if event.validation_accuracy is not None:
                    held_out = f", validation {100 * event.validation_accuracy:.2f} %"
                out.print(
                    f"epoch {event.epoch:3}/{event.epochs}  loss {event.loss:.4f}  training "
                    f"{100 * event.train_accuracy:.2f} %{held_out}  ({event.seconds:.1f} s)"
                )
            case Finished():
                out.print(
                    f"test accuracy {100 * event.test_accuracy:.2f} % "
                    f"({event.test_correct}/{event.test_images}) after {event.seconds:.0f} s"
                )


@contextlib.contextmanager
def _training_progress() -> Iterator[_TrainingReport]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    visible = out.is_terminal
    with Progress(*columns, console=out, transient=True, disable=not visible) as progress:
        yield _TrainingReport(progress)


@app.command()
def recipes() -> None:
    """List the networks that edgebnn trains."""
    from edgebnn.train import get_recipe, recipe_names

    for recipe in map(get_recipe, recipe_names()):
        out.print(
            f"{recipe.name:21} {recipe.network:46} {recipe.epochs:4} epochs  {recipe.summary}"
        )


@app.command()
def targets() -> None:
    """List the CPUs that edgebnn emits code for."""
    for target in TARGETS.values():
        emulator = f"emulated ({target.unicorn_cpu})" if target.unicorn_cpu else "runs here"
        out.print(f"{target.name:12} {target.title:16} {emulator}")


# --- a model ------------------------------------------------------------------------------------


def _open(path: Path) -> "tuple[Checkpoint, Network]":
    from edgebnn import checkpoint
    from edgebnn.lower import lower

    content = checkpoint.read(path)
    try:
        return content, lower(content.model)
    except EdgebnnError as error:
        raise EdgebnnError(f"{path}: {error}") from None


@app.command()
def info(model: ModelFile, first_layer: FirstLayer = "auto") -> None:
    """Show layers, bits, accuracy, and flash and RAM on every target."""
    from edgebnn import report
    from edgebnn.cost import cost
    from edgebnn.plan import plan

    prefer = first_layer_ways(first_layer)
    content, network = _open(model)
    scheduled = plan(network, get_target("host"), prefer)
    out.print(report.model_table(str(model), content, network))
    out.print(report.layer_table(cost(scheduled)))
    out.print(report.target_table(network, prefer))


@app.command()
def filters(model: ModelFile) -> None:
    """Count the unique filters of each convolution, a 2-D kernel and its inverse as one."""
    from edgebnn import report
    from edgebnn.filters import count

    _, network = _open(model)
    layers = count(network)
    if layers:
        out.print(report.filter_table(layers))
    else:
        out.print(f"{model} has no convolutions, so it has no filters to count")


@app.command()
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


@app.command()
def generate(
    model: ModelFile,
    output: Annotated[Path, typer.Option("--output", "-o", help="Empty or new folder.")],
    target: TargetName = "cortex-m4",
    name: Name = None,
    first_layer: FirstLayer = "auto",
    force: Annotated[bool, typer.Option("--force", help="Replace files in OUTPUT.")] = False,
) -> None:
    """Emit the model as a C99 library: no heap, no libc, no float."""
    from edgebnn import api

    library = api.generate(model, target=target, name=name, first_layer=first_layer)
    for path in api.write(library, output, force=force):
        out.print(str(path))
    out.print(
        f"flash {spaced(library.constant_bytes)} bytes of constants plus code, "
        f"static RAM {spaced(library.arena_bytes)} bytes"
    )


@app.command()
def predict(
    model: ModelFile,
    image: Annotated[Path, typer.Argument(help="Image file of the model's size.")],
) -> None:
    """Classify one image file with the integer network."""
    from edgebnn import reference
    from edgebnn.train.datasets import read_image
    from edgebnn.train.transforms import apply_to_image
    from edgebnn.verify import preprocess, to_device_layout

    content, network = _open(model)
    shape = network.input
    pixels = read_image(image, channels=shape.channels)
    pixels = apply_to_image(pixels[None], content.metadata.preprocessing)[0]
    if len(pixels) != shape.channels:
        raise EdgebnnError(f"{image} has {len(pixels)} channels, {model} takes {shape.channels}")
    if pixels.shape[1:] != (shape.height, shape.width):
        raise EdgebnnError(
            f"{image} is {pixels.shape[2]}x{pixels.shape[1]} pixels, "
            f"{model} takes {shape.width}x{shape.height}"
        )
    inputs = to_device_layout(preprocess(pixels[None], content.metadata.right_shift))
    outputs = reference.run(network, inputs)
    names = content.metadata.class_names or tuple(str(i) for i in range(network.num_classes))
    order = np.argsort(-outputs.scores[0], kind="stable")
    for place in order[:5]:
        out.print(f"{names[place]:16} {spaced(int(outputs.scores[0, place])):>16}")


# --- proof -------------------------------------------------------------------------------------


def _test_set(
    content: "Checkpoint", network: "Network", dataset: str | None, data: Path | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Preprocessed test images (N, C, H, W) and labels for a model, checked to fit it."""
    from edgebnn.train import DATASETS, load_dataset, transforms
    from edgebnn.verify import preprocess

    name = dataset or content.metadata.dataset
    if not name:
        raise EdgebnnError(
            "the model does not say what it was trained on; name a --dataset, or use --random 100"
        )
    if dataset is None and name not in DATASETS:
        raise EdgebnnError(
            f"the model was trained on your own '{name}'; name it with --dataset, "
            f"or use --random 100"
        )
    images = transforms.apply(load_dataset(name, data), content.metadata.preprocessing)
    pixels = images.test_images
    shape = (network.input.channels, network.input.height, network.input.width)
    if pixels.shape[1:] != shape:
        raise EdgebnnError(
            f"images of {name} are {'x'.join(map(str, pixels.shape[1:]))}, "
            f"the model takes {'x'.join(map(str, shape))} (channels x height x width)"
        )
    known = content.metadata.class_names
    if known and images.class_names != known:
        raise EdgebnnError(
            f"the classes of {name} ({', '.join(images.class_names)}) are not the model's "
            f"({', '.join(known)}); name the right --dataset, or use --random 100"
        )
    return preprocess(pixels, content.metadata.right_shift), images.test_labels


def _progress(console: Console) -> Progress:
    return Progress(console=console, transient=True, disable=not console.is_terminal)


@contextlib.contextmanager
def _work_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgebnn-") as folder:
        yield Path(folder)


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
    optimize: str = "-O2",
) -> None:
    """Run the test set through torch, the oracle and each target; print the tables.

    Raises:
        EdgebnnError: outputs differ; or all test images of the model's own set give another
            accuracy than the model's file says.
    """
    from edgebnn import api, report, verify

    chosen = [get_target(name) for name in target_names]
    first_layer_ways(first_layer)  # a wrong name is said before the data are read
    content, network = _open(model)
    labels: NDArray[np.int64] | None = None
    whole = False
    if random is None:
        pixels, labels = _test_set(content, network, dataset, data)
        whole = dataset is None and (images is None or images >= len(pixels))
        pixels, labels = pixels[:images], labels[:images]
    else:
        pixels = verify.noise(network, random)
    inputs = verify.to_device_layout(pixels)
    expected = verify.run_torch(content.model, network, _as_torch_input(pixels, content))
    backends = [verify.run_reference(network, inputs, expected)]
    chips = []
    with _progress(out) as progress, _work_folder() as folder:
        for target in chosen:
            library = api.generate(model, target=target.name, name="model", first_layer=first_layer)
            task = progress.add_task(target.name, total=len(inputs))

            def advance(done: int, task: TaskID = task) -> None:
                progress.update(task, completed=done)

            if target.machine is None:
                backends.append(
                    verify.run_host(library, inputs, expected, folder / target.name, target)
                )
                continue
            chip = verify.run_emulated(
                library,
                inputs,
                expected,
                folder / target.name,
                target,
                counted=counted,
                optimize=optimize,
                progress=advance,
            )
            backends.append(chip.backend)
            chips.append(chip)
    own = verify.Backend("torch (eval mode)", expected, 0)
    out.print(report.equality_table(own, backends, labels))
    for chip in chips:
        out.print(report.chip_table(chip))
    if any(backend.differing for backend in backends):
        raise EdgebnnError("outputs differ; please report this with the model file")
    out.print("every output is equal, bit for bit")
    if labels is not None and whole:
        verify.check_accuracy(content.metadata.test_accuracy, own.correct(labels), len(labels))


def _as_torch_input(pixels: NDArray[np.uint8], content: "Checkpoint") -> NDArray[np.uint8]:
    """Flat networks take (N, features)."""
    from edgebnn.nn import Input

    first = next(m for m in content.model.modules() if isinstance(m, Input))
    return pixels.reshape(len(pixels), *first.shape)


@app.command()
def verify(
    model: ModelFile,
    target: TargetName = "host",
    dataset: DataSetName = None,
    data: DataDir = None,
    images: ImageCount = None,
    random: RandomCount = None,
    first_layer: FirstLayer = "auto",
) -> None:
    """Compile the emitted C, run the whole test set through it and compare every output."""
    _prove(
        model,
        (target,),
        dataset=dataset,
        data=data,
        images=images,
        random=random,
        first_layer=first_layer,
    )


@app.command()
def simulate(
    model: ModelFile,
    target: TargetName = "cortex-m4",
    dataset: DataSetName = None,
    data: DataDir = None,
    images: ImageCount = 200,
    random: RandomCount = None,
    first_layer: FirstLayer = "auto",
    counted: Annotated[
        int, typer.Option(min=1, help="Inputs whose instructions are counted (exactly).")
    ] = 20,
    optimize: Annotated[str, typer.Option(help="Compiler option: -Os, -O2 or -O3.")] = "-O2",
) -> None:
    """Run the model on an emulated CPU: accuracy, instructions, flash, RAM and stack."""
    if get_target(target).machine is None:
        raise EdgebnnError(f"target '{target}' has no emulator; use edgebnn verify")
    if optimize not in ("-Os", "-O1", "-O2", "-O3"):
        raise EdgebnnError(f"unknown optimization '{optimize}'; pick one of: -Os, -O1, -O2, -O3")
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
    )


@app.command()
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


# --- measurements ------------------------------------------------------------------------------


@bench.command("train")
def bench_train(
    recipe: Annotated[str, typer.Option(help="Network.")] = "mlp-32k",
    rounds: Annotated[int, typer.Option(min=1, help="Pairs of steps timed.")] = 100,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
) -> None:
    """Time a training step of a recipe's network against its float twin, in one run."""
    from edgebnn.train import get_recipe, step_ratio

    result = step_ratio(get_recipe(recipe), rounds=rounds, device=device)
    out.print(
        f"{result.recipe}, batch {result.batch_size}, {result.device}, {result.threads} threads, "
        f"median of {result.rounds} pairs: binary {1000 * result.binary_seconds:.2f} ms, float "
        f"{1000 * result.float_seconds:.2f} ms, ratio {result.ratio:.3f}"
    )


@bench.command("models")
def bench_models(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files.")],
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help="Repeatable; all emulated targets.")
    ] = None,
    inputs: Annotated[int, typer.Option(min=1, help="Random inputs, counted and compared.")] = 10,
) -> None:
    """Measure models on emulated CPUs and print one Markdown table."""
    from edgebnn import api, report, verify

    names = target or [t.name for t in TARGETS.values() if t.machine is not None]
    chosen = [get_target(name) for name in names]
    for one in chosen:
        if one.machine is None:
            raise EdgebnnError(f"target '{one.name}' has no emulator")
    head = ("model", "test accuracy", "target", "instructions", "flash", "RAM", "stack", "differ")
    rows: list[tuple[str, ...]] = [head]
    compilers = set()
    with _progress(err) as progress, _work_folder() as folder:
        task = progress.add_task("measuring", total=len(models) * len(chosen))
        for model in models:
            content, network = _open(model)
            pixels = verify.noise(network, inputs)
            expected = verify.run_torch(content.model, network, _as_torch_input(pixels, content))
            accuracy = content.metadata.test_accuracy
            for one in chosen:
                chip = verify.run_emulated(
                    api.generate(model, target=one.name, name="model"),
                    verify.to_device_layout(pixels),
                    expected,
                    folder / str(len(rows)),
                    one,
                    counted=inputs,
                )
                size = chip.footprint
                compilers.add(f"{chip.compiler} {chip.flags}")
                rows.append(
                    (
                        model.stem,
                        "-" if accuracy is None else f"{100 * accuracy:.2f} %",
                        one.name,
                        report.instructions(chip),
                        f"{spaced(size.constant_bytes + size.code_bytes)} B",
                        f"{spaced(size.arena_bytes)} B",
                        f"{spaced(chip.stack_bytes)} B",
                        f"{chip.backend.differing}/{inputs}",
                    )
                )
                progress.advance(task)
    print(report.markdown(rows))
    print("\nInstructions: exact, a whole predict call, counted in Unicorn.")
    for compiler in sorted(compilers):
        print(compiler)


# --- comparisons -------------------------------------------------------------------------------


@app.command()
def compare(
    dataset: Annotated[str, typer.Argument(help="As for edgebnn train.")],
    recipe: Annotated[
        list[str] | None, typer.Option(help="Repeatable; a name or a .toml file; mlp-32k.")
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'LABEL: KEY=VALUE, ...'",
            help="Repeatable; or the label of a default variant; all of those without it.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="So many, from 0 on.")] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for table, plot and raw results.")
    ] = Path("build/compare"),
    title: Annotated[str, typer.Option(help="Of table and plot.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: DataDir = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch the set, checked.")] = False,
) -> None:
    """Train variants of a recipe under one budget; draw one table and one plot.

    Both are written after every run. The same command goes on after Ctrl-C, and may add seeds.
    """
    from edgebnn.train import compare as comparing
    from edgebnn.train import get_recipe, load_dataset

    if device not in ("auto", "cpu", "cuda"):
        raise EdgebnnError(f"unknown device '{device}'; pick one of: auto, cpu, cuda")
    recipes = [get_recipe(name) for name in recipe or ["mlp-32k"]]
    images = load_dataset(dataset, data, download=download)
    comparison = comparing.prepare(
        images,
        recipes,
        variant or (),
        seeds=seeds,
        epochs=epochs,
        device=device,  # type: ignore[arg-type]
        title=title,
    )
    stem = _file_stem(images.name, *(one.name for one in recipes))
    path = output / f"{stem}.json"
    comparing.resume(comparison, path)
    _make_folder(output)
    _write_comparison(comparison, output, stem)
    before = comparison.total - len(comparison.missing)
    out.print(
        f"{len(comparison.entries)} variants, {seeds} seeds: {comparison.total} runs"
        + (f", {before} of them are in {path}" if before else "")
    )
    with _comparing_progress(comparison) as progress:

        def finished(entry: "Entry", run: "Run") -> None:
            _write_comparison(comparison, output, stem)
            progress.finished(entry, run)

        try:
            comparing.run(
                comparison,
                images,
                device=device,  # type: ignore[arg-type]
                started=progress.started,
                report=progress.report,
                finished=finished,
            )
        except KeyboardInterrupt:
            _write_comparison(comparison, output, stem)
            done = comparison.total - len(comparison.missing)
            raise EdgebnnError(
                f"stopped; {path} holds {done} of {comparison.total} runs, the same command goes on"
            ) from None
    _show_drawn(output, stem)
    if comparison.missing:
        raise EdgebnnError(
            f"{len(comparison.missing)} of {comparison.total} runs failed; "
            f"{output / stem}.md says why, the same command tries them again"
        )


class _ComparingReport:
    """Draws a bar over all runs and one within the present one; a line for each that is done."""

    def __init__(self, progress: Progress, comparison: "Comparison") -> None:
        self.progress = progress
        self.total = comparison.total
        left = len(comparison.missing)
        self.done = self.total - left
        self.all = progress.add_task("all runs", total=self.total, completed=self.done)
        self.one = progress.add_task("", total=None)
        self.name = ""

    def started(self, seed: int, entry: "Entry") -> None:
        self.name = f"{entry.recipe}, {entry.label}, seed {seed}"
        self.progress.reset(self.one, description=self.name)

    def report(self, event: "Event") -> None:
        from edgebnn.train import Batch, Started

        match event:
            case Started():
                who = f"{self.name}: {event.recipe}" if "teacher" in event.recipe else self.name
                total = event.epochs * event.steps_per_epoch
                self.progress.reset(self.one, description=who, total=total)
            case Batch():
                completed = (event.epoch - 1) * event.steps + event.step
                self.progress.update(self.one, completed=completed)

    def finished(self, entry: "Entry", run: "Run") -> None:
        self.done += 1
        self.progress.update(self.all, completed=self.done)
        head = f"{self.done:3}/{self.total}  {self.name}"
        if run.error:
            out.print(f"{head}: failed: {run.error}")
        else:
            out.print(f"{head}: test {100 * run.test_accuracy:.2f} %  ({run.seconds:.1f} s)")


@contextlib.contextmanager
def _comparing_progress(comparison: "Comparison") -> Iterator[_ComparingReport]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    visible = out.is_terminal
    with Progress(*columns, console=out, transient=True, disable=not visible) as progress:
        yield _ComparingReport(progress, comparison)


@app.command()
def frontier(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL...", help="Model files.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for table, plot and raw results.")
    ] = Path("build/frontier"),
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="POINTS.toml", help="Published points; repeatable."),
    ] = None,
    target: TargetName = "cortex-m0",
    inputs: Annotated[int, typer.Option(min=1, help="Inputs, counted and compared.")] = 10,
    title: Annotated[str, typer.Option(help="Of table and plot.")] = "",
    data: DataDir = None,
) -> None:
    """Draw models' error rates against their bytes and instructions, beside published points.

    Inputs are test images where the data set is at hand, else random ones.
    """
    from edgebnn import api, report, verify
    from edgebnn import frontier as frontiers

    chip = get_target(target)
    if chip.machine is None:
        raise EdgebnnError(f"target '{target}' has no emulator")
    published = tuple(frontiers.read_points(path) for path in against or ())
    opened = {path: _open(path) for path in models}
    sets = {str(path): content.metadata.dataset for path, (content, _) in opened.items()}
    dataset = frontiers.check_datasets(sets, published)
    measured = []
    compilers: dict[str, None] = {}
    with _progress(err) as progress, _work_folder() as folder:
        task = progress.add_task("measuring", total=len(opened))
        for number, (path, (content, network)) in enumerate(opened.items()):
            accuracy = frontiers.check_accuracy(path, content.metadata.test_accuracy)
            try:
                pixels = _test_set(content, network, None, data)[0][:inputs]
                what = f"{len(pixels)} test images"
            except EdgebnnError:
                pixels = verify.noise(network, inputs)
                what = f"{len(pixels)} random inputs"
            library = api.generate(path, target=chip.name, name="model")
            run = verify.run_emulated(
                library,
                verify.to_device_layout(pixels),
                verify.run_torch(content.model, network, _as_torch_input(pixels, content)),
                folder / str(number),
                chip,
                counted=len(pixels),
            )
            if run.backend.differing:
                raise EdgebnnError(f"{path}: outputs differ; please report this with the file")
            compilers[f"{run.compiler} {run.flags}"] = None
            counts = run.instructions
            measured.append(
                frontiers.Model(
                    name=path.stem,
                    recipe=str(content.metadata.recipe.get("name", "")),
                    seed=content.metadata.seed,
                    test_accuracy=accuracy,
                    constant_bytes=library.constant_bytes,
                    instructions=round(sum(counts) / len(counts)),
                    least=min(counts),
                    most=max(counts),
                    inputs=what,
                )
            )
            progress.advance(task)
    found = frontiers.Frontier(
        title=title or f"Binary networks on {dataset}, error against size and work",
        dataset=dataset,
        target=chip.title,
        compiler="; ".join(compilers),
        models=tuple(measured),
        published=published,
    )
    _make_folder(output)
    _write_frontier(found, output, "frontier")
    out.print(report.frontier_markdown(found))
    _show_drawn(output, "frontier")


@app.command()
def redraw(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="Of compare or frontier.")],
    title: Annotated[str, typer.Option(help="Instead of the present one.")] = "",
) -> None:
    """Draw the table and the plot beside FILE.json again, without any training."""
    import json
    from dataclasses import replace

    from edgebnn.frontier import FORMAT, Frontier
    from edgebnn.train.compare import Comparison

    if file.suffix != ".json":
        raise EdgebnnError(f"{file} is no .json file; name the one that compare wrote")
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text)
    except OSError as error:
        raise EdgebnnError(f"cannot read {file}: {error.strerror or error}") from None
    except ValueError:
        raise EdgebnnError(f"{file} is not JSON; name the one that compare wrote") from None
    if isinstance(content, dict) and content.get("format") == FORMAT:
        found = Frontier.from_json(text, file)
        _write_frontier(replace(found, title=title or found.title), file.parent, file.stem)
    else:
        comparison = Comparison.from_json(text, file)
        comparison.title = title or comparison.title
        _write_comparison(comparison, file.parent, file.stem)
    _show_drawn(file.parent, file.stem)


def _write_comparison(comparison: "Comparison", folder: Path, stem: str) -> None:
    from edgebnn import plots, report

    _write_whole(folder / f"{stem}.json", comparison.to_json())
    _write_whole(folder / f"{stem}.md", report.comparison_markdown(comparison))
    if plots.available():
        plots.dot_plot(
            folder / f"{stem}.png",
            report.comparison_groups(comparison),
            title=comparison.title,
            axis="test accuracy (%)",
            note=report.comparison_note(comparison),
        )


def _write_frontier(frontier: "Frontier", folder: Path, stem: str) -> None:
    from edgebnn import plots, report

    _write_whole(folder / f"{stem}.json", frontier.to_json())
    _write_whole(folder / f"{stem}.md", report.frontier_markdown(frontier))
    if plots.available():
        plots.frontier_plot(
            folder / f"{stem}.png",
            report.frontier_series(frontier),
            title=frontier.title,
            axes=report.frontier_axes(frontier),
            note=report.frontier_note(frontier),
        )


def _show_drawn(folder: Path, stem: str) -> None:
    """Names the files; without matplotlib an error says what is missing."""
    from edgebnn import plots

    for kind in ("json", "md", "png"):
        if kind != "png" or plots.available():
            out.print(str(folder / f"{stem}.{kind}"))
    if not plots.available():
        raise plots.missing()


def _file_stem(*names: str) -> str:
    """Names of files and data sets as one file name."""
    text = "-".join(names)
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in text)


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise EdgebnnError(f"{folder} is a file; give a folder")
    folder.mkdir(parents=True, exist_ok=True)


def _write_whole(path: Path, text: str) -> None:
    """The whole file or none of it, whatever happens."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
