"""``edgebnn train`` and the recipes that it knows."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from edgebnn.cli.console import Download, DownloadDir, out, progress_of_training
from edgebnn.codegen.views import spaced
from edgebnn.errors import Interrupted
from edgebnn.wording import counted, kind, without_figures

if TYPE_CHECKING:
    from edgebnn.data import Dataset
    from edgebnn.train import Event


_MOST_CHANNELS = 16  # that a narrow image is told to be, maybe, of a signal


def train(
    dataset: Annotated[
        str,
        typer.Argument(
            help="mnist-5k, digits, mnist, fashion-mnist, cifar10, spoken-digits, "
            "a folder of class folders of images, an .npz, or a .csv."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file.")] = Path("model.pt"),
    recipe: Annotated[
        str | None,
        typer.Option(
            help="A name that edgebnn recipes lists, or your own .toml file; "
            "conv-4k for images of 16x16 or more, signal-2k for signals of 16 samples or more, "
            "else mlp-32k."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Equal seeds give equal models on a CPU.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    data: DownloadDir = None,
    download: Download = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from OUTPUT.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace OUTPUT.")] = False,
) -> None:
    """Train a network. Ctrl-C keeps the last finished epoch; --resume goes on from there.

    Several processes: torchrun --nproc-per-node 2 -m edgebnn train ...
    """
    from edgebnn.data import load_dataset
    from edgebnn.train import first_recipe, get_recipe, parse_setting
    from edgebnn.train import train as run
    from edgebnn.train.loop import exists
    from edgebnn.train.processes import device_kind

    device_kind(device)
    if force and resume:
        raise typer.BadParameter("give one of --force and --resume")
    if output.exists() and not (resume or force):
        raise exists(output)
    settings = dict(parse_setting(text) for text in change or [])
    # A data set's first recipe depends on the size of its images, and that on the settings.
    chosen = get_recipe(recipe or "mlp-32k").changed(settings)
    images = load_dataset(dataset, data, download=download, image_size=chosen.image_size)
    if recipe is None:
        chosen = get_recipe(first_recipe(images.image_shape, chosen.image_size)).changed(settings)
    with progress_of_training() as progress:
        taken = _taken(images, dataset)
        if recipe is None:
            taken += f"\nno --recipe, so {chosen.name}: {without_figures(chosen.summary)}"
        report = _TrainingReport(progress, taken, kind(images.image_shape))
        try:
            run(
                chosen,
                images,
                output=output,
                seed=seed,
                epochs=epochs,
                device=device,  # type: ignore[arg-type]
                resume=resume,
                replace=force,
                report=report,
            )
        except KeyboardInterrupt:
            if report.saved or resume:
                raise Interrupted(
                    f"stopped; {output} holds the last finished epoch, --resume goes on"
                ) from None
            raise Interrupted("stopped before the first epoch was finished") from None


def _taken(images: "Dataset", named: str) -> str:
    """What a data set is and how it is split, in a line."""
    channels, height, width = images.image_shape
    train, test = len(images.train_images), len(images.test_images)
    told = kind(images.image_shape)
    if told == "row":
        scaled = "each scaled to a byte" if images.columns else "0 to 255"
        what = f"rows of {counted(channels, 'column')}, {scaled}"
    elif told == "signal":
        what = f"signals of {counted(height, 'sample')}, {counted(channels, 'channel')}"
    else:
        colour = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
        what = f"images of {width}x{height}, {colour}{_or_signals(images)}"
    origin = images.origin
    place = origin.path
    if not place:
        namesakes = (Path(f"{named}{suffix}") for suffix in ("", ".npz", ".csv"))
        other = next((f", not ./{path}" for path in namesakes if path.exists()), "")
        place = f"built in{other}"
    split = ""
    if origin.split_seed is not None:
        split = f" (a fifth of each class, seed {origin.split_seed})"
    return (
        f"{images.name} ({place}): {spaced(train + test)} {what}, "
        f"{len(images.class_names)} classes; {spaced(train)} to train, {spaced(test)} to test"
        f"{split}"
    )


def _or_signals(images: "Dataset") -> str:
    """What to do if they are signals: of many channels they look like narrow grey images."""
    channels, height, width = images.image_shape
    few, many = sorted((height, width))
    own = images.origin.path.lower().endswith(".npz")
    if channels > 1 or few > _MOST_CHANNELS or many < 2 * few or not own:
        return ""
    layout = "NTC" if few == width else "NCT"
    return f" (if signals of {few} channels, add an array layout='{layout}')"


class _TrainingReport:
    """Draws training events: a bar within the epoch, a line for each epoch."""

    def __init__(self, progress: Progress, taken: str, noun: str) -> None:
        self.progress = progress
        self.taken = taken
        self.noun = noun  # of an input
        self.task = progress.add_task("", total=None)
        self.saved = False

    def __call__(self, event: "Event") -> None:
        from edgebnn.train import Batch, Epoch, Finished, Started

        match event:
            case Started():
                out.print(self.taken)
                processes = f", {event.processes} processes" if event.processes > 1 else ""
                out.print(
                    f"{event.recipe} on {event.dataset}: "
                    f"{counted(event.weight_bits, 'binary weight')}, "
                    f"{counted(event.train_images, f'training {self.noun}')}, "
                    f"{counted(event.epochs, 'epoch')} on {event.device}{processes}"
                )
            case Batch():
                description = f"epoch {event.epoch}  accuracy {100 * event.train_accuracy:5.2f} %"
                self.progress.update(
                    self.task, description=description, completed=event.step, total=event.steps
                )
            case Epoch():
                self.saved = True
                held_out = ""
                if event.validation_accuracy is not None:
                    held_out = f", validation {100 * event.validation_accuracy:.2f} %"
                out.print(
                    f"epoch {event.epoch:3}/{event.epochs}  loss {event.loss:.4f}  training "
                    f"{100 * event.train_accuracy:.2f} %{held_out}  ({event.seconds:.1f} s)"
                )
            case Finished():
                held_out = ""
                if event.validation_accuracy is not None:
                    held_out = f", validation {100 * event.validation_accuracy:.2f} %"
                out.print(
                    f"test accuracy {100 * event.test_accuracy:.2f} % "
                    f"({event.test_correct}/{event.test_images}){held_out}, "
                    f"after {event.seconds:.0f} s"
                )


def recipes() -> None:
    """List the networks that edgebnn trains."""
    from edgebnn.train import get_recipe, recipe_names

    for recipe in map(get_recipe, recipe_names()):
        out.print(
            f"{recipe.name:21} {recipe.network:46} {recipe.epochs:4} epochs  {recipe.summary}"
        )
