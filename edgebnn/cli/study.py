"""Commands that compare: variants of recipes, models with published ones; tables and plots."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from edgebnn.cli.console import (
    DataDir,
    Download,
    DownloadDir,
    TargetName,
    err,
    out,
    progress_of_training,
    progress_on,
    work_folder,
)
from edgebnn.cli.inputs import open_model, read_test_set
from edgebnn.errors import EdgebnnError, Interrupted
from edgebnn.files import only_writer, write_text
from edgebnn.targets import get_target
from edgebnn.wording import counted

if TYPE_CHECKING:
    from edgebnn.data import Dataset
    from edgebnn.study.comparison import Comparison, Entry, Run
    from edgebnn.study.frontier import Frontier
    from edgebnn.train import Event


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
    seeds: Annotated[int, typer.Option(min=1, max=1000, help="So many, from 0 on.")] = 2,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for table, plot and raw results.")
    ] = Path("build/compare"),
    title: Annotated[str, typer.Option(help="Of table and plot.")] = "",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: DownloadDir = None,
    download: Download = False,
) -> None:
    """Train variants of a recipe under one budget; draw one table and one plot.

    Both are written after every run. The same command goes on after Ctrl-C, and may add seeds.
    """
    from edgebnn.data import load_dataset
    from edgebnn.study import compare as comparing
    from edgebnn.train import get_recipe
    from edgebnn.train.processes import device_kind

    device_kind(device)
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
    _make_folder(output)
    with only_writer(path):
        comparing.resume(comparison, path)
        _write_comparison(comparison, output, stem)
        _run_comparison(comparison, images, device, output, stem)
    _show_drawn(output, stem)
    if comparison.missing:
        raise EdgebnnError(
            f"{len(comparison.missing)} of {comparison.total} runs failed; "
            f"{output / stem}.md says why, the same command tries them again"
        )


def _run_comparison(
    comparison: "Comparison", images: "Dataset", device: str, output: Path, stem: str
) -> None:
    """What is missing of it, written after each run."""
    from edgebnn.study import compare as comparing

    path = output / f"{stem}.json"
    before = comparison.total - len(comparison.missing)
    out.print(
        f"{counted(len(comparison.entries), 'variant')}, {counted(len(comparison.seeds), 'seed')}: "
        f"{counted(comparison.total, 'run')}"
        + (f", {before} of them are in {path}" if before else "")
    )
    with progress_of_training() as bars:
        progress = _ComparingReport(bars, comparison)

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
            raise Interrupted(
                f"stopped; {path} holds {done} of {counted(comparison.total, 'run')}, "
                "the same command goes on"
            ) from None


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
    inputs: Annotated[
        int, typer.Option(min=1, max=10_000, help="Inputs, counted and compared.")
    ] = 10,
    title: Annotated[str, typer.Option(help="Of table and plot.")] = "",
    data: DataDir = None,
) -> None:
    """Draw models' error rates against their bytes and instructions, beside published points.

    Inputs are test images where the data set is at hand, else random ones.
    """
    from edgebnn import measure
    from edgebnn.cost import table_bytes
    from edgebnn.study import frontier as frontiers
    from edgebnn.study import tables

    chip = get_target(target)
    if not chip.emulators:
        raise EdgebnnError(f"target '{target}' has no emulator")
    published = tuple(frontiers.read_points(path) for path in against or ())
    opened = {path: open_model(path) for path in models}
    sets = {str(path): content.metadata.set_name for path, (content, _) in opened.items()}
    dataset = frontiers.check_datasets(sets, published)
    for path, (content, _) in opened.items():
        frontiers.check_accuracy(path, content.metadata.test_accuracy)
    _make_folder(output)
    measured = []
    compilers: dict[str, None] = {}
    with progress_on(err) as progress, work_folder() as folder:
        task = progress.add_task("measuring", total=len(opened))
        for number, (path, (content, network)) in enumerate(opened.items()):
            accuracy = frontiers.check_accuracy(path, content.metadata.test_accuracy)
            try:
                pixels = read_test_set(content, network, None, data).pixels[:inputs]
                what = counted(len(pixels), "test image")
            except EdgebnnError:
                pixels = measure.noise(network, inputs)
                what = counted(len(pixels), "random input")
            trial = measure.trial(content.model, network, pixels)
            place, recorded = folder / str(number), measure.recorded(content, network)
            (run,) = measure.run_on(trial, [chip], place, samples=recorded, counted=len(pixels))
            if run.differing:
                raise EdgebnnError(f"{path}: outputs differ; please report this with the file")
            counts = run.instructions
            if not counts:
                raise EdgebnnError(f"no emulator of target '{target}' counts instructions")
            compilers[f"{run.compiler} {run.flags}"] = None
            measured.append(
                frontiers.Model(
                    name=path.stem,
                    recipe=str(content.metadata.recipe.get("name", "")),
                    seed=content.metadata.seed,
                    test_accuracy=accuracy,
                    constant_bytes=table_bytes(network, chip),
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
    _write_frontier(found, output, "frontier")
    out.print(tables.frontier_markdown(found))
    _show_drawn(output, "frontier")


def redraw(
    file: Annotated[Path, typer.Argument(metavar="FILE.json", help="Of compare or frontier.")],
    title: Annotated[str, typer.Option(help="Instead of the present one.")] = "",
) -> None:
    """Draw the table and the plot beside FILE.json again, without any training."""
    import json
    from dataclasses import replace

    from edgebnn.study.comparison import Comparison
    from edgebnn.study.frontier import FORMAT, Frontier

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
    from edgebnn.study import plots, tables

    write_text(folder / f"{stem}.json", comparison.to_json())
    write_text(folder / f"{stem}.md", tables.comparison_markdown(comparison))
    if plots.available():
        plots.dot_plot(
            folder / f"{stem}.png",
            tables.comparison_groups(comparison),
            title=comparison.title,
            axis="test accuracy (%)",
            note=tables.comparison_note(comparison),
        )


def _write_frontier(frontier: "Frontier", folder: Path, stem: str) -> None:
    from edgebnn.study import plots, tables

    write_text(folder / f"{stem}.json", frontier.to_json())
    write_text(folder / f"{stem}.md", tables.frontier_markdown(frontier))
    if plots.available():
        plots.frontier_plot(
            folder / f"{stem}.png",
            tables.frontier_series(frontier),
            title=frontier.title,
            axes=tables.frontier_axes(frontier),
            note=tables.frontier_note(frontier),
        )


def _show_drawn(folder: Path, stem: str) -> None:
    """Names the files; without matplotlib an error says what is missing."""
    from edgebnn.study import plots

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
