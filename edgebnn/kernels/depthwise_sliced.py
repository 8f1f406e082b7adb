"""Depthwise convolutions on bits, a word of channels at a time: each lane of it is a counter."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import Layout, pack
from edgebnn.ir import Bits, DepthwiseConv, Int32Array, Levels, Op, Sums, fan_in, infer
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import (
    Inputs,
    Kernel,
    Reading,
    SumsHead,
    Table,
    Trips,
    Values,
    Window,
    mismatch_limits,
    sums_head,
    window,
)
from edgebnn.kernels.pixels import BitPixel, alike, bit_pixel, gathered, own_table
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DepthwiseSliced:
    """What ``depthwise_sliced.c.j2`` prints.

    Bit p of the counts of a word lies in plane p of ``planes``. A tap outside the image, where the
    value is 0, is half a mismatch: then all are counted twice. The words of a ``stored`` pixel are
    computed one after the other, or together in that of ``pixel``.
    """

    inputs: int
    outputs: int
    planes: int
    window: Window
    pixel: BitPixel
    stored: BitPixel
    tables: tuple[Table, ...]
    sums: SumsHead | None  # None: bits
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return self.sums.helpers if self.sums else ()

    @property
    def joined(self) -> bool:
        """Whether the words of a pixel are computed together."""
        return self.stored.words > self.pixel.words

    @property
    def out_words(self) -> int:
        return self.sums.words if self.sums else self.stored.words


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
    result = infer(op, source)
    stored = bit_pixel(source, cpu, alike(source, result, cpu))
    pixel = gathered(source, stored, cpu) or stored
    rows = pack(op.weights.reshape(taps, -1), pixel.bits)
    tables: tuple[Table, ...] = (own_table("weights", rows, cpu),)
    limits = mismatch_limits(op.head, taps, doubled=windows.zero_padded)
    if limits is not None:
        # count <= limit is count < limit + 1, which is 0 for a bit that is never set.
        tables += (own_table("limits", _slices(limits + 1, planes, pixel.bits), cpu),)
    sums = sums_head(result, cpu) if isinstance(result, Sums) else None
    return DepthwiseSliced(taps, source.channels, planes, windows, pixel, stored, tables, sums)


def _slices(values: Int32Array, bits: int, own: int) -> NDArray[np.unsignedinteger]:
    """(channels,) numbers -> (words, bits) words: bit b of ``own`` numbers side by side."""
    planes = np.array([(values >> b) & 1 for b in range(bits)], dtype=np.bool_)
    return np.ascontiguousarray(pack(planes, own).T)


def trips(view: DepthwiseSliced, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    w, words = view.window, view.pixel.words
    windows = w.out_height * w.out_width
    taps = sum(parts.taps(w)) * words
    name = "depthwise_sliced"
    pads = f"{name}[{'zero' if w.zero_padded else w.pad_value if w.padded else 'whole'}]"
    several = f"{name}[{'words' if words > 1 else 'word'}]"
    found: Trips = {
        name: 1,
        f"{name}.pixel": windows,
        f"{name}.plane": taps * view.planes,
        f"{pads}.tap": taps,
        f"{name}[joined].tap": taps * view.joined,
        f"{name}[joined]": windows * view.joined,
        f"{pads}.row": windows * words * w.kernel_height,
        f"{several}.row": windows * words * w.kernel_height,
        f"{several}.tap": taps,
        f"{name}.tap[{view.planes}]": taps,
        **parts.times(parts.window_loops(w, name), words),
    }
    if view.sums is None:
        found[f"{name}.reach"] = windows * words * view.planes
        found[f"{name}.reach[{view.planes}]"] = windows * words
        return found
    few = parts.special(f"{name}.sum", view.outputs)
    return found | {
        f"{name}.sums": windows * words,
        f"{name}.sum": windows * view.outputs,
        f"{name}.digit": windows * view.outputs * view.planes,
        f"{few}": windows * view.outputs,
        f"{name}.sum{view.sums.bits}": windows * view.outputs,
    }


KERNEL = Kernel(
    "depthwise_sliced",
    "bit_sliced",
    ((DepthwiseConv,),),
    frozenset({Layout.ROWS}),
    fit,
    trips=trips,
    reading=Reading.ALIKE,
)
