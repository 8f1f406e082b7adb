"""Convolutions on bits by columns, each window by itself: 32 outputs in a word.

Listed are the set bits of a window; what is said of a list in :mod:`edgebnn.kernels.dense_columns`
holds here, without its exchange of set for clear bits. A row of the image is listed once for all
windows of a strip that it is in: where its columns lie is linear in y, and tables move up by the
rows that a window moves down.

Beyond the image lies -1, a bit that is not set, for which nothing has to be done. Where it is
0 or +1, the taps out there give each output a number of its own, which depends on how far the
window leaves the image. Windows that leave it alike are of one kind, and each kind has thresholds:
with a dot over the taps inside only, dot[o] >= t[o] - pad_value * (2 * p[o] - k), of whose k taps
outside p[o] have the weight +1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout
from edgebnn.ir import Conv, MaxPool, Op
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Price, Table, Trips, Values, Window
from edgebnn.kernels.columns import (
    Strips,
    StripsConv,
    all_set_tables,
    in_lanes,
    lane_digits,
    lane_limits,
    result_trips,
    strips_conv,
    two_words,
)
from edgebnn.kernels.trips import Counts
from edgebnn.kernels.window_lists import WindowLists, bits_inside, listed, whole_blocks
from edgebnn.targets.base import Cpu

_LEAST_OUTPUTS = 16


@dataclass(frozen=True, slots=True)
class ConvDirect(WindowLists):
    """What ``conv_direct.c.j2`` prints.

    ``columns`` has a row a word of outputs: a column an input of the window, one of zeros at the
    offset ``zeros``, and for each of ``kinds`` of windows the one beside an even number of bits; or
    these are its rows, ``group_rows`` in each group of words that go abreast. ``start`` is what
    lanes begin with, by kinds, and ``least`` what sums have to reach, in ``slices`` digits, if no
    bit is set. Where there are kinds, those of rows and of columns of windows add up to that of a
    window.
    """

    least: int
    kinds: int
    all_set: bool
    tables: tuple[Table, ...]

    @property
    def helpers(self) -> tuple[str, ...]:
        s = self.strips
        listing = ("leading_zeros", f"list_columns{s.own}{s.two}")
        if s.abreast.wide:
            return ("popcount", "wide", "wide_reach", *listing)
        adding = (f"columns{s.two}", f"columns_reach{s.two}")
        return ("popcount", "pairs", *two_words(s.at_once), *adding, *listing)

    @property
    def start_row(self) -> str:
        """C: the row of ``start`` for a group of words of outputs."""
        s = self.strips
        if s.abreast.wide:  # each has a row a digit
            terms = [f"kind * {s.abreast.groups * self.slices}u"] if self.kinds > 1 else []
            terms += [f"g * {self.slices}u"] if s.abreast.groups > 1 else []
            return " + ".join(terms) or "0"
        group = "w" if s.at_once == 1 else "(first >> 1)"
        if self.kinds == 1:
            return group
        return "kind" if s.abreast.groups == 1 else f"kind * {s.abreast.groups}u + {group}"

    @property
    def group_rows(self) -> int:
        return self.strips.abreast.group_rows(self.tables[0])

    @property
    def even(self) -> int:
        """The offset of the column beside an even number of bits, in windows of the first kind."""
        return self.zeros + self.strips.column_bytes

    @property
    def list_place(self) -> int:
        """Where the list begins in scratch memory: behind the sums and their carries."""
        return self.slices * self.strips.abreast.size + self.carry_words

    @property
    def scratch_words(self) -> int:
        return self.list_place + self.capacity


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvDirect | None:
    conv = strips_conv(ops, inputs, cpu)
    if conv is None or not conv.signs:
        return None
    strips, w = conv.strips, conv.strips.window
    down, across = _inside(w, strips)
    rows, row_kinds = np.unique(down, axis=0, return_inverse=True)
    lines, line_kinds = np.unique(across, axis=0, return_inverse=True)
    kinds = len(rows) * len(lines)
    count = conv.rows.shape[1]
    if kinds > 255:
        return None
    limits = np.array([_limits(conv, row, line) for row in rows for line in lines])
    # With an odd number of columns up to count + 1, limits beyond these hold always or never.
    needed = np.clip((limits | 1) + 1, -count - 2, count + 4) // 2
    least = max(int(needed.max()), 0)
    start = least - needed
    slices = max(3, int(start.max() + count + 1).bit_length())
    weights, _ = in_lanes(conv.rows, conv.min_dot)
    columns = np.concatenate([weights.T, np.zeros((1, len(weights)), bool), limits % 2 == 0])
    tables = [
        strips.abreast.columns(columns),
        strips.abreast.start(lane_digits(start, slices)),
    ]
    if kinds > 1:
        tables.append(_bytes("row_kinds", row_kinds.reshape(-1) * len(lines)))
        tables.append(_bytes("column_kinds", line_kinds.reshape(-1)))
    tables += all_set_tables(conv, cpu)
    inverted = bool(conv.all_set.any())
    return ConvDirect(len(conv.rows), count, strips, slices, least, kinds, inverted, tuple(tables))


def _bytes(suffix: str, values: NDArray[np.int64]) -> Table:
    return Table(suffix, "uint8_t", np.pad(values, (0, -len(values) % 4)).astype(np.int32))


def _inside(w: Window, strips: Strips) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """(rows, kernel height) and (columns, kernel width): taps inside, all if a bit stands for them.

    Of taps outside that are -1 there is nothing to know.
    """
    axes = (
        (strips.rows, w.stride_y, w.kernel_height, w.pad_top, w.height),
        (strips.columns, w.stride_x, w.kernel_width, w.pad_left, w.width),
    )
    taps = [
        np.arange(places)[:, None] * stride - pad + np.arange(kernel)
        for places, stride, kernel, pad, _ in axes
    ]
    inside = [(tap >= 0) & (tap < axis[4]) for tap, axis in zip(taps, axes, strict=True)]
    if w.pad_value < 0:
        inside = [np.ones_like(tap) for tap in inside]
    return inside[0], inside[1]


def _limits(
    conv: StripsConv, rows: NDArray[np.bool_], columns: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(lanes,) what 2 * a - n has to reach in windows with these rows and columns inside."""
    inside = np.repeat(np.outer(rows, columns).ravel(), conv.strips.channels)
    outside = conv.rows[:, ~inside]
    given = conv.strips.window.pad_value * (2 * outside.sum(axis=1) - outside.shape[1])
    return lane_limits(*in_lanes(conv.rows[:, inside], conv.min_dot - given))


def pays(view: ConvDirect) -> bool:
    """Whether rows would take more instructions.

    A word of outputs costs about as much as 12 rows where a third of the bits are set, and as much
    as 16 where half of them are; docs/kernels.md has what was measured.
    """
    return view.outputs >= _LEAST_OUTPUTS


def trips(view: ConvDirect, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    s = view.strips
    number, found = listed(view, parts.is_set(values[0]), cpu)
    windows = s.rows * s.columns
    return parts.total(
        {
            "conv_direct": 1,
            "conv_direct.strip": s.columns,
            "conv_direct.window": windows,
            f"conv_direct{'.overlap' if view.overlap else '.apart'}": windows,
            "conv_direct.kinds": windows * (view.kinds > 1),
        },
        found,
        _window_trips(view, number),
        result_trips(s, view.all_set, "conv_direct"),
    )


def _window_trips(view: ConvDirect, listed: Counts) -> Trips:
    """Of adding up what (N, windows) list."""
    odd = listed + (listed % 2 == 0)
    whole = whole_blocks(odd)
    reach = parts.columns_reach(whole, view.slices, view.least + listed // 2)
    return {
        "conv_direct.even": parts.per_input(listed % 2 == 0),
        "conv_direct.pad": parts.per_input(whole - odd),
        **parts.times(parts.at_once(reach, view.strips.at_once), view.strips.out_words),
    }


def most(view: ConvDirect, cpu: Cpu, price: Price) -> float:
    """An input of set bits alone lists the most, and moves the most in its lists.

    What it adds up may take more with a column less: of all numbers up to what a window has inside
    the image the dearest one is taken.
    """
    w = view.window
    full = trips(view, (np.ones((1, w.height, w.width, view.strips.channels), np.int64),), cpu)
    number = bits_inside(view)
    added_up = _window_trips(view, number.reshape(1, -1))
    rest = {name: count for name, count in full.items() if name not in added_up}
    each = price(_window_trips(view, np.arange(view.inputs + 1)[:, None]))
    return float(price(rest)[0] + np.maximum.accumulate(each)[number].sum())


KERNEL = Kernel(
    "conv_direct",
    "columns",
    ((Conv,), (Conv, MaxPool)),
    frozenset({Layout.ROWS}),
    fit,
    rank=-1,
    pays=pays,
    constant_time=False,
    trips=trips,
    most=most,
)
