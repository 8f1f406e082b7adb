"""What commands share: the two consoles, progress bars and the types of common options."""

import contextlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from edgebnn.errors import EdgebnnError
from edgebnn.kernels import FIRST_LAYER
from edgebnn.targets import TARGETS
from edgebnn.wishes import OPTIMIZE


def printable(text: str) -> str:
    """``text`` without what a terminal would obey, such as ESC: names come from files."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


class _Console(Console):
    """Every string that is printed, or is in a table, comes by here."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(printable(text), **options)


out = _Console(highlight=False, markup=False, soft_wrap=True)
err = _Console(stderr=True, markup=False)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, no tables.")]

ModelFile = Annotated[Path, typer.Argument(metavar="MODEL", help="Model file, either form.")]
TargetName = Annotated[
    str,
    typer.Option(
        "--target", "-t", help=f"One of: {', '.join(TARGETS)}; or a board of edgebnn targets."
    ),
]


def _folder(path: Path | None) -> Path | None:
    """Said before a command falls back on other inputs, or needs none."""
    if path is not None and not path.is_dir():
        raise EdgebnnError(f"--data {path} is no folder; name the one that has the data sets")
    return path


DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data",
        callback=_folder,
        help="Folder with the data sets; EDGEBNN_DATA names one too.",
    ),
]
DownloadDir = Annotated[
    Path | None,
    typer.Option(
        "--data", help="Folder with the data sets, or for them; EDGEBNN_DATA names one too."
    ),
]
DataSetName = Annotated[
    str | None,
    typer.Option(
        "--dataset", help="Data set, folder of images, .npz or .csv, if not the model's own."
    ),
]
Download = Annotated[bool, typer.Option("--download", help="Fetch the set, checked.")]
ImageCount = Annotated[
    int | None, typer.Option("--images", min=1, help="Only the first so many test images.")
]
RandomCount = Annotated[
    int | None,
    typer.Option("--random", min=1, max=1_000_000, help="So many random inputs, not a test set."),
]
FirstLayer = Annotated[
    str,
    typer.Option("--first-layer", help=f"How to compute it, one of: {', '.join(FIRST_LAYER)}."),
]
Optimize = Annotated[
    str,
    typer.Option(
        "--optimize",
        help=f"What for kernels are chosen, one of: {', '.join(OPTIMIZE)}, which is the same time "
        "for all inputs.",
    ),
]
Ram = Annotated[
    str | None,
    typer.Option("--ram", metavar="BYTES", help="Static RAM that there is, as in 20000 or 16k."),
]
Flash = Annotated[
    str | None,
    typer.Option("--flash", metavar="BYTES", help="Flash that there is for constants; as --ram."),
]
Name = Annotated[
    str | None, typer.Option("--name", help="C prefix of all public names; the file's stem.")
]


def print_json(record: object) -> None:
    """``record`` for programs; ASCII, whatever is in it."""
    print(json.dumps(record, indent=2))


def progress_on(console: Console) -> Progress:
    """A bar that is gone when it is done; none where ``console`` is no terminal."""
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def progress_of_training() -> Progress:
    """The same on :data:`out`, with the steps done and the time that is left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=out, transient=True, disable=not out.is_terminal)


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """An empty folder that is removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="edgebnn-") as folder:
        yield Path(folder)
