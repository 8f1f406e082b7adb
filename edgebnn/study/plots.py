"""Plots for people, as PNG files; the only module that knows matplotlib, and it imports it late.

Nothing here needs a display, and the same data give the same bytes with one matplotlib. Colours are
Okabe and Ito's, which people who see few colours tell apart; no plot depends on colour alone.
"""

import contextlib
import importlib.util
import itertools
import logging
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebnn.errors import EdgebnnError
from edgebnn.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


@dataclass(frozen=True, slots=True)
class Dots:
    """One row of :func:`dot_plot`: its label and a value for each seed, at least one."""

    label: str
    values: tuple[float, ...]
    base: bool = False

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


@dataclass(frozen=True, slots=True)
class Group:
    """Rows of :func:`dot_plot` that have one base, in the order from the top."""

    title: str
    rows: tuple[Dots, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One network of :func:`frontier_plot`; ``error`` in percent, ``costs`` one a panel."""

    label: str
    error: float
    costs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Series:
    """Points with one marker; ``ours`` are named one by one and drawn over the others."""

    label: str
    points: tuple[Point, ...]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """One line of :func:`line_plot`, through (x, y)."""

    label: str
    points: tuple[tuple[float, float], ...]
    ours: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines with their axes."""

    title: str
    x: str
    y: str
    lines: tuple[Line, ...]


def available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def missing() -> EdgebnnError:
    """What to say where it is not."""
    return EdgebnnError("plots need matplotlib: pip install 'edgebnn[plot]'")


def dot_plot(path: Path, groups: Sequence[Group], *, title: str, axis: str, note: str = "") -> None:
    """A dot for each value and a bar at each mean, a row each, a line at each group's base.

    Args:
        path: the PNG, written whole or not at all.
        groups: one panel each, over a common axis.
        axis: what the values are.
        note: small print below.

    Raises:
        EdgebnnError: matplotlib is missing, or ``path`` cannot be written.
    """
    groups = [group for group in groups if group.rows]
    counts = [len(group.rows) for group in groups] or [1]
    height = 1.3 + sum(0.27 * count + 0.45 for count in counts) + 0.16 * _lines(note, 120)
    with _figure(path, 8.0, height) as figure:
        panels = figure.subplots(
            len(counts), 1, sharex=True, squeeze=False, height_ratios=[c + 1 for c in counts]
        )[:, 0]
        if groups:
            limits = _limits(groups)
            panels[0].set_xlim(*limits)
            for panel, group in zip(panels, groups, strict=True):
                _draw_group(panel, group, limits[0])
            if any(row.mean < limits[0] for group in groups for row in group.rows):
                note += " Arrows: off the scale."
        else:
            panels[0].set_axis_off()
            panels[0].text(0.5, 0.5, "no results yet", ha="center", transform=panels[0].transAxes)
        panels[-1].set_xlabel(axis)
        _finish(figure, title, note)


def _draw_group(panel: "Axes", group: Group, left: float) -> None:
    base = next((row for row in group.rows if row.base), None)
    if base is not None:
        panel.axvline(base.mean, color=ORANGE, linewidth=1.2, linestyle=(0, (4, 2)), zorder=1)
    for place, row in enumerate(group.rows):
        colour = ORANGE if row.base else BLUE
        if row.mean < left:
            panel.annotate(
                "",
                (left, place),
                xytext=(14, 0),
                textcoords="offset points",
                va="center",
                arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0, "shrinkB": 0},
            )
        else:
            _draw_row(panel, row, place, colour)
        panel.annotate(
            f"{row.mean:.2f}",
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colour if row.base else INK,
            fontsize=8.5,
        )
    panel.set_yticks(range(len(group.rows)), [_short(row.label) for row in group.rows])
    for tick, row in zip(panel.get_yticklabels(), group.rows, strict=True):
        if row.base:
            tick.set_fontweight("bold")
            tick.set_color(ORANGE)
    panel.set_ylim(len(group.rows) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.set_title(group.title)


def _draw_row(panel: "Axes", row: Dots, place: int, colour: str) -> None:
    panel.plot(
        [min(row.values), max(row.values)], [place] * 2, color=colour, linewidth=1.2, alpha=0.5
    )
    panel.plot(
        row.values,
        [place] * len(row.values),
        linestyle="none",
        marker="o",
        markersize=5,
        markerfacecolor="white",
        markeredgecolor=colour,
    )
    if len(row.values) > 1:
        panel.plot(
            [row.mean], [place], marker="|", markersize=12, markeredgewidth=2.4, color=colour
        )


def _limits(groups: Sequence[Group]) -> tuple[float, float]:
    """Of the axis. Rows that would squeeze all others together are left out; a base never is."""
    rows = [row for group in groups for row in group.rows]
    means = sorted(row.mean for row in rows)
    lowest = means[0]
    for below, mean in itertools.pairwise(means[: len(means) // 4 + 1]):
        if mean - below > 2 * max(means[-1] - mean, 1.0):
            lowest = mean
    lowest = min([lowest, *(row.mean for row in rows if row.base)])
    shown = [value for row in rows if row.mean >= lowest for value in row.values]
    margin = 0.04 * (max(shown) - min(shown)) or 0.5
    return min(shown) - margin, max(shown) + margin


_MARKERS = ("s", "^", "v", "P", "X")
_SHADES = (ORANGE, GREEN, PURPLE, GREY, INK)


def frontier_plot(
    path: Path, series: Sequence[Series], *, title: str, axes: Sequence[str], note: str = ""
) -> None:
    """Error rate against each cost, side by side, all axes logarithmic: lower left is better.

    Args:
        path: the PNG, written whole or not at all.
        axes: what the costs of a point are, a panel each.
        note: small print below.

    Raises:
        EdgebnnError: matplotlib is missing, or ``path`` cannot be written.
    """
    from_matplotlib = _import()
    with _figure(path, 5.0 * len(axes) + 0.5, 4.7 + 0.16 * _lines(note, 165)) as figure:
        panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
        for index, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
            panel.set_xscale("log")
            panel.set_yscale("log")
            others = iter(zip(_MARKERS, _SHADES, strict=True))
            for one in series:
                marker, colour = ("o", BLUE) if one.ours else next(others, ("s", GREY))
                _draw_series(panel, one, index, marker, colour)
            panel.set_xlabel(axis)
            panel.margins(0.12)
            _label_decades(panel.xaxis, (1.0, 2.0, 5.0), from_matplotlib)
            _label_decades(panel.yaxis, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0), from_matplotlib)
        panels[0].set_ylabel("test error (%)")
        panels[0].legend(loc="upper right")
        _finish(figure, title, note)
        figure.draw_without_rendering()
        for index, panel in enumerate(panels):
            _name_points(panel, series, index)


def line_plot(path: Path, panels: Sequence[Panel], *, title: str, note: str = "") -> None:
    """Lines, three panels side by side and the others below, all axes logarithmic.

    Args:
        path: the PNG, written whole or not at all.
        note: small print below.

    Raises:
        EdgebnnError: matplotlib is missing, or ``path`` cannot be written.
    """
    from_matplotlib = _import()
    columns = max(1, min(len(panels), 3))
    rows = max(1, -(-len(panels) // columns))
    height = 5.0 * rows + 0.16 * _lines(note, 120)
    with _figure(path, 4.6 * columns + 0.5, height) as figure:
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, panel in zip(axes, panels, strict=False):
            axis.set_xscale("log")
            axis.set_yscale("log")
            ours, others = itertools.cycle("o^sDv"), itertools.cycle(_LINES)
            for one in panel.lines:
                marker, colour = (next(ours), BLUE) if one.ours else next(others)
                axis.plot(
                    *zip(*one.points, strict=True),
                    marker=marker,
                    color=colour,
                    linewidth=1.4 if one.ours else 1.0,
                    markersize=5.5,
                    label=_short(one.label),
                    zorder=3 if one.ours else 2,
                )
            axis.set_title(panel.title)
            axis.set_xlabel(panel.x)
            axis.set_ylabel(panel.y)
            ticks = sorted({x for one in panel.lines for x, _ in one.points})
            axis.set_xticks(ticks, [f"{x:g}" for x in ticks])
            axis.xaxis.set_minor_locator(from_matplotlib.ticker.NullLocator())
            _label_decades(axis.yaxis, (1.0,), from_matplotlib)
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize=7)
        _finish(figure, title, note)


_LINES = (("x", ORANGE), ("+", GREEN), ("P", PURPLE), ("X", GREY))


def _draw_series(panel: "Axes", series: Series, index: int, marker: str, colour: str) -> None:
    points = sorted(series.points, key=lambda point: point.costs[index])
    costs, errors = [p.costs[index] for p in points], [p.error for p in points]
    panel.plot(
        costs,
        errors,
        marker=marker,
        color=colour,
        linestyle="none" if series.ours else "-",
        linewidth=0.8,
        alpha=1.0 if series.ours else 0.8,
        markersize=7 if series.ours else 5.5,
        label=series.label,
        zorder=3 if series.ours else 2,
    )


_LABEL_SIZE = 8.0  # points
# Where a label may stand, in points from its dot, best first: how far, and how it is aligned.
_PLACES = (
    (0, 7, "center", "bottom"),
    (0, -7, "center", "top"),
    (8, 0, "left", "center"),
    (-8, 0, "right", "center"),
    (7, 6, "left", "bottom"),
    (-7, -6, "right", "top"),
    (7, -6, "left", "top"),
    (-7, 6, "right", "bottom"),
)
_Box = tuple[float, float, float, float]  # left, bottom, right, top, in points


def _name_points(panel: "Axes", series: Sequence[Series], index: int) -> None:
    """Labels our points, each where it covers least; the figure must have been laid out."""
    unit = panel.figure.dpi / 72
    window = panel.get_window_extent()
    room = (window.x0 / unit, window.y0 / unit, window.x1 / unit, window.y1 / unit)

    def at(point: Point) -> tuple[float, float]:
        x, y = panel.transData.transform((point.costs[index], point.error))
        return float(x) / unit, float(y) / unit

    dots = [at(point) for one in series for point in one.points]
    taken: list[_Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    for point in (point for one in series if one.ours for point in one.points):
        label, (x, y) = _short(point.label), at(point)
        boxes = [_label_box(x, y, len(label), *place) for place in _PLACES]
        costs = [_covered(box, taken) + 10 * _outside(box, room) for box in boxes]
        best = costs.index(min(costs))
        dx, dy, across, along = _PLACES[best]
        taken.append(boxes[best])
        text = panel.annotate(
            label,
            (point.costs[index], point.error),
            xytext=(dx, dy),
            textcoords="offset points",
            ha=across,
            va=along,
            fontsize=_LABEL_SIZE,
            color=BLUE,
            zorder=4,
        )
        text.set_in_layout(False)


def _label_box(x: float, y: float, letters: int, dx: float, dy: float, ha: str, va: str) -> _Box:
    width, height = 0.6 * _LABEL_SIZE * letters, 1.2 * _LABEL_SIZE
    left = x + dx - width * {"left": 0.0, "center": 0.5, "right": 1.0}[ha]
    bottom = y + dy - height * {"bottom": 0.0, "center": 0.5, "top": 1.0}[va]
    return left, bottom, left + width, bottom + height


def _covered(box: _Box, others: Sequence[_Box]) -> float:
    """Area that ``box`` shares with ``others``."""
    total = 0.0
    for other in others:
        width = min(box[2], other[2]) - max(box[0], other[0])
        height = min(box[3], other[3]) - max(box[1], other[1])
        total += max(width, 0.0) * max(height, 0.0)
    return total


def _outside(box: _Box, room: _Box) -> float:
    """How far ``box`` stands out of ``room``."""
    excess = (room[0] - box[0], room[1] - box[1], box[2] - room[2], box[3] - room[3])
    return sum(max(part, 0.0) for part in excess)


def _label_decades(axis: Any, parts: Sequence[float], matplotlib: Any) -> None:
    """Ticks at ``parts`` of each decade, as plain numbers: 0.5, 20, 2k, 1M."""
    axis.set_major_locator(matplotlib.ticker.LogLocator(base=10.0, subs=parts, numticks=30))
    axis.set_minor_locator(matplotlib.ticker.NullLocator())
    axis.set_major_formatter(matplotlib.ticker.FuncFormatter(lambda value, _: _plain(value)))


def _plain(value: float) -> str:
    for unit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit * 0.9999:
            return f"{value / unit:g}{suffix}"
    return f"{value:g}"


def _short(label: str) -> str:
    """A label that leaves room for the plot, and in which no $ begins a formula."""
    label = label if len(label) <= 34 else f"{label[:33]}…"
    return label.replace("$", r"\$")


def _lines(text: str, width: int) -> int:
    return sum(len(textwrap.wrap(line, width)) or 1 for line in text.splitlines())


def _finish(figure: "Figure", title: str, note: str) -> None:
    inches = figure.get_figwidth()
    width = round(15 * inches)
    lines = _lines(note, width)
    top, bottom = 0.42 / figure.get_figheight(), (0.16 * lines + 0.06) / figure.get_figheight()
    plain = title.replace("$", r"\$")
    figure.text(0.012, 1 - top / 3, plain, fontsize=12, fontweight="bold", va="top")
    wrapped = "\n".join("\n".join(textwrap.wrap(line, width)) for line in note.splitlines())
    figure.text(
        0.012,
        0.06 / figure.get_figheight(),
        wrapped.replace("$", r"\$"),
        fontsize=7.5,
        color=GREY,
        va="bottom",
        linespacing=1.35,
    )
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0.005, bottom, 0.985, 1 - top - bottom))


def _import() -> Any:
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
def _figure(path: Path, width: float, height: float) -> "Iterator[Figure]":
    """A figure in inches, which is saved as ``path`` at the end; nothing of it is global."""
    with _quiet():
        matplotlib = _import()
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
