"""Rows of a bench as Markdown, as plain data and as lines of a plot; nothing is measured here."""

from collections.abc import Iterable, Sequence
from typing import Any

from edgebnn._version import __version__
from edgebnn.bench.measured import INPUTS, TWINS, Row, Tools
from edgebnn.codegen.views import spaced
from edgebnn.study.plots import Dots, Group
from edgebnn.wording import markdown

KINDS = {
    "instructions": "instructions: exact",
    "cycles": "cycles: simulated",
}


def head(tools: Iterable[Tools], seed: int) -> str:
    """What measured: compilers, emulators, this program, the seed; and what kind of number it is.

    A line a target.
    """
    lines = [
        f"edgebnn {__version__}, seed {seed}; the mean of {INPUTS} random inputs. Every result "
        "was compared with the oracle's.",
        "Twins in float and int8 are counted on one input; about: on a part of their outputs, and "
        "scaled.",
    ]
    for target, own in _by_target(tools).items():
        units = ", ".join(KINDS[unit] for unit in dict.fromkeys(one.unit for one in own))
        compilers = ", ".join(dict.fromkeys(one.compiler for one in own))
        emulators = ", ".join(dict.fromkeys(one.emulator for one in own))
        lines.append(f"{target}: {units}, by {emulators}; {compilers}.")
    return "\n".join(f"- {line}" for line in lines)


def _by_target(tools: Iterable[Tools]) -> dict[str, list[Tools]]:
    found: dict[str, list[Tools]] = {}
    for one in tools:
        found.setdefault(one.target, []).append(one)
    return found


def ratio(row: Row, rows: Sequence[Row], way: str) -> float | None:
    """How many times as many the twin ``way`` of the same layer on the same target takes."""
    for other in rows:
        same = (other.target, other.shape, other.way) == (row.target, row.shape, way)
        if same and other.count is not None and row.count:
            return other.count / row.count
    return None


def tables(rows: Sequence[Row]) -> str:
    """Markdown, one table a target."""
    text = []
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        unit = next((row.unit for row in own if row.unit), "instructions")
        lines: list[tuple[str, ...]] = [
            (target, "inputs", "way", unit, "per 32 products", "x float", "x int8")
        ]
        for row in own:
            way = f"**{row.way}**" if row.chosen else row.way
            if row.count is None:
                lines.append((row.shape, row.statistics, way, row.note, "-", "-", "-"))
                continue
            times = [_times(ratio(row, own, twin)) for twin in TWINS]
            spent = ("" if row.part == 1 else "about ") + spaced(round(row.count))
            lines.append((row.shape, row.statistics, way, spent, _figures(row.per_32), *times))
        text.append(markdown(lines, names=3))
    return "\n\n".join(text)


def _times(value: float | None) -> str:
    return "-" if value is None else _figures(value)


def _figures(value: float | None) -> str:
    """Three of them, and all of what is before the point."""
    if value is None:
        return "-"
    return f"{value:.3g}" if value < 1000 else spaced(round(value))


def record(rows: Sequence[Row], tools: Iterable[Tools], seed: int) -> dict[str, Any]:
    """For JSON. Counts are one an input; ``count`` is their mean, scaled where it is of a part."""
    return {
        "edgebnn": __version__,
        "seed": seed,
        "inputs": INPUTS,
        "tools": [
            {
                "target": one.target,
                "compiler": one.compiler,
                "emulator": one.emulator,
                "unit": one.unit,
            }
            for one in dict.fromkeys(tools)
        ],
        "rows": [
            {
                "target": row.target,
                "shape": row.shape,
                "statistics": row.statistics,
                "way": row.way,
                "chosen": row.chosen,
                "products": row.products,
                "unit": row.unit,
                "counts": list(row.counts),
                "count": row.count,
                "part": row.part,
                "per_32": row.per_32,
                "ratio_float": ratio(row, rows, "float"),
                "ratio_int8": ratio(row, rows, "int8"),
                "note": row.note,
            }
            for row in rows
        ],
    }


def groups(rows: Sequence[Row]) -> list[Group]:
    """How many times as many int8 takes, a group a target."""
    found = []
    for target in dict.fromkeys(row.target for row in rows):
        own = [row for row in rows if row.target == target]
        dots = []
        for row in own:
            times = ratio(row, own, "int8")
            if times is None or not row.kernel:
                continue
            data = f", {row.short}" if row.short else ""
            dots.append(Dots(f"{row.shape}{data}: {row.way}", (times,)))
        if dots:
            found.append(Group(target, (Dots("int8", (1.0,), base=True), *dots)))
    return found
