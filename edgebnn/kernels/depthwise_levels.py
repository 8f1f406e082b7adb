"""Depthwise convolutions on bits, of one plane or several, a channel at a time."""

from dataclasses import dataclass

from edgebnn.bits import Layout, image_words
from edgebnn.ir import Bits, DepthwiseConv, Op, fan_in, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    HeadView,
    Inputs,
    Kernel,
    Reading,
    Table,
    Trips,
    Values,
    Window,
    dot_limits,
    head_view,
    packed,
    window,
)
from edgebnn.kernels.pixels import bit_pixel
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DepthwiseLevels:
    """What ``depthwise_levels.c.j2`` prints.

    The image is read by bytes: planes are ``plane_bytes`` apart and pixels ``pixel_bytes``.
    """

    planes: int
    plane_bytes: int
    levels: int
    window: Window
    pixel_bytes: int
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
    pixel = bit_pixel(source, cpu)
    return DepthwiseLevels(
        planes=source.planes,
        plane_bytes=image_words(source, cpu.word_bits) * cpu.word_bits // 8,
        levels=source.levels,
        window=window(op, source),
        pixel_bytes=pixel.words * pixel.bits // 8,
        weights=packed("weights", op.weights, cpu).reshaped(fan_in(op), -1),
        head=head_view(op.head, infer(op, source), dot_limits(op.head), ">=", cpu),
        parameters=f"const uint8_t *in, {cpu.place} y, {cpu.place} x",
    )


def trips(view: DepthwiseLevels, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w, channels, name = view.window, view.head.outputs, "depthwise_levels"
    windows = w.out_height * w.out_width
    inside = parts.taps(w)[0] * channels
    return parts.total(
        {
            name: 1,
            f"{name}.inside": inside,
            f"{name}.plane": inside * view.planes,
            f"{name}[{view.planes}].inside": inside,
            f"{parts.special(name + '.channels', channels, 1)}": windows * channels,
        },
        parts.times(parts.window_loops(w, name), channels),
        parts.times(parts.head(view.head), windows),
    )


KERNEL = Kernel(
    "depthwise_levels",
    "level_taps",
    ((DepthwiseConv,),),
    frozenset({Layout.ROWS, Layout.PLANES}),
    fit,
    rank=1,
    trips=trips,
    reading=Reading.BYTES,
)
