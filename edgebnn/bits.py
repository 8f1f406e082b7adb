"""How tensors lie in memory: the only place that knows how bits and sums lie in words.

A word is as wide as the CPU likes it, 8 to 64 bits. A row of bits is packed into words, least
significant bit first, with zeros in the tail of its last word, in weights and activations alike:
the dot product of two rows of n values is then ``n - 2 * popcount(a ^ w)`` with no mask. What a
pixel has, bits or sums, begins with a word of its own.

An image of few channels would be zeros for the most part. So an image of bits has words of its own,
as narrow as it takes (:func:`own_bits`): a pixel of 16 channels is one of 16 bits, one of 24 has
three of 8. The lowest byte comes first, so whoever reads the image as a row finds the same bits in
words of the CPU's; what is left of the last one is zero. Bits of several planes are whole tensors
of bits, one behind the other, the lowest plane first, each in whole words of the CPU's.
"""

import enum

import numpy as np
from numpy.typing import NDArray

from edgebnn.ir import Bits, BoolArray, Ints, ScoreVector, Sums, Tensor

_ROOM = 13  # tenths: the bits that a pixel may take for each of its channels


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


def own_bits(tensor: Tensor, word_bits: int) -> int:
    """How wide the words are that ``tensor`` lies in, on a CPU with words of ``word_bits``.

    They are the widest in which its pixels take at most 1.3 times their bits. Where there are none,
    they are the widest of those in which they take least. What is a single pixel ends with a word
    of the CPU's, whatever it lies in, and so it lies in these.
    """
    if not isinstance(tensor, Bits) or tensor.height * tensor.width == 1:
        return word_bits
    widths = [word_bits >> by for by in range(word_bits.bit_length()) if word_bits >> by >= 8]
    taken = {width: words(tensor.channels, width) * width for width in widths}
    most = max(_ROOM * tensor.channels, 10 * min(taken.values()))
    return max(width for width in widths if 10 * taken[width] <= most)


def pixel_words(tensor: Tensor, word_bits: int) -> int:
    """Words of ``tensor``'s own from one pixel to the next; 0 for what the caller holds.

    Of several planes it is that in each of them.
    """
    match tensor:
        case Bits():
            return words(tensor.channels, own_bits(tensor, word_bits))
        case Sums():
            return words(tensor.channels * sum_bits(tensor), word_bits)
        case _:
            return 0


def image_words(tensor: Tensor, word_bits: int) -> int:
    """Words of the CPU's from the first pixel to behind the last, in each plane."""
    pixels = 0 if isinstance(tensor, ScoreVector) else tensor.height * tensor.width
    size = pixels * pixel_words(tensor, word_bits) * own_bits(tensor, word_bits)
    return words(size, word_bits)


def tensor_words(tensor: Tensor, word_bits: int) -> int:
    """Words of the CPU's that ``tensor`` takes in the arena; input and scores are the caller's."""
    planes = tensor.planes if isinstance(tensor, Bits) else 1
    return planes * image_words(tensor, word_bits)


def plane_words(tensor: Bits, word_bits: int) -> int:
    """Words of ``tensor``'s own from one plane to the next."""
    return image_words(tensor, word_bits) * word_bits // own_bits(tensor, word_bits)


def pack(bits: BoolArray, word_bits: int) -> NDArray[np.unsignedinteger]:
    """(..., n) booleans -> (..., words(n)) unsigned words; tail bits are zero."""
    count = words(bits.shape[-1], word_bits)
    padded = np.zeros((*bits.shape[:-1], count * word_bits), dtype=np.uint8)
    padded[..., : bits.shape[-1]] = bits
    packed = np.packbits(padded, axis=-1, bitorder="little")
    word = np.dtype(f"<u{word_bits // 8}")
    return packed.view(word).astype(word.newbyteorder("=")).reshape(*bits.shape[:-1], count)


def pack_pixels(bits: BoolArray, own: int, word_bits: int) -> NDArray[np.unsignedinteger]:
    """(rows, ..., channels) booleans -> (rows, words): pixels in words of ``own`` bits each.

    The row of them is one of words of ``word_bits``, with zeros in the tail of the last one.
    """
    gap = -bits.shape[-1] % own
    padded = np.pad(bits, [*[(0, 0)] * (bits.ndim - 1), (0, gap)])
    return pack(padded.reshape(len(bits), -1), word_bits)


def tail_mask(bits: int, word_bits: int) -> int:
    """The last word of a row of ``bits`` bits that are all 1."""
    return int((1 << (bits % word_bits or word_bits)) - 1)
