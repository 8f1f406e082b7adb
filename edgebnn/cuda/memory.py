"""How tensors and weights lie in the memory of a GPU.

Bits of a pixel lie in units of 4, 8 or 16 bytes, least significant bit first, with zeros behind the
last channel. Where a pixel has several units, those of 128 pixels lie side by side,
``[pixels / 128][unit][128][16 bytes]``, so that what a block of threads reads for 128 rows of a
matrix product is contiguous. Of several planes a pixel has the units of each, the highest plane
first. Sums and scores lie pixel by pixel, 32 bits each; inputs as the caller
has them, a byte each. A batch is filled up to a multiple of 128 images.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.ir import Bits, BoolArray, Ints, ScoreVector, Sums, Tensor

IMAGES = 128
"""Batches are filled up to a multiple of so many images."""


@dataclass(frozen=True, slots=True)
class Units:
    """A pixel's bits: ``count`` units of ``size`` bytes. Several are an even number."""

    size: int
    count: int

    @property
    def bits(self) -> int:
        return 8 * self.size * self.count


def units(channels: int) -> Units:
    """The units of a pixel with so many channels of bits."""
    for size in (4, 8, 16):
        if channels <= 8 * size:
            return Units(size, 1)
    return Units(16, 2 * -(-channels // 256))


def image_bytes(tensor: Tensor) -> int:
    """Bytes that an image's ``tensor`` takes between layers; input and scores are the caller's."""
    match tensor:
        case Bits():
            pixel = tensor.planes * units(tensor.channels).bits // 8
            return tensor.height * tensor.width * pixel
        case Sums():
            return tensor.height * tensor.width * tensor.channels * 4
        case Ints() | ScoreVector():
            return 0


def result_units(result: Tensor) -> dict[str, int]:
    """The constants of a layer that say how its result lies: of numbers there are no planes."""
    if not isinstance(result, Bits):
        return {"RESULT_PLANES": 0, "RESULT_UNIT": 4, "RESULT_UNITS": 1}
    unit = units(result.channels)
    return {
        "RESULT_PLANES": result.planes,
        "RESULT_UNIT": unit.size,
        "RESULT_UNITS": unit.count,
    }


def channel_of_column(tile: int, *, bits: bool) -> NDArray[np.intp]:
    """(tile,): which channel of a tile each column of the product is, for a result of bits or not.

    Of a tensor core's sums, thread t of four has columns 8 j + 2 t and 8 j + 2 t + 1. For bits its
    channels are to lie side by side, so that what it packs is contiguous. Of numbers it is four
    that it writes at once, and the four threads 16.
    """
    column = np.arange(tile)
    j, t, e = column // 8, column % 8 // 2, column % 2
    if bits:
        return np.asarray(tile // 4 * t + 2 * j + e)
    return np.asarray(16 * (j // 2) + 4 * t + 2 * (j % 2) + e)


def in_columns(values: NDArray[np.int64], tile: int, fill: int, *, bits: bool) -> NDArray[np.int64]:
    """(..., channels) -> (..., columns of whole tiles), ``fill`` where there is no channel.

    ``bits`` as in :func:`channel_of_column`.
    """
    count = -(-values.shape[-1] // tile)
    padded = np.full((*values.shape[:-1], count * tile), fill, np.int64)
    padded[..., : values.shape[-1]] = values
    order = channel_of_column(tile, bits=bits)
    tiles = padded.reshape(*values.shape[:-1], count, tile)[..., order]
    return tiles.reshape(padded.shape)


def pack_weights(
    weights: BoolArray, unit: Units, tile: int, chunks: int, *, bits: bool
) -> NDArray[np.uint32]:
    """(outputs, taps, channels) -> (tiles, chunks, tile, 4): a chunk is four words of a row's bits.

    Taps lie one behind the other, each in its units; columns in the order of
    :func:`channel_of_column`.
    """
    outputs, taps, channels = weights.shape
    filled = np.zeros((outputs, taps, unit.bits), np.uint8)
    filled[..., :channels] = weights
    packed = np.packbits(filled.reshape(outputs, -1), axis=1, bitorder="little")
    tiles = -(-outputs // tile)
    rows = np.zeros((tiles * tile, chunks * 16), np.uint8)
    rows[:outputs, : packed.shape[1]] = packed
    ordered = rows.reshape(tiles, tile, chunks, 16)[:, channel_of_column(tile, bits=bits)]
    words = np.ascontiguousarray(ordered.transpose(0, 2, 1, 3)).view("<u4")
    return words.astype(np.uint32)
