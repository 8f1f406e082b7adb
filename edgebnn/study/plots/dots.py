"""Rows of dots, a dot a seed, over one axis: recipes and their variants."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgebnn.study.plots.figure import BLUE, INK, ORANGE, figure_at, finish, note_height, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    height = 1.3 + sum(0.27 * count + 0.45 for count in counts) + note_height(note, 120)
    with figure_at(path, 8.0, height) as figure:
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
        finish(figure, title, note)


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
    panel.set_yticks(range(len(group.rows)), [short(row.label) for row in group.rows])
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
