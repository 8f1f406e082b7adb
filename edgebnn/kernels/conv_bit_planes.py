"""Convolutions on integers, by the bit planes of a copy of the window."""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Conv, Ints, Op, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Table,
    Trips,
    Values,
    Window,
    dot_limits,
    head_view,
    window,
)
from edgebnn.kernels.conv_subset_sums import int_windows
from edgebnn.kernels.dense_bit_planes import Planes, fits, planes, planes_trips
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class ConvBitPlanes:
    """What ``conv_bit_planes.c.j2`` prints."""

    channels: int
    window: Window
    planes: Planes
    head: HeadView
    parameters: str = "const uint32_t *planes, uint32_t total"
    arguments: str = "planes, total"

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("popcount", "bit_planes", *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.planes.weights, *self.head.tables)

    @property
    def patch_offset(self) -> int:
        """Where the copy of the window begins, in words of scratch; the planes come first."""
        return self.planes.words

    @property
    def scratch_words(self) -> int:
        return self.patch_offset + -(-self.planes.inputs // 4)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvBitPlanes | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Ints) or not fits(cpu):
        return None
    head = head_view(op.head, infer(op, source), dot_limits(op.head), ">=", cpu)
    return ConvBitPlanes(source.channels, window(op, source), planes(op, source, cpu), head)


def trips(view: ConvBitPlanes, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w = view.window
    windows = w.out_height * w.out_width
    return parts.total(
        {"conv_bit_planes": 1},
        int_windows(w, view.channels),
        parts.times(planes_trips(view.planes, view.head), windows),
    )


KERNEL = Kernel(
    "conv_bit_planes", "bit_planes", ((Conv,),), frozenset({Layout.BYTES}), fit, rank=1, trips=trips
)
