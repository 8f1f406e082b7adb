"""Lines over logarithmic axes, a panel a question: times on a GPU."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgebnn.study.plots.figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    figure_at,
    finish,
    label_decades,
    label_values,
    note_height,
    short,
)

_OURS = tuple(itertools.product(("-", "--"), "o^sDv"))
_LINES = (("x", ORANGE), ("+", GREEN), ("P", PURPLE), ("X", GREY))


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


def line_plot(path: Path, panels: Sequence[Panel], *, title: str, note: str = "") -> None:
    """Lines, three panels side by side and the others below, all axes logarithmic.

    Args:
        path: the PNG, written whole or not at all.
        note: small print below.

    Raises:
        EdgebnnError: matplotlib is missing, or ``path`` cannot be written.
    """
    columns = max(1, min(len(panels), 3))
    rows = max(1, -(-len(panels) // columns))
    height = 5.0 * rows + note_height(note, 120)
    with figure_at(path, 4.6 * columns + 0.5, height) as figure:
        axes = list(figure.subplots(rows, columns, squeeze=False).flat)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
        for axis, panel in zip(axes, panels, strict=False):
            axis.set_xscale("log")
            axis.set_yscale("log")
            ours, others = itertools.cycle(_OURS), itertools.cycle(_LINES)
            for one in panel.lines:
                style = "-"
                if one.ours:
                    (style, marker), colour = next(ours), BLUE
                else:
                    marker, colour = next(others)
                axis.plot(
                    *zip(*one.points, strict=True),
                    marker=marker,
                    linestyle=style,
                    color=colour,
                    linewidth=1.4 if one.ours else 1.0,
                    markersize=5.5,
                    label=short(one.label),
                    zorder=3 if one.ours else 2,
                )
            axis.set_title(panel.title)
            axis.set_xlabel(panel.x)
            axis.set_ylabel(panel.y)
            label_values(axis.xaxis, sorted({x for one in panel.lines for x, _ in one.points}))
            label_decades(axis.yaxis, (1.0,))
            axis.legend(
                loc="upper center",
                bbox_to_anchor=(0.5, -0.12),
                ncols=2,
                fontsize=7,
                handlelength=3.2,
            )
        finish(figure, title, note)
