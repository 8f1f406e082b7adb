"""How tensors lie in memory: the only place that knows how bits and sums lie in words.

A word is as wide as the CPU likes it, 8 to 64 bits. A row of bits is packed into words, least
significant bit first, with zeros in the tail of its last word, in weights and activations alike:
the dot product of two rows of n values is then ``n - 2 * popcount(a ^ w)`` with no mask. What a
pixel has, bits or sums, begins with a word of its own. Bits of several planes are whole tensors of
bits, one behind the other, the lowest plane first.
"""

import enum

import numpy as np
from numpy.typing import NDArray

from edgebnn.ir import Bits, BoolArray, Ints, ScoreVector, Sums, Tensor


class Layout(enum.Enum):
    """How a tensor lies in memory."""

    BYTES = "integers"  # a byte each
    ROWS = "bits"  # the channels of a pixel side by side
    PLANES = "bits of several planes"  # one after the other, each as ROWS
    SUMS16 = "sums of 16 bits"  # in two's complement, the least significant part first
    SUMS32 = "sums of 32 bits"
    SCORES = "scores"  # 32 bits each, the caller's


def layout(tensor: Tensor) -> Layout:
    """How ``tensor`` lies in memory; sums take 16 bits where they fit."""
    match tensor:
        case Ints():
            return Layout.BYTES
        case Bits():
            return Layout.ROWS if tensor.planes == 1 else Layout.PLANES
        case Sums():
            small = tensor.low >= -(2**15) and tensor.high < 2**15
            return Layout.SUMS16 if small else Layout.SUMS32
        case ScoreVector():
            return Layout.SCORES


def sum_bits(tensor: Sums) -> int:
    """Bits of each sum in memory."""
    return 16 if layout(tensor) is Layout.SUMS16 else 32


def words(bits: int, word_bits: int) -> int:
    """Words that a row of ``bits`` bits takes."""
    return -(-bits // word_bits)


def pixel_words(tensor: Tensor, word_bits: int) -> int:
    """Words from one pixel of ``tensor`` to the next, in the arena; 0 for what the caller holds.

    Of several planes it is that in each of them.
    """
    match tensor:
        case Bits():
            return words(tensor.channels, word_bits)
        case Sums():
            return words(tensor.channels * sum_bits(tensor), word_bits)
        case _:
            return 0


def tensor_words(tensor: Tensor, word_bits: int) -> int:
    """Words that ``tensor`` takes in the arena; input and scores are the caller's."""
    if isinstance(tensor, ScoreVector):
        return 0
    planes = tensor.planes if isinstance(tensor, Bits) else 1
    return planes * tensor.height * tensor.width * pixel_words(tensor, word_bits)


def plane_words(tensor: Bits, word_bits: int) -> int:
    """Words from one plane of ``tensor`` to the next."""
    return tensor.height * tensor.width * pixel_words(tensor, word_bits)


def pack(bits: BoolArray, word_bits: int) -> NDArray[np.unsignedinteger]:
    """(..., n) booleans -> (..., words(n)) unsigned words; tail bits are zero."""
    count = words(bits.shape[-1], word_bits)
    padded = np.zeros((*bits.shape[:-1], count * word_bits), dtype=np.uint8)
    padded[..., : bits.shape[-1]] = bits
    packed = np.packbits(padded, axis=-1, bitorder="little")
    word = np.dtype(f"<u{word_bits // 8}")
    return packed.view(word).astype(word.newbyteorder("=")).reshape(*bits.shape[:-1], count)


def tail_mask(bits: int, word_bits: int) -> int:
    """The last word of a row of ``bits`` bits that are all 1."""
    return int((1 << (bits % word_bits or word_bits)) - 1)
