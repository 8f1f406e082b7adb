"""Golden vectors: inputs that nobody has to store, and a checksum of the scores of each.

A device computes the inputs by itself, so that a self-test costs four bytes of flash a vector.
"""

import zlib

import numpy as np
from numpy.typing import NDArray

from edgebnn import reference
from edgebnn.ir import Network

COUNT = 8
"""How many there are of a network."""
_SEED = 0x9E3779B9


def inputs(network: Network, count: int = COUNT) -> NDArray[np.uint8]:
    """Inputs (count, input_bytes): :func:`noise`, masked to the network's range."""
    return noise(count, network.input_bytes) & np.uint8(2**network.input.bits - 1)


def noise(count: int, size: int) -> NDArray[np.uint8]:
    """(count, size): the top bytes of xorshift32.

    Marsaglia, Xorshift RNGs, J. Stat. Soft. 8 (14), 2003; shifts 13, 17 and 5.
    """
    state, values = _SEED, bytearray()
    for _ in range(count * size):
        state ^= state << 13 & 0xFFFFFFFF
        state ^= state >> 17
        state ^= state << 5 & 0xFFFFFFFF
        values.append(state >> 24)
    return np.frombuffer(bytes(values), np.uint8).reshape(count, size)


def checksums(network: Network) -> tuple[int, ...]:
    """The CRC-32 of the scores of each of :func:`inputs`, as little-endian int32."""
    scores = reference.run(network, inputs(network)).scores
    return tuple(zlib.crc32(row.astype("<i4").tobytes()) for row in scores)
