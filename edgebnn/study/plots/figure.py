"""What all plots have in common: colours, how numbers and labels are written, title and note.

Colours are Okabe and Ito's, which people who see few colours tell apart; no plot depends on colour
alone.
"""

import contextlib
import importlib.util
import logging
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebnn.errors import EdgebnnError
from edgebnn.files import replacing

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#cc79a7"
INK, GREY, FAINT = "#222222", "#767676", "#d9d9d9"
_DPI = 160
_STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 9.0,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.0,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
    "legend.edgecolor": "none",
    "legend.framealpha": 1.0,
    "legend.fontsize": 8.5,
}


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def missing() -> EdgebnnError:
    """What to say where it is not."""
    return EdgebnnError("plots need matplotlib: pip install 'edgebnn[plot]'")


def label_decades(axis: "Axis", parts: Sequence[float]) -> None:
    """Ticks at ``parts`` of each decade, as plain numbers: 0.5, 20, 2k, 1M."""
    ticker = _matplotlib().ticker
    axis.set_major_locator(ticker.LogLocator(base=10.0, subs=parts, numticks=30))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: _plain(value)))


def label_values(axis: "Axis", values: Sequence[float]) -> None:
    """Ticks at ``values`` alone."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_minor_locator(_matplotlib().ticker.NullLocator())


def _plain(value: float) -> str:
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit * 0.9999:
            return f"{value / unit:g}{suffix}"
    return f"{value:g}"


def short(label: str) -> str:
    """A label that leaves room for the plot, and in which no $ begins a formula."""
    label = label if len(label) <= 34 else f"{label[:33]}…"
    return label.replace("$", r"\$")


def note_height(note: str, width: int) -> float:
    """Inches that small print takes, in lines of at most ``width`` letters."""
    return 0.16 * sum(len(textwrap.wrap(line, width)) or 1 for line in note.splitlines())


def finish(figure: "Figure", title: str, note: str) -> None:
    """Writes title and note, and leaves the rest of the figure to its panels."""
    inches = figure.get_figwidth()
    width = round(15 * inches)
    height = figure.get_figheight()
    top, bottom = 0.42 / height, (note_height(note, width) + 0.06) / height
    plain = title.replace("$", r"\$")
    figure.text(0.012, 1 - top / 3, plain, fontsize=12, fontweight="bold", va="top")
    wrapped = "\n".join("\n".join(textwrap.wrap(line, width)) for line in note.splitlines())
    figure.text(
        0.012,
        0.06 / height,
        wrapped.replace("$", r"\$"),
        fontsize=7.5,
        color=GREY,
        va="bottom",
        linespacing=1.35,
    )
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.005, bottom, 0.985, 1 - top - bottom))


def _matplotlib() -> Any:
    """matplotlib with the parts that are used here."""
    if not available():
        raise missing()
    try:
        import matplotlib
        import matplotlib.backends.backend_agg
        import matplotlib.figure
        import matplotlib.style
        import matplotlib.ticker
    except ImportError as error:  # a part of it is missing
        raise EdgebnnError(f"{missing()} ({error})") from None
    return matplotlib


@contextlib.contextmanager
def figure_at(path: Path, width: float, height: float) -> "Iterator[Figure]":
    """A figure in inches, which is saved as ``path`` at the end; nothing of it is global."""
    with _quiet():
        matplotlib = _matplotlib()
        with matplotlib.style.context(["default", _STYLE]):
            figure = matplotlib.figure.Figure((width, height), layout="constrained")
            matplotlib.backends.backend_agg.FigureCanvasAgg(figure)  # needs no display
            yield figure
            with replacing(path) as file:
                # No version of the software in the file: equal pictures are equal bytes.
                figure.savefig(file, format="png", dpi=_DPI, metadata={"Software": None})


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what matplotlib says of its font cache, and of its own parts, from users."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
