"""Depthwise convolutions on integers, a channel at a time."""

from dataclasses import dataclass

from edgebnn.bits import Layout, pack
from edgebnn.ir import DepthwiseConv, Ints, Op, fan_in, infer
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Table,
    Window,
    dot_limits,
    head_view,
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
    scratch_words: int = 0
    parameters: str = "const uint8_t *in, int32_t y, int32_t x"
    arguments: str = "in, y, x"

    @property
    def helpers(self) -> tuple[str, ...]:
        return self.head.helpers

    @property
    def tables(self) -> tuple[Table, ...]:
        return (self.weights, *self.head.tables)


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DepthwiseDirect | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, DepthwiseConv) or not isinstance(source, Ints) or cpu.word_bits != 32:
        return None
    weights = Table("weights", "uint32_t", pack(op.weights).reshape(fan_in(op), -1))
    head = head_view(op.head, infer(op, source), dot_limits(op.head), ">=")
    return DepthwiseDirect(source.channels, window(op, source), weights, head)


KERNEL = Kernel("depthwise_direct", "direct", (DepthwiseConv,), frozenset({Layout.BYTES}), fit)
