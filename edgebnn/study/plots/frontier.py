"""Error rates of networks against what they cost, each of ours by its name."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgebnn.study.plots.figure import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    figure_at,
    finish,
    label_decades,
    note_height,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    with figure_at(path, 5.0 * len(axes) + 0.5, 4.7 + note_height(note, 165)) as figure:
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
            label_decades(panel.xaxis, (1.0, 2.0, 5.0))
            label_decades(panel.yaxis, (1.0, 1.5, 2.0, 3.0, 5.0, 7.0))
        panels[0].set_ylabel("test error (%)")
        panels[0].legend(loc="upper right")
        finish(figure, title, note)
        figure.draw_without_rendering()
        for index, panel in enumerate(panels):
            _name_points(panel, series, index)


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
        label, (x, y) = short(point.label), at(point)
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
