"""Depthwise convolutions on bits, of one plane or several, a channel at a time."""

from dataclasses import dataclass

from edgebnn.bits import Layout, plane_words
from edgebnn.ir import Bits, DepthwiseConv, Op, fan_in, infer
from edgebnn.kernels.base import (
    BitPixel,
    HeadView,
    Inputs,
    Kernel,
    Table,
    Window,
    bit_pixel,
    dot_limits,
    head_view,
    packed,
    window,
)
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DepthwiseLevels:
    """What ``depthwise_levels.c.j2`` prints; planes of the image are ``plane_words`` apart."""

    planes: int
    plane_words: int
    levels: int
    window: Window
    pixel: BitPixel
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


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DepthwiseLevels | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, DepthwiseConv) or not isinstance(source, Bits):
        return None
    return DepthwiseLevels(
        planes=source.planes,
        plane_words=plane_words(source, cpu.word_bits),
        levels=source.levels,
        window=window(op, source),
        pixel=bit_pixel(source, cpu),
        weights=packed("weights", op.weights, cpu).reshaped(fan_in(op), -1),
        head=head_view(op.head, infer(op, source), dot_limits(op.head), ">=", cpu),
        parameters=f"const {cpu.word} *in, {cpu.place} y, {cpu.place} x",
    )


KERNEL = Kernel(
    "depthwise_levels",
    "level_taps",
    ((DepthwiseConv,),),
    frozenset({Layout.ROWS, Layout.PLANES}),
    fit,
    rank=1,
)
