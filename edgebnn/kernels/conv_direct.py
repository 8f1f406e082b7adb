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

from edgebnn.bits import Layout, pack, words
from edgebnn.ir import Conv, MaxPool, Op
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Price, Table, Trips, Values, Window
from edgebnn.kernels.columns import (
    COLUMN_BYTES,
    LANES,
    Strips,
    StripsConv,
    column_table,
    in_lanes,
    in_strips,
    lane_digits,
    lane_limits,
    result_trips,
    strips_conv,
)
from edgebnn.kernels.pixels import own_table
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

_BLOCK = 8  # columns: a list has whole blocks
_LEAST_OUTPUTS = 16


@dataclass(frozen=True, slots=True)
class ConvDirect:
    """What ``conv_direct.c.j2`` prints.

    ``columns`` has a row a word of outputs: a column an input of the window, one of zeros at the
    offset ``zeros``, and for each of ``kinds`` of windows the one beside an even number of bits.
    ``start`` is what lanes begin with, by kinds, and ``least`` what sums have to reach, in
    ``slices`` digits, if no bit is set. Where there are kinds, those of rows and of columns of
    windows add up to that of a window.
    """

    outputs: int
    inputs: int
    strips: Strips
    slices: int
    least: int
    kinds: int
    all_set: bool
    tables: tuple[Table, ...]

    @property
    def helpers(self) -> tuple[str, ...]:
        listing = ("leading_zeros", f"list_columns{self.strips.own}")
        return ("popcount", "pairs", "columns", "columns_reach", *listing)

    @property
    def window(self) -> Window:
        return self.strips.window

    @property
    def zeros(self) -> int:
        """Bytes from the first column to the one of zeros."""
        return COLUMN_BYTES * self.inputs

    @property
    def start_row(self) -> str:
        """C: the row of ``start`` for a word of outputs."""
        if self.kinds == 1:
            return "w"
        return "kind" if self.strips.out_words == 1 else f"kind * {self.strips.out_words}u + w"

    @property
    def overlap(self) -> int:
        """Rows that a window shares with the one above it."""
        return _overlap(self.window)

    @property
    def shift_bytes(self) -> int:
        """From the columns of a window to those of the next."""
        return self.window.stride_y * self.strips.row_bytes

    @property
    def room(self) -> int:
        """Entries that a row may need, and the end of a list."""
        return self.window.kernel_width * self.strips.channels + _BLOCK

    @property
    def capacity(self) -> int:
        """Entries of a list: the set bits of a window, one more, and zeros."""
        return self.inputs + _BLOCK

    @property
    def carry_words(self) -> int:
        """Two bits of 16 columns each, and as much behind the last."""
        return 2 * (words(self.capacity, 16) + 1)

    @property
    def list_place(self) -> int:
        """Where the list begins in scratch memory: behind the sums and their carries."""
        return self.slices + self.carry_words

    @property
    def scratch_words(self) -> int:
        return self.list_place + self.capacity


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvDirect | None:
    conv = strips_conv(ops, inputs, cpu)
    if conv is None:
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
        column_table("columns", pack(columns, LANES).T),
        column_table("start", lane_digits(start, slices).reshape(-1, slices)),
    ]
    if kinds > 1:
        tables.append(_bytes("row_kinds", row_kinds.reshape(-1) * len(lines)))
        tables.append(_bytes("column_kinds", line_kinds.reshape(-1)))
    inverted = bool(conv.all_set.any())
    if inverted:
        tables.append(own_table("all_set", pack(conv.all_set, strips.out.bits), cpu))
    return ConvDirect(len(conv.rows), count, strips, slices, least, kinds, inverted, tuple(tables))


def _overlap(w: Window) -> int:
    return max(w.kernel_height - w.stride_y, 0)


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
    s, w = view.strips, view.window
    bits = parts.is_set(values[0])
    set_bits = in_strips(bits.sum(axis=3), s)
    steps = in_strips(parts.steps(parts.in_words(bits, s.pixel.bits), cpu), s)
    pixels = in_strips(np.ones((1, w.height, w.width), np.int64), s)
    inside = (np.arange(-w.pad_top, w.height + w.pad_bottom) >= 0) & (
        np.arange(-w.pad_top, w.height + w.pad_bottom) < w.height
    )
    slots = np.zeros((w.kernel_height, *set_bits.shape[:2]), np.int64)
    begin, end = np.zeros_like(slots[0]), np.zeros_like(slots[0])
    kind = ".overlap" if view.overlap else ".apart"
    sides = f"{'left' * bool(w.pad_left)}{'right' * bool(w.pad_right)}"
    sides += "pieces" * (not s.in_one_piece)
    found: Trips = {}
    columns = []
    moved, moves, slot = np.zeros(len(bits), np.int64), np.zeros(len(bits), np.int64), 0
    for row in range(s.rows):
        top = row * w.stride_y
        if not view.overlap:
            end = np.zeros_like(end)
        for ky in range(view.overlap if row else 0, w.kernel_height):
            if view.overlap:
                if row:
                    begin = begin + slots[slot]
                full = view.capacity - end < view.room
                moved += parts.per_input((end - begin) * full)
                moves += parts.per_input(full)
                begin, end = np.where(full, 0, begin), np.where(full, end - begin, end)
                slots[slot] = set_bits[:, :, top + ky]
                slot = (slot + 1) % w.kernel_height
            end = end + set_bits[:, :, top + ky]
            y = int(inside[top + ky])
            calls = s.columns if s.in_one_piece else int(pixels[0, :, top + ky].sum())
            found = parts.total(
                found,
                {"conv_direct.row": s.columns, "conv_direct.inside": s.columns * y},
                {f"conv_direct{kind}.row": s.columns, f"conv_direct[{sides}].row": s.columns},
                {"conv_direct.pixel": 0 if s.in_one_piece else calls * y},
                parts.list_columns(
                    calls * y,
                    int(pixels[0, :, top + ky].sum()) * s.pixel.words,
                    parts.per_input(set_bits[:, :, top + ky]),
                    parts.per_input(steps[:, :, top + ky]),
                    cpu,
                ),
            )
        listed = end - begin
        columns.append(listed)
    listed = np.stack(columns, axis=1).reshape(len(bits), -1)
    windows = s.rows * s.columns
    return parts.total(
        {
            "conv_direct": 1,
            "conv_direct.strip": s.columns,
            "conv_direct.window": windows,
            f"conv_direct{kind}": windows,
            "conv_direct.kinds": windows * (view.kinds > 1),
            "conv_direct.move": moves,
            "conv_direct.moved": moved,
        },
        found,
        _window_trips(view, listed),
        result_trips(s, view.all_set, "conv_direct"),
    )


def _window_trips(view: ConvDirect, listed: Counts) -> Trips:
    """Of adding up what (N, windows) list."""
    whole = listed + (listed % 2 == 0)
    pads = -whole % _BLOCK
    reach = parts.columns_reach(whole + pads, view.slices, view.least + listed // 2)
    return {
        "conv_direct.even": parts.per_input(listed % 2 == 0),
        "conv_direct.pad": parts.per_input(pads),
        **parts.times(reach, view.strips.out_words),
    }


def most(view: ConvDirect, cpu: Cpu, price: Price) -> float:
    """An input of set bits alone lists the most, and moves the most in its lists.

    What it adds up may take more with a column less: of all numbers up to what a window has inside
    the image the dearest one is taken.
    """
    s, w = view.strips, view.window
    size = (1, w.height, w.width, s.channels)
    full = trips(view, (np.ones(size, np.int64),), cpu)
    there = in_strips(np.full(size[:-1], s.channels, np.int64), s)[0]
    tops = [row * w.stride_y for row in range(s.rows)]
    inside = np.stack([there[:, top : top + w.kernel_height].sum(axis=1) for top in tops])
    added_up = _window_trips(view, inside.reshape(1, -1))
    rest = {name: count for name, count in full.items() if name not in added_up}
    each = price(_window_trips(view, np.arange(view.inputs + 1)[:, None]))
    return float(price(rest)[0] + np.maximum.accumulate(each)[inside].sum())


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
