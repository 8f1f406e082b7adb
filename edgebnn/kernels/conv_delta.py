"""Convolutions on bits by columns, from one window to the next below it: 32 outputs in a word.

Vertical neighbours are alike, so going down a column of pixels only the bits that change are
counted. Let n bits of a window of K be set, a[o] of them where row o of the weights has +1, as
p[o] of all K weights are. Then dot[o] = K - 2 * n - 2 * p[o] + 4 * a[o]. With t[o] rounded up to a
dot that there can be, dot[o] >= t[o] is 2 * a[o] - n >= l[o] = (t[o] + 2 * p[o] - K) / 2, or

    floor((l[o] + n - 1) / 2) - a[o] < 0

What stands on the left is what the lanes count, in two's complement: their signs are the output.
The column of a bit that is set is taken away, that of a bit that is cleared is added. When n
becomes m, (m >> 1) - (n >> 1) is added to all lanes, as so many columns of ones, and in the lanes
with an even l[o] one more while the number is odd. Where an image is padded with +1, n = K and
a = p before the first window, else both are 0; nothing else differs.

The row of a window is compared with the row above it once, for all windows that it is in: where its
columns lie is linear in y, and tables move up by a row of the kernel from one window to the next.

A max-pool behind it is an OR of what its windows give. In channels that take the AND, the outputs
are inverted before, which is one of weights and thresholds here, and after it.
"""

from dataclasses import dataclass, replace

import numpy as np

from edgebnn.bits import Layout, pack
from edgebnn.ir import Conv, MaxPool, Op
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Table, Trips, Values, Window
from edgebnn.kernels.columns import (
    COLUMN_BYTES,
    LANES,
    OFFSETS,
    Strips,
    bit_places,
    column_table,
    in_lanes,
    in_strips,
    lane_digits,
    lane_limits,
    result_trips,
    strips_conv,
)
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

_BLOCK = 16  # columns: a list has whole blocks, and then none, 4 or 8 columns more
_MOST_HALVES = 16  # columns of ones: more are added as a number
_LEAST_OUTPUTS = 12


@dataclass(frozen=True, slots=True)
class ConvDelta:
    """What ``conv_delta.c.j2`` prints.

    ``columns`` has a row a word of outputs: a column an input of the window, then at the offset
    ``zeros`` those of zeros, of ones, and of odd numbers. ``start`` is what counters begin with,
    inverted, and ``ones`` how many bits are set before the first window.
    """

    outputs: int
    inputs: int
    strips: Strips
    slices: int
    ones: int
    tables: tuple[Table, ...]
    places: bool
    all_set: bool
    helpers: tuple[str, ...] = ("pairs", "offsets", "leading_zeros", "take_bit", "changes")

    @property
    def window(self) -> Window:
        return self.strips.window

    @property
    def outside_value(self) -> str:
        return "+1" if self.ones else "-1"

    @property
    def zeros(self) -> int:
        """Bytes from the first column to the one of zeros."""
        return COLUMN_BYTES * self.inputs

    @property
    def kept(self) -> int:
        """Rows of the first window that are listed as they are: at most one is in the image."""
        return min(self.window.pad_top + 1, self.window.kernel_height)

    @property
    def relisted(self) -> int:
        return self.window.kernel_height - self.kept

    @property
    def upper_slices(self) -> tuple[int, ...]:
        """Digits that a block of columns reaches by carries alone."""
        return tuple(range(3, self.slices))

    @property
    def sign(self) -> int:
        return self.slices - 1

    @property
    def _ends(self) -> int:
        """Entries that a list ends in, and the other one: ones, an odd number, and twice zeros."""
        return _MOST_HALVES + 1 + 2 * (_BLOCK // 2 - 1)

    @property
    def room(self) -> int:
        """Entries that a row may need."""
        return self.window.kernel_width * self.strips.channels + self._ends

    @property
    def capacity(self) -> int:
        """Entries of both lists; each bit of a window is in one of them at most."""
        return self.inputs + self._ends + (self.inputs + self._ends) % 2

    @property
    def carry_words(self) -> int:
        """Two bits of a block each, and as much of what is left in each list."""
        return 2 * (self.capacity // _BLOCK + 2)

    @property
    def counter_words(self) -> int:
        return self.strips.out_words * self.slices

    @property
    def scratch_words(self) -> int:
        return self.carry_words + self.counter_words + self.capacity // 2


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvDelta | None:
    conv = strips_conv(ops, inputs, cpu)
    if conv is None:
        return None
    strips, w = conv.strips, conv.strips.window
    if w.stride_y > 1 or w.kernel_height == 1 or strips.rows == 1 or w.zero_padded:
        return None
    count = conv.rows.shape[1]
    if COLUMN_BYTES * (count + 2) + (strips.rows - 1) * strips.row_bytes >= OFFSETS:
        return None
    weights, least = in_lanes(conv.rows, conv.min_dot)
    limits = lane_limits(weights, least)
    # The least and the most that a lane can miss: where dots are count and -count.
    low, high = (((least - dot) // 2 - 1) // 2 for dot in (count, -count))
    slices = max(5, 1 + max(int(high.max()).bit_length(), int(~low.min()).bit_length()))
    plus = w.padded and w.pad_value > 0
    start = (limits + (count if plus else 0) - 1) // 2 - (weights.sum(axis=1) if plus else 0)
    lanes = len(weights)
    extra = [np.zeros(lanes, bool), np.ones(lanes, bool), limits % 2 == 0]
    tables = [
        column_table("columns", pack(np.concatenate([weights.T, extra]), LANES).T),
        column_table("start", ~lane_digits(start, slices)),
        _outside(w.kernel_width, strips.channels, plus),
    ]
    places = "clz" not in cpu.features and "mul" in cpu.features
    if places:
        tables.append(bit_places())
    inverted = bool(conv.all_set.any())
    if inverted:
        tables.append(column_table("all_set", pack(conv.all_set, LANES)))
    ones = count if plus else 0
    return ConvDelta(len(conv.rows), count, strips, slices, ones, tuple(tables), places, inverted)


def _outside(width: int, channels: int, plus: bool) -> Table:
    """A row of a window outside the image."""
    line = np.full((width, channels), plus)
    return column_table("outside", pack(line, LANES).reshape(-1))


def pays(view: ConvDelta) -> bool:
    """Whether rows would take more instructions.

    A word of outputs costs about as much as 9 rows where a fifth of the bits change from a row to
    the next, as in trained networks, and as much as 16 where half of them do. Measured on
    Cortex-M4, Cortex-M0 and RV32IMC, for 1 to 128 channels; docs/kernels.md has the table.
    """
    return view.outputs >= _LEAST_OUTPUTS


def trips(view: ConvDelta, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    s, w = view.strips, view.window
    tall = w.kernel_height
    bits = parts.is_set(values[0])
    sides = ((0, 0), (w.pad_top, w.pad_bottom), (0, 0), (0, 0))
    rows = np.pad(bits, sides, constant_values=bool(view.ones))
    above = np.pad(rows, ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=bool(view.ones))[:, :-1]
    inner = replace(s, window=replace(w, pad_top=0, pad_bottom=0))
    added = in_strips((above & ~rows).sum(axis=3), inner)
    taken = in_strips((rows & ~above).sum(axis=3), inner)
    first_added = in_strips((~rows & bool(view.ones)).sum(axis=3), inner)[:, :, :tall]
    first_taken = in_strips((rows & (not view.ones)).sum(axis=3), inner)[:, :, :tall]
    pixels = int(in_strips(np.ones((1, 1, w.width), np.int64), inner).sum())  # of a row

    listed = s.rows - 1 + tall + view.relisted  # rows of each strip
    calls = s.columns if s.in_one_piece else pixels
    number, low, high = np.full(added.shape[:2], view.ones), 0, view.capacity
    # Ends of the lists, as places in the memory that they share.
    a, a_end = np.zeros_like(number), first_added.sum(axis=2)
    t, t_end = high - first_taken.sum(axis=2), np.full_like(number, high)
    found: Trips = {}
    bits_listed = parts.per_input(first_added) + parts.per_input(first_taken)
    moved, moves = np.zeros(len(bits), np.int64), np.zeros(len(bits), np.int64)
    for row in range(s.rows):
        if row:
            old = row - 1
            a, t_end = a + added[:, :, old], t_end - taken[:, :, old]
            full = t - a_end < view.room
            moved += parts.per_input((a_end - a + t_end - t) * full)
            moves += parts.per_input(full)
            a, a_end = np.where(full, low, a), np.where(full, low + a_end - a, a_end)
            t, t_end = np.where(full, high - (t_end - t), t), np.where(full, high, t_end)
            new = row + tall - 1
            a_end, t = a_end + added[:, :, new], t - taken[:, :, new]
            bits_listed += parts.per_input(added[:, :, new] + taken[:, :, new])
        before, number = number, number + (t_end - t) - (a_end - a)
        found = parts.total(found, _window_trips(view, a_end - a, t_end - t, before, number))
        if not row:
            kept = slice(0, view.kept)
            again = slice(view.kept, tall)
            a_end = a + added[:, :, kept].sum(axis=2) + added[:, :, again].sum(axis=2)
            t = t_end - taken[:, :, kept].sum(axis=2) - taken[:, :, again].sum(axis=2)
            bits_listed += parts.per_input(added[:, :, again] + taken[:, :, again])
    windows = s.rows * s.columns
    edges = f"{'left' * bool(w.pad_left)}{'right' * bool(w.pad_right)}"
    edges += "pieces" * (not s.in_one_piece)
    kind = "[word]" if s.out_words == 1 else "[words]"
    return parts.total(
        {
            "conv_delta": 1,
            "conv_delta.strip": s.columns,
            "conv_delta.relisted": s.columns * view.relisted,
            "conv_delta.window": windows,
            f"conv_delta{kind}": windows,
            parts.special("conv_delta.first", tall): s.columns * tall,
            "conv_delta.row": s.columns * listed,
            f"conv_delta[{edges}].row": s.columns * listed,
            "conv_delta.outside": s.columns * (w.pad_top + w.pad_bottom),
            "conv_delta.pixel": 0 if s.in_one_piece else pixels * listed,
            "begin_counters": s.columns,
            "begin_counters.word": s.columns * view.counter_words,
            "list_changes": calls * listed,
            "list_changes.word": pixels * s.pixel.words * listed,
            "list_changes.bit": bits_listed,
            "drop_row": s.columns * (s.rows - 1),
            "drop_row.move": moves,
            "drop_row.moved": moved,
        },
        found,
        result_trips(s, view.all_set, "conv_delta"),
    )


def _window_trips(
    view: ConvDelta, added: Counts, taken: Counts, before: Counts, number: Counts
) -> Trips:
    """Of one window of each strip, with so many entries in its lists and so many set bits."""
    words = view.strips.out_words
    halves = (number >> 1) - (before >> 1)
    large = abs(halves) > _MOST_HALVES
    halves = np.where(large, 0, halves)
    odd = np.where((number ^ before) & 1, np.where(number & 1, 1, -1), 0)
    ends = [
        added + np.maximum(halves, 0) + (odd > 0),
        taken + np.maximum(-halves, 0) + (odd < 0),
    ]
    pads = [-end % 4 + 4 * ((end + -end % 4) % 16 == 12) for end in ends]
    lists = [end + pad for end, pad in zip(ends, pads, strict=True)]
    moves = (lists[0] > 0) | (lists[1] > 0)
    pairs = [one // 16 + (one % 16 > 0) for one in lists]
    found: Trips = {
        "end_lists": moves[0].size,
        "end_lists.half": parts.per_input(abs(halves)),
        "end_lists.odd": parts.per_input(abs(odd)),
        "end_lists.pad": parts.per_input(pads[0] + pads[1]),
        "add_number": parts.per_input(large & (number >> 1 != before >> 1)) * words,
        "add_number.digit": parts.per_input(large) * words * view.slices,
        "conv_delta.move": parts.per_input(moves) * words,
        f"conv_delta.move[{view.slices}]": parts.per_input(moves) * words,
        "add_changes": parts.per_input(moves) * words,
        "add_changes.block16": words * sum(parts.per_input(one // 16) for one in lists),
        "add_changes.block8": words * sum(parts.per_input(one % 16 == 8) for one in lists),
        "add_changes.block4": words * sum(parts.per_input(one % 16 == 4) for one in lists),
        "conv_delta.carry": words * parts.per_input(pairs[0]),
        "conv_delta.borrow": words * parts.per_input(pairs[1]),
        "conv_delta.digit": words * (view.slices - 5) * parts.per_input(pairs[0] + pairs[1]),
    }
    return found


KERNEL = Kernel(
    "conv_delta",
    "columns",
    ((Conv,), (Conv, MaxPool)),
    frozenset({Layout.ROWS}),
    fit,
    rank=-2,  # before conv_direct
    pays=pays,
    constant_time=False,
    trips=trips,
)
