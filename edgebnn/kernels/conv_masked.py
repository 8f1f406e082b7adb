"""Convolutions on bits by masked columns, over a copy of the window: all images take the same time.

Zeros around the image are not for it: of those windows mismatches are counted twice, and what a
table has of columns is true of one number to begin with.
"""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Bits, Conv, Op, Threshold, fan_in, infer
from edgebnn.kernels import masked
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    Inputs,
    Kernel,
    Table,
    Trips,
    Values,
    Window,
    mismatch_limits,
    window,
)
from edgebnn.kernels.pixels import BitPixel, bit_pixel, ends
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class ConvMasked:
    """What ``conv_masked.c.j2`` prints; a pixel of the result is ``out``."""

    outputs: int
    window: Window
    pixel: BitPixel
    out: BitPixel
    sums: masked.Masked
    ends: tuple[int, ...]  # words of the copy of a window that have a tail
    pooled: bool = False

    @property
    def helpers(self) -> tuple[str, ...]:
        return masked.HELPERS

    @property
    def tables(self) -> tuple[Table, ...]:
        return self.sums.tables

    @property
    def out_words(self) -> int:
        return self.sums.out_words

    @property
    def patch_place(self) -> int:
        """Where the copy of a window begins in scratch memory."""
        return self.sums.scratch_words

    @property
    def scratch_words(self) -> int:
        return self.patch_place + self.sums.row_words


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ConvMasked | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Conv) or not isinstance(source, Bits):
        return None
    windows, made = window(op, source), infer(op, source)
    if windows.zero_padded or not isinstance(op.head, Threshold) or not isinstance(made, Bits):
        return None
    limits = mismatch_limits(op.head, fan_in(op))
    sums = None if limits is None else masked.masked(op.weights, limits, source, cpu)
    if sums is None:
        return None
    return ConvMasked(
        outputs=len(op.weights),
        window=windows,
        pixel=bit_pixel(source, cpu),
        out=bit_pixel(made, cpu),
        sums=sums,
        ends=ends(source, windows.taps, 1, cpu),
    )


def pays(view: ConvMasked) -> bool:
    return masked.pays(view.sums, view.outputs)


def trips(view: ConvMasked, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w = view.window
    windows = w.out_height * w.out_width
    taps = sum(parts.taps(w)) * (view.pixel.words > 1)
    kind = f"conv_masked[{'-0+'[w.pad_value + 1] if w.padded else 'whole'}]"
    few = parts.special("conv_masked.words", view.pixel.words)
    several = view.out_words > 1
    made = windows * view.out_words * several
    return parts.total(
        {"conv_masked": 1, "conv_masked.words": taps, f"{few}": taps},
        {"conv_masked.word": taps * view.pixel.words},
        {f"{kind}.window": windows, f"{kind}.words": taps, f"{kind}.tap": sum(parts.taps(w))},
        {"conv_masked.result": made, "conv_masked.narrow": windows * view.out.words * several},
        masked.trips(view.sums, windows),
        parts.window_loops(w, "conv_masked"),
    )


KERNEL = Kernel(
    "conv_masked",
    "masks",
    ((Conv,),),
    frozenset({Layout.ROWS}),
    fit,
    rank=-1,  # behind conv_direct
    pays=pays,
    trips=trips,
)
