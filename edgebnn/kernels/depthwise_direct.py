"""Depthwise convolutions on integers, a channel at a time."""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import DepthwiseConv, Ints, Op, fan_in, infer
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
    packed,
    window,
)
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DepthwiseDirect:
    """What ``depthwise_direct.c.j2`` prints."""

    channels: int
    window: Window
    weights: Table
    head: HeadView
    parameters: str
    arguments: str = "in, y, x"
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return self.head.helpers

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.weights, *self.head.tables)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DepthwiseDirect | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, DepthwiseConv) or not isinstance(source, Ints):
        return None
    weights = packed("weights", op.weights, cpu).reshaped(fan_in(op), -1)
    head = head_view(op.head, infer(op, source), dot_limits(op.head), ">=", cpu)
    parameters = f"const uint8_t *in, {cpu.place} y, {cpu.place} x"
    return DepthwiseDirect(source.channels, window(op, source), weights, head, parameters)


def trips(view: DepthwiseDirect, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w = view.window
    windows = w.out_height * w.out_width
    name = "depthwise_direct"
    return parts.total(
        {name: 1, f"{name}.inside": parts.taps(w)[0] * view.channels},
        {f"{parts.special(name + '.channels', view.channels, 1)}": windows * view.channels},
        parts.times(parts.window_loops(w, name), view.channels),
        parts.times(parts.head(view.head), windows),
    )


KERNEL = Kernel(
    "depthwise_direct", "direct", ((DepthwiseConv,),), frozenset({Layout.BYTES}), fit, trips=trips
)
