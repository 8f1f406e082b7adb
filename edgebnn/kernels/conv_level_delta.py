"""Convolutions by columns from one window to the next below it, of levels, or to levels or sums.

Each plane of the image is a :mod:`~edgebnn.kernels.conv_delta` of its own, up to where lanes count:
a bit that changes in plane p adds ``2**p``, so its columns are added from digit p on. All counters
have digits beyond the highest that is of use, where those of a higher plane end. What lanes make of
what they count is :mod:`~edgebnn.kernels.lane_heads`'s. Around the image lies the least level, no
set bit in any plane.
"""

from dataclasses import dataclass

import numpy as np

from edgebnn.bits import Layout, plane_words
from edgebnn.ir import Conv, MaxPool, Op
from edgebnn.kernels import lane_heads
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Price, Table, Trips, Values
from edgebnn.kernels.columns import all_set_tables, bit_places, strips_conv
from edgebnn.kernels.differences import (
    Differences,
    added_up,
    dearest,
    goes_down,
    listed,
    longest,
    outside,
)
from edgebnn.kernels.lane_heads import LaneHead, lane_columns, lane_head, plane_bits
from edgebnn.kernels.trips import Counts
from edgebnn.targets.base import Cpu

_LEAST_OUTPUTS = 12
_LEAST_SLICES = 5  # what the columns of three digits carry into, and one more


@dataclass(frozen=True, slots=True)
class ConvLevelDelta(Differences):
    """What ``conv_level_delta.c.j2`` prints.

    ``columns`` has a row a word of outputs: a column an input of a plane of the window, then one of
    zeros at the offset ``zeros``. The planes of the image are ``plane_words`` of its own apart.
    """

    planes: int
    plane_words: int
    head: LaneHead
    tables: tuple[Table, ...]
    all_set: bool

    @property
    def helpers(self) -> tuple[str, ...]:
        listing = ("leading_zeros", "take_bit", f"list_changes{self.strips.own}")
        return (
            "pairs",
            "lists",
            "add_lists",
            *listing,
            "changes",
            "clear_words",
            *self.head.helpers,
        )

    @property
    def stack_bytes(self) -> int:
        """What the template has there for lists, on a CPU with addresses of 32 bits."""
        return self.planes * 4 * (9 + 2 * self.window.kernel_height)

    @property
    def counter_words(self) -> int:
        """Of 32 outputs, together with the digits of no use."""
        return self.slices + self.planes - 1

    @property
    def counters_at(self) -> int:
        """Where they begin in scratch memory: behind carries, and numbers when these are added."""
        return max(self.carry_words, self.head.numbers)

    @property
    def lists_at(self) -> int:
        return self.counters_at + self.strips.out_words * self.counter_words

    @property
    def scratch_words(self) -> int:
        return self.lists_at + self.planes * self.capacity


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvLevelDelta | None:
    conv = strips_conv(ops, inputs, cpu)
    if conv is None or conv.signs or not goes_down(conv.strips):
        return None
    w = conv.strips.window
    if w.padded and w.pad_value > 0:
        return None
    head = lane_head(conv, cpu)
    if head is None:
        return None
    tables = [
        lane_columns(conv),
        *head.tables,
        outside(conv.strips, False, cpu),
    ]
    places = "clz" not in cpu.features and "mul" in cpu.features
    if places:
        tables.append(bit_places())
    inverted = all_set_tables(conv, cpu)
    tables += inverted
    return ConvLevelDelta(
        outputs=len(conv.rows),
        inputs=conv.rows.shape[1],
        strips=conv.strips,
        slices=max(_LEAST_SLICES, head.digits),
        ones=0,
        places=places,
        planes=conv.source.planes,
        plane_words=plane_words(conv.source, cpu.word_bits),
        head=head,
        tables=tuple(tables),
        all_set=bool(inverted),
    )


def pays(view: ConvLevelDelta) -> bool:
    """Whether rows would take more instructions: as for bits, since both take each plane."""
    return view.outputs >= _LEAST_OUTPUTS


def trips(view: ConvLevelDelta, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    s = view.strips
    planes = [listed(view, bits) for bits in plane_bits(values[0], view.planes)]
    each = [(one.added - one.taken).cumsum(axis=2) << p for p, one in enumerate(planes)]
    set_bits = np.sum(each, axis=0)
    windows = s.rows * s.columns
    words = s.out_words
    found: Trips = {
        "conv_level_delta": 1,
        "conv_level_delta.strip": s.columns,
        "conv_level_delta.plane": s.columns * view.planes,
        "conv_level_delta.relisted": s.columns * view.planes * view.relisted,
        "conv_level_delta.window": windows,
        "conv_level_delta.window.plane": windows * view.planes,
        "conv_level_delta.word": windows * words,
        "conv_level_delta.word.plane": windows * words * view.planes,
        "conv_level_delta.clear": s.columns * words * view.counter_words,
    }
    for one in planes:
        found = parts.total(found, one.trips, _move_trips(view, one.added, one.taken))
    return parts.total(
        found,
        lane_heads.head_trips(view.head, s, set_bits.reshape(len(set_bits), -1), view.all_set),
    )


def _move_trips(view: ConvLevelDelta, added: Counts, taken: Counts) -> Trips:
    """Of one plane of windows with so many entries in their lists."""
    moved = view.strips.out_words * parts.per_input((added > 0) | (taken > 0))
    return parts.total(
        {
            "conv_level_delta.move": moved,
            "conv_level_delta.move.digit": moved * view.slices,
            "add_lists": moved,
        },
        added_up(view, added, "conv_delta.carry"),
        added_up(view, taken, "conv_delta.borrow"),
    )


def most(view: ConvLevelDelta, cpu: Cpu, price: Price) -> float:
    """What lists of all planes take at most, and the dearest of all numbers beside them."""
    w = view.window
    blank = trips(
        view, (np.full((1, w.height, w.width, view.strips.channels), 1 - 2**view.planes),), cpu
    )
    changes, entries = longest(view)
    changes = parts.times(changes, view.planes)
    carries = view.strips.rows * view.strips.columns * view.strips.out_words * view.head.digits
    one = np.ones((1, 1), np.int64)
    least = price(added_up(view, one, "conv_delta.carry"))[0]
    beside = float(price(_move_trips(view, one, 0 * one))[0]) - least
    lists = view.planes * dearest(view, price, beside)[entries].sum()
    both = [price(blank | changes | {"lane_head.carry": carry})[0] for carry in (0, carries)]
    return float(max(both) + lists)


KERNEL = Kernel(
    "conv_level_delta",
    "columns",
    ((Conv,), (Conv, MaxPool)),
    frozenset({Layout.ROWS, Layout.PLANES}),
    fit,
    rank=-2,  # before conv_level_direct
    pays=pays,
    constant_time=False,
    trips=trips,
    most=most,
    printed=lambda view: {
        "conv_delta.digits": view.slices,
        "conv_level_delta.state": view.stack_bytes,
        **lane_heads.printed(view.head),
    },
)
