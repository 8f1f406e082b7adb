"""How kernels read and write pixels of bits, whose words may be narrower than the CPU's."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import own_bits, pack, pack_pixels, pixel_words, tail_mask, words
from edgebnn.ir import Bits, BoolArray, Tensor
from edgebnn.kernels.base import Table
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class BitPixel:
    """A pixel of bits: its words, of ``bits`` bits; the last one may have a tail of zeros.

    A word of the CPU's has ``in_word`` of them.
    """

    words: int
    bits: int
    in_word: int
    tail: bool
    tail_mask: int  # all other bits of the last word

    @property
    def ones(self) -> int:
        """A word of ones."""
        return (1 << self.bits) - 1

    @property
    def narrow(self) -> bool:
        """Whether its words are narrower than the CPU's."""
        return self.in_word > 1


def alike(source: Tensor, result: Tensor, cpu: Cpu) -> int:
    """Bits of the words that an op reads and writes alike, of as many channels.

    A single pixel lies in words of the CPU's, and as well in those of an image.
    """
    widths = [own_bits(one, cpu.word_bits) for one in (source, result) if isinstance(one, Bits)]
    return min(widths)


def bit_pixel(tensor: Bits, cpu: Cpu, own: int = 0) -> BitPixel:
    """A pixel of ``tensor``, in words of ``own`` bits if they are given."""
    own = own or own_bits(tensor, cpu.word_bits)
    return BitPixel(
        words=words(tensor.channels, own),
        bits=own,
        in_word=cpu.word_bits // own,
        tail=tensor.channels % own != 0,
        tail_mask=tail_mask(tensor.channels, own),
    )


def gathered(tensor: Bits, pixel: BitPixel, cpu: Cpu) -> BitPixel | None:
    """A pixel of several words in a single one of the CPU's, in which it takes less to compute.

    None where ``pixel`` has one word, or more bits than the CPU's.
    """
    if pixel.words == 1 or tensor.channels > cpu.word_bits:
        return None
    return bit_pixel(tensor, cpu, cpu.word_bits)


def ends(source: Bits, taps: int, copies: int, cpu: Cpu) -> tuple[int, ...]:
    """Places of the last words of copies of a window, where pixels leave something of them."""
    used = taps * pixel_words(source, cpu.word_bits) * own_bits(source, cpu.word_bits)
    size = words(used, cpu.word_bits)
    return tuple(size * (copy + 1) - 1 for copy in range(copies) if used % cpu.word_bits)


# --- tables ---------------------------------------------------------------------------------------


def packed_like(suffix: str, bits: BoolArray, tensor: Tensor, cpu: Cpu) -> Table:
    """(rows, channels) or (channels,) of bits in words of ``tensor``'s own."""
    return own_table(suffix, pack(bits, own_bits(tensor, cpu.word_bits)), cpu)


def own_table(suffix: str, values: NDArray[np.unsignedinteger], cpu: Cpu) -> Table:
    """Words of any width, with zeros behind them, where a linker would put a gap."""
    size = values.dtype.itemsize
    end = [(0, 0)] * (values.ndim - 1)
    while values.size * size % (cpu.word_bits // 8):
        values = np.pad(values, [(0, 1), *end])
    return Table(suffix, f"uint{8 * size}_t", values, words=True)


def packed_rows(suffix: str, rows: BoolArray, source: Tensor, cpu: Cpu) -> Table:
    """(outputs, ..., channels) weights in words of the CPU's, as pixels of ``source`` lie in them.

    What a row has are pixels side by side; the tail of its last word is zero.
    """
    own = own_bits(source, cpu.word_bits)
    return Table(suffix, cpu.word, pack_pixels(rows, own, cpu.word_bits), words=True)
