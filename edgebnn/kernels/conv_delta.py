"""Convolutions on bits by columns, from one window to the next below it: 32 outputs in a word.

Vertical neighbours are alike, so going down a column of pixels only the bits that change are
counted. Let n bits of a window of K be set, a[o] of them where row o of the weights has +1, as
p[o] of all K weights are. Then dot[o] = K - 2 * n - 2 * p[o] + 4 * a[o]. With t[o] rounded up to a
dot that there can be, dot[o] >= t[o] is 2 * a[o] - n >= l[o] = (t[o] + 2 * p[o] - K) / 2, or

    a[o] - ceil(l[o] / 2) >= n // 2, and not equal where n is odd and l[o] even

Lanes count a[o]: the column of a bit that is set is added, that of a bit that is cleared is taken
away. They begin with what makes ceil(l[o] / 2) the same number for all, so that a window is
compared with one number, digit by digit; what the lowest digit finds, equal or not, depends on the
lane. Where an image is padded with +1, n = K and a = p before the first window, else both are 0.

The row of a window is compared with the row above it once, for all windows that it is in: where its
columns lie is linear in y, and tables move up by a row of the kernel from one window to the next.

A max-pool behind it is an OR of what its windows give. In channels that take the AND, the outputs
are inverted before, which is one of weights and thresholds here, and after it.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, pack
from edgebnn.ir import Conv, MaxPool, Op
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Price, Table, Trips, Values, Window
from edgebnn.kernels.columns import (
    BLOCK,
    COLUMN_BYTES,
    FILLED,
    LANES,
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
from edgebnn.kernels.pixels import own_table
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

_LEAST_OUTPUTS = 12


@dataclass(frozen=True, slots=True)
class ConvDelta:
    """What ``conv_delta.c.j2`` prints.

    ``columns`` has a row a word of outputs: a column an input of the window, then one of zeros at
    the offset ``zeros``, and the word ``odd``. ``start`` is what counters begin with and what that
    gives, inverted; ``ones`` is how many bits are set before the first window. ``least`` is what
    counters have to reach, in ``slices`` digits, if no bit is set; in lanes without a bit in
    ``odd`` it is one more if their number is odd.
    """

    outputs: int
    inputs: int
    strips: Strips
    slices: int
    least: int
    ones: int
    tables: tuple[Table, ...]
    places: bool
    all_set: bool

    @property
    def helpers(self) -> tuple[str, ...]:
        listing = ("leading_zeros", "take_bit", f"list_changes{self.strips.own}")
        return ("pairs", "lists", *listing, "changes")

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
    def odd(self) -> int:
        """The place of a word behind the columns."""
        return self.inputs + 1

    @property
    def upper_slices(self) -> tuple[int, ...]:
        """Digits that columns reach by carries alone."""
        return tuple(range(3, self.slices))

    @property
    def weights(self) -> tuple[int, ...]:
        """What a digit of counters counts, the lowest first."""
        return tuple(1 << slice_ for slice_ in range(self.slices))

    @property
    def room(self) -> int:
        """Entries that a row may need, and what both lists end in."""
        return self.window.kernel_width * self.strips.channels + 2 * FILLED

    @property
    def capacity(self) -> int:
        """Entries of both lists; each bit of a window is in one of them at most."""
        return self.inputs + 2 * FILLED

    @property
    def carry_words(self) -> int:
        """Two bits of a block each, and as much of what is left in each list."""
        return 2 * (self.capacity // BLOCK + 2)

    @property
    def counter_words(self) -> int:
        return self.strips.out_words * (self.slices + 1)

    @property
    def scratch_words(self) -> int:
        return self.carry_words + self.counter_words + self.capacity


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvDelta | None:
    conv = strips_conv(ops, inputs, cpu)
    if conv is None:
        return None
    strips, w = conv.strips, conv.strips.window
    if w.stride_y > 1 or w.kernel_height == 1 or strips.rows == 1 or w.zero_padded:
        return None
    count = conv.rows.shape[1]
    weights, min_dot = in_lanes(conv.rows, conv.min_dot)
    limits = lane_limits(weights, min_dot)
    needed, odd = (limits + 1) // 2, limits % 2 != 0
    least = max(int(needed.max()), 0)
    most = int((least - needed + weights.sum(axis=1)).max())
    slices = max(5, most.bit_length(), (least + count // 2).bit_length())
    ones = count if w.padded and w.pad_value > 0 else 0
    start = least - needed + (weights.sum(axis=1) if ones else 0)
    given = start >= least + ones // 2 + (ones % 2 & ~odd)
    columns = np.concatenate([weights.T, np.zeros((1, len(weights)), bool), odd[None]])
    digits = np.concatenate([lane_digits(start, slices), pack(given, LANES)[:, None]], axis=1)
    tables = [
        column_table("columns", pack(columns, LANES).T),
        column_table("start", ~digits),
        _outside(strips, ones > 0, cpu),
    ]
    places = "clz" not in cpu.features and "mul" in cpu.features
    if places:
        tables.append(bit_places())
    inverted = bool(conv.all_set.any())
    if inverted:
        tables.append(own_table("all_set", pack(conv.all_set, strips.out.bits), cpu))
    return ConvDelta(
        outputs=len(conv.rows),
        inputs=count,
        strips=strips,
        slices=slices,
        least=least,
        ones=ones,
        tables=tuple(tables),
        places=places,
        all_set=inverted,
    )


def _outside(strips: Strips, plus: bool, cpu: Cpu) -> Table:
    """A row of a window outside the image."""
    line = np.full((strips.window.kernel_width, strips.channels), plus)
    return own_table("outside", pack(line, strips.pixel.bits).reshape(-1), cpu)


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
    inner = _across(s)
    added = in_strips((rows & ~above).sum(axis=3), inner)
    taken = in_strips((above & ~rows).sum(axis=3), inner)
    first_added = in_strips((rows & (not view.ones)).sum(axis=3), inner)[:, :, :tall]
    first_taken = in_strips((~rows & bool(view.ones)).sum(axis=3), inner)[:, :, :tall]
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
        number = number + (a_end - a) - (t_end - t)
        found = parts.total(found, _window_trips(view, a_end - a, t_end - t, number))
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


def _window_trips(view: ConvDelta, added: Counts, taken: Counts, number: Counts) -> Trips:
    """Of one window of each strip, with so many entries in its lists and so many set bits."""
    words = view.strips.out_words
    moves = (added > 0) | (taken > 0)
    moved = words * parts.per_input(moves)
    below = parts.below(view.least + (number >> 1), view.slices)
    return parts.total(
        {
            "conv_delta.move": moved,
            f"conv_delta.move[{view.slices}]": moved,
            "conv_delta.move.digit": moved * view.slices,
            "conv_delta.move.limit": words * parts.per_input(below * moves),
            "add_lists": moved,
        },
        _list_trips(view, added, "conv_delta.carry"),
        _list_trips(view, taken, "conv_delta.borrow"),
    )


def _list_trips(view: ConvDelta, listed: Counts, pair: str) -> Trips:
    """Of adding a list of each strip to the counters; ``pair`` is what a block of it leaves."""
    words, whole = view.strips.out_words, listed + -listed % 4
    pairs = words * parts.per_input(-(-whole // BLOCK))
    found: Trips = {pair: pairs, "conv_delta.digit": (view.slices - 5) * pairs}
    for columns in (16, 12, 8, 4):
        blocks = whole // 16 if columns == 16 else whole % 16 == columns
        found[f"add_lists.block{columns}"] = words * parts.per_input(blocks)
    return found


def most(view: ConvDelta, cpu: Cpu, price: Price) -> float:
    """At most all bits of a row differ from those of the row above it, as in stripes across.

    So no list is longer, none is moved more often or sooner. What a window adds up may take more
    with an entry less, or if entries are shared out otherwise between the two lists: of all that
    there can be the dearest is taken.
    """
    s, w = view.strips, view.window
    size = (1, w.height, w.width, s.channels)
    blank = trips(view, (np.full(size, 1 if view.ones else -1),), cpu)  # as it is outside
    line = in_strips(np.full((1, 1, w.width), s.channels), _across(s))[0]  # bits of a row
    place = np.arange(s.rows + w.kernel_height - 1) - w.pad_top
    caps = line * ((place >= 0) & (place <= w.height))  # the row below the image differs as well
    listed, moves, moved = 0, 0, 0
    # Set bits of the first window are listed, then where its rows differ: most if rows take turns.
    first = min(w.height, w.kernel_height - w.pad_top)
    listed += (line * (first + (first - 1) // 2)).sum() + caps[:, w.pad_top + first :].sum()
    used = caps[:, : w.kernel_height].sum(axis=1)
    entries = [used]
    for row in range(1, s.rows):
        live = caps[:, row : row + w.kernel_height - 1].sum(axis=1)
        full = view.capacity - used < view.room
        moves, moved = moves + int(full.sum()), moved + int((live * full).sum())
        used = np.where(full, live, used) + caps[:, row + w.kernel_height - 1]
        entries.append(live + caps[:, row + w.kernel_height - 1])
    changes = {"list_changes.bit": listed, "drop_row.move": moves, "drop_row.moved": moved}
    return float(price(blank | changes)[0] + _dearest(view, price)[np.stack(entries)].sum())


def _across(s: Strips) -> Strips:
    """The same strips, without rows above and below the image."""
    return replace(s, window=replace(s.window, pad_top=0, pad_bottom=0))


def _dearest(view: ConvDelta, price: Price) -> NDArray[np.float64]:
    """What a window takes beside its list, at most, by how many entries its lists may have."""
    number = np.arange(view.inputs + 1)[:, None]
    none, one = np.zeros((1, 1), np.int64), np.ones((1, 1), np.int64)
    added, taken = (
        price(_list_trips(view, number, f"conv_delta.{pair}")) for pair in ("carry", "borrow")
    )
    beside = price(_window_trips(view, one, none, none + number)).max() - added[1]
    # Sixteen entries cost the same wherever they are, so one list has all but a few.
    few = number[:BLOCK]
    rest = number[:, 0] - few
    there = np.where(
        rest < 0, -np.inf, np.maximum(added[few] + taken[rest], added[rest] + taken[few])
    )
    each = np.maximum(there.max(axis=0) + beside, 0)
    each[0] = 0
    return np.asarray(np.maximum.accumulate(each))


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
    most=most,
    printed=lambda view: {"conv_delta.digits": view.slices},
)
