"""Plots for people, as PNG files; the only room that knows matplotlib, and it imports it late.

Nothing here needs a display, and the same data give the same bytes with one matplotlib.
"""

from edgebnn.study.plots.dots import Dots, Group, dot_plot
from edgebnn.study.plots.figure import available, missing
from edgebnn.study.plots.frontier import Point, Series, frontier_plot
from edgebnn.study.plots.lines import Line, Panel, line_plot

__all__ = [
    "Dots",
    "Group",
    "Line",
    "Panel",
    "Point",
    "Series",
    "available",
    "dot_plot",
    "frontier_plot",
    "line_plot",
    "missing",
]
