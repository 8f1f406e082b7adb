"""Depthwise convolutions on bits, a word of channels at a time: each lane of it is a counter."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, pack
from edgebnn.ir import Bits, DepthwiseConv, Int32Array, Levels, Op, Sums, fan_in, infer
from edgebnn.kernels.base import (
    BitPixel,
    Inputs,
    Kernel,
    SumsHead,
    Table,
    Window,
    bit_pixel,
    mismatch_limits,
    packed,
    sums_head,
    window,
)
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DepthwiseSliced:
    """What ``depthwise_sliced.c.j2`` prints.

    Bit p of the counts of a word lies in plane p of ``planes``. A tap outside the image, where the
    value is 0, is half a mismatch: then all are counted twice.
    """

    inputs: int
    outputs: int
    planes: int
    window: Window
    pixel: BitPixel
    tables: tuple[Table, ...]
    sums: SumsHead | None  # None: bits
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return self.sums.helpers if self.sums else ()

    @property
    def out_words(self) -> int:
        return self.sums.words if self.sums else self.pixel.words


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DepthwiseSliced | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, DepthwiseConv) or not isinstance(source, Bits):
        return None
    if isinstance(op.head, Levels):
        return None
    taps = fan_in(op)
    windows = window(op, source)
    planes = ((2 * taps if windows.zero_padded else taps) + 1).bit_length()
    tables: tuple[Table, ...] = (packed("weights", op.weights, cpu).reshaped(taps, -1),)
    limits = mismatch_limits(op.head, taps, doubled=windows.zero_padded)
    if limits is not None:
        # count <= limit is count < limit + 1, which is 0 for a bit that is never set.
        tables += (Table("limits", cpu.word, _slices(limits + 1, planes, cpu), words=True),)
    result = infer(op, source)
    sums = sums_head(result, cpu) if isinstance(result, Sums) else None
    return DepthwiseSliced(
        taps, source.channels, planes, windows, bit_pixel(source, cpu), tables, sums
    )


def _slices(values: Int32Array, bits: int, cpu: Cpu) -> NDArray[np.unsignedinteger]:
    """(channels,) numbers -> (words, bits) words: bit b of a word of numbers side by side."""
    planes = np.array([(values >> b) & 1 for b in range(bits)], dtype=np.bool_)
    return np.ascontiguousarray(pack(planes, cpu.word_bits).T)


KERNEL = Kernel(
    "depthwise_sliced", "bit_sliced", ((DepthwiseConv,),), frozenset({Layout.ROWS}), fit
)
