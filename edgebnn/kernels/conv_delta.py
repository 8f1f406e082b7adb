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

from dataclasses import dataclass

import numpy as np

from edgebnn.bits import Layout, pack
from edgebnn.ir import Conv, MaxPool, Op
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Price, Table, Trips, Values
from edgebnn.kernels.columns import (
    LANES,
    all_set_tables,
    bit_places,
    in_lanes,
    lane_digits,
    lane_limits,
    result_trips,
    strips_conv,
    two_words,
)
from edgebnn.kernels.differences import (
    Differences,
    added_up,
    dearest,
    goes_down,
    listed,
    longest,
    outside,
)
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

_LEAST_OUTPUTS = 12


@dataclass(frozen=True, slots=True)
class ConvDelta(Differences):
    """What ``conv_delta.c.j2`` prints.

    ``columns`` has a row a group of words that are added up abreast: a column an input of the
    window, then one of zeros at the offset ``zeros``, and the word ``odd``; where groups are wide
    these are its rows, ``group_rows`` in each. ``start`` is what counters begin with and what that
    gives, inverted. ``least`` is what counters have to reach, in ``slices`` digits, if no bit is
    set; in lanes without a bit in ``odd`` it is one more if their number is odd.
    """

    least: int
    tables: tuple[Table, ...]
    all_set: bool

    @property
    def helpers(self) -> tuple[str, ...]:
        s = self.strips
        listing = ("leading_zeros", f"take_bit{s.two}", f"list_changes{s.own}{s.two}", "changes")
        if s.abreast.wide:
            return ("wide", "list_ends", "wide_lists", *listing)
        adding = ("pairs", *two_words(s.at_once), "list_ends", f"lists{s.two}")
        return (*adding, *listing, "begin_counters")

    @property
    def odd(self) -> int:
        """The place of a word behind the columns, or of those of words at once."""
        return self.strips.at_once * (self.inputs + 1)

    @property
    def group_rows(self) -> int:
        return self.strips.abreast.group_rows(self.tables[0])

    @property
    def weights(self) -> tuple[int, ...]:
        """What a digit of counters counts, the lowest first."""
        return tuple(1 << slice_ for slice_ in range(self.slices))

    @property
    def counter_rows(self) -> int:
        """Digits of the counters of all outputs, and what each of these says."""
        return self.strips.abreast.groups * (self.slices + 1)

    @property
    def counter_words(self) -> int:
        return self.counter_rows * self.strips.abreast.size

    @property
    def scratch_words(self) -> int:
        return self.carry_words + self.counter_words + self.capacity


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvDelta | None:
    conv = strips_conv(ops, inputs, cpu)
    if conv is None or not conv.signs or not goes_down(conv.strips):
        return None
    strips, w = conv.strips, conv.strips.window
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
        strips.abreast.columns(columns),
        strips.abreast.start(~digits),
        outside(strips, ones > 0, cpu),
    ]
    places = "clz" not in cpu.features and "mul" in cpu.features
    if places:
        tables.append(bit_places(strips.at_once))
    inverted = all_set_tables(conv, cpu)
    tables += inverted
    return ConvDelta(
        outputs=len(conv.rows),
        inputs=count,
        strips=strips,
        slices=slices,
        least=least,
        ones=ones,
        tables=tuple(tables),
        places=places,
        all_set=bool(inverted),
    )


def pays(view: ConvDelta) -> bool:
    """Whether rows would take more instructions.

    A word of outputs costs about as much as 9 rows where a fifth of the bits change from a row to
    the next, as in trained networks, and as much as 16 where half of them do. Measured on
    Cortex-M4, Cortex-M0 and RV32IMC, for 1 to 128 channels; docs/kernels.md has the table.
    """
    return view.outputs >= _LEAST_OUTPUTS


def trips(view: ConvDelta, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    s = view.strips
    found = listed(view, parts.is_set(values[0]))
    number = view.ones + (found.added - found.taken).cumsum(axis=2)
    windows = s.rows * s.columns
    kind = "[word]" if s.out_words == 1 else "[words]"
    return parts.total(
        {
            "conv_delta": 1,
            "conv_delta.strip": s.columns,
            "conv_delta.relisted": s.columns * view.relisted,
            "conv_delta.window": windows,
            f"conv_delta{kind}": windows,
            "begin_counters": s.columns,
            "begin_counters.word": s.columns * view.counter_words,
        },
        found.trips,
        _window_trips(view, found.added, found.taken, number),
        result_trips(s, view.all_set, "conv_delta"),
    )


def _window_trips(view: ConvDelta, added: Counts, taken: Counts, number: Counts) -> Trips:
    """Of windows with so many entries in their lists, and so many set bits."""
    words = view.strips.out_words
    moves = (added > 0) | (taken > 0)
    moved = words * parts.per_input(moves)
    below = parts.below(view.least + (number >> 1), view.slices)
    found = {
        "conv_delta.move": moved,
        f"conv_delta.move[{view.slices}]": moved,
        "conv_delta.move.digit": moved * view.slices,
        "conv_delta.move.limit": words * parts.per_input(below * moves),
        "add_lists": moved,
    }
    return parts.total(
        parts.at_once(found, view.strips.at_once),
        added_up(view, added, "conv_delta.carry"),
        added_up(view, taken, "conv_delta.borrow"),
    )


def most(view: ConvDelta, cpu: Cpu, price: Price) -> float:
    """What lists take at most, and the dearest of all numbers of set bits in each window."""
    w = view.window
    size = (1, w.height, w.width, view.strips.channels)
    blank = trips(view, (np.full(size, 1 if view.ones else -1),), cpu)  # as it is outside
    changes, entries = longest(view)
    number = np.arange(view.inputs + 1)[:, None]
    none, one = np.zeros((1, 1), np.int64), np.ones((1, 1), np.int64)
    least = price(added_up(view, one, "conv_delta.carry"))[0]
    beside = float(price(_window_trips(view, one, none, none + number)).max()) - least
    return float(price(blank | changes)[0] + dearest(view, price, beside)[entries].sum())


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
