"""Layers by columns, each window by itself, of levels, or to levels or sums.

Of each plane the set bits are listed as :mod:`~edgebnn.kernels.conv_direct` does it. A bit of plane
p counts ``2**p``, so its columns are added from digit p of the sums on. What lanes make of sums is
:mod:`~edgebnn.kernels.lane_heads`'s. Around the image lies the least level, no set bit in any
plane. A dense layer is a convolution of one window.
"""

from dataclasses import dataclass

import numpy as np

from edgebnn.bits import Layout, plane_words
from edgebnn.ir import Conv, Dense, MaxPool, Op
from edgebnn.kernels import lane_heads
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Price, Table, Trips, Values
from edgebnn.kernels.columns import all_set_tables, strips_conv
from edgebnn.kernels.lane_heads import LaneHead, lane_columns, lane_head, plane_bits
from edgebnn.kernels.trips import Counts
from edgebnn.kernels.window_lists import WindowLists, bits_inside, listed, whole_blocks
from edgebnn.targets.base import Cpu

_LEAST_OUTPUTS = 16


@dataclass(frozen=True, slots=True)
class ConvLevelDirect(WindowLists):
    """What ``conv_level_direct.c.j2`` prints.

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
        listing = ("leading_zeros", f"list_columns{self.strips.own}")
        return ("popcount", "pairs", "columns", *listing, "clear_words", *self.head.helpers)

    @property
    def stack_bytes(self) -> int:
        """What the template has there for lists, on a CPU with addresses of 32 bits."""
        return self.planes * 4 * (3 + (self.window.kernel_height + 1) * (self.overlap > 0))

    @property
    def lists_at(self) -> int:
        """Where they begin in scratch memory: behind sums, and carries or then numbers."""
        return self.slices + max(self.carry_words, self.head.numbers)

    @property
    def scratch_words(self) -> int:
        return self.lists_at + self.planes * self.capacity


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvLevelDirect | None:
    conv = strips_conv(ops, inputs, cpu)
    if conv is None or conv.signs:
        return None
    w = conv.strips.window
    if w.padded and w.pad_value >= 0:
        return None
    head = lane_head(conv, cpu)
    if head is None:
        return None
    tables = [lane_columns(conv), *head.tables]
    inverted = all_set_tables(conv, cpu)
    tables += inverted
    return ConvLevelDirect(
        outputs=len(conv.rows),
        inputs=conv.rows.shape[1],
        strips=conv.strips,
        slices=head.digits,
        planes=conv.source.planes,
        plane_words=plane_words(conv.source, cpu.word_bits),
        head=head,
        tables=tuple(tables),
        all_set=bool(inverted),
    )


def pays(view: ConvLevelDirect) -> bool:
    """Whether rows would take more instructions: as for bits, since both take each plane."""
    return view.outputs >= _LEAST_OUTPUTS


def trips(view: ConvLevelDirect, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    s = view.strips
    windows = s.rows * s.columns
    found: Trips = {
        "conv_level_direct": 1,
        "conv_level_direct.strip": s.columns,
        "conv_level_direct.plane": s.columns * view.planes,
        "conv_level_direct.window": windows,
        "conv_level_direct.window.plane": windows * view.planes,
        f"conv_level_direct{'.overlap' if view.overlap else '.apart'}": windows * view.planes,
        "conv_level_direct.word": windows * s.out_words,
        "conv_level_direct.word.plane": windows * s.out_words * view.planes,
        "conv_level_direct.clear": windows * s.out_words * view.slices,
    }
    numbers = []
    for plane, bits in enumerate(plane_bits(values[0], view.planes)):
        number, listing = listed(view, bits, cpu)
        numbers.append(number << plane)
        found = parts.total(found, listing, _plane_trips(view, number, plane))
    set_bits = np.sum(numbers, axis=0)
    return parts.total(found, lane_heads.head_trips(view.head, s, set_bits, view.all_set))


def _plane_trips(view: ConvLevelDirect, listed: Counts, plane: int) -> Trips:
    """Of adding up what (N, windows) list of one plane."""
    whole = whole_blocks(listed)
    digits = view.slices - plane
    reach = parts.columns_reach(whole, digits, np.zeros_like(listed))
    added = {
        "conv_level_direct.add": reach["columns_reach"],
        "conv_level_direct.add.digit": reach["columns_reach.digit"],
    }
    added |= {f"columns_reach.{one}": reach[f"columns_reach.{one}"] for one in _ADDED}
    return {
        "conv_level_direct.pad": parts.per_input(whole - listed),
        **parts.times(added, view.strips.out_words),
    }


_ADDED = ("block16", "block8", "carry")


def most(view: ConvLevelDirect, cpu: Cpu, price: Price) -> float:
    """All bits set list the most; of all numbers of columns in each window the dearest is taken."""
    w, s = view.window, view.strips
    size = (1, w.height, w.width, s.channels)
    number = bits_inside(view)
    full = trips(view, (np.full(size, 2**view.planes - 1, np.int64),), cpu)
    names = set(_plane_trips(view, number.reshape(1, -1), 0)) | {"lane_head.carry"}
    rest = {name: count for name, count in full.items() if name not in names}
    carries = s.rows * s.columns * s.out_words * view.head.digits
    added = sum(
        np.maximum.accumulate(price(_plane_trips(view, np.arange(view.inputs + 1)[:, None], plane)))
        for plane in range(view.planes)
    )
    head = max(price(rest | {"lane_head.carry": carry})[0] for carry in (0, carries))
    return float(head + np.asarray(added)[number].sum())


KERNEL = Kernel(
    "conv_level_direct",
    "columns",
    ((Conv,), (Conv, MaxPool), (Dense,)),
    frozenset({Layout.ROWS, Layout.PLANES}),
    fit,
    rank=-1,
    pays=pays,
    constant_time=False,
    trips=trips,
    most=most,
    printed=lambda view: {
        "conv_level_direct.state": view.stack_bytes,
        **lane_heads.printed(view.head),
    },
)
