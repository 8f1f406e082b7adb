"""Sample inputs in a model file.

How long some kernels take depends on the data, so a model brings along a few inputs of its kind:
what is measured on them is typical, which noise is not. They are kept as they are, compressed.
"""

import math
import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgebnn.errors import EdgebnnError

MOST = 32
"""As many inputs are kept."""
MOST_BYTES = 2**16
"""And no more bytes, before they are compressed."""


def room(shape: tuple[int, ...]) -> int:
    """How many inputs of ``shape`` are kept: 0 where one alone is too large."""
    return min(MOST, MOST_BYTES // math.prod(shape))


def pack(samples: object, shape: tuple[int, ...], bits: int) -> Tensor:
    """``samples``, up to :func:`room` of them, as a tensor of bytes for a model file.

    Args:
        samples: integers of ``bits`` bits, an array or a tensor (N, ...) of inputs of ``shape``,
            or of as many values in that order.

    Raises:
        EdgebnnError: they are no such inputs.
    """
    values = np.asarray(samples.cpu() if isinstance(samples, Tensor) else samples)
    if values.ndim < 2 or math.prod(values.shape[1:]) != math.prod(shape):
        size = ", ".join(map(str, shape))
        raise EdgebnnError(f"samples have the shape {values.shape}; give inputs as (N, {size})")
    kept = values[: room(shape)]
    with np.errstate(invalid="ignore"):  # a float that is no integer of 8 bits is found below
        whole = kept.astype(np.uint8)
    if np.any(whole != kept) or np.any(whole >> bits):
        raise EdgebnnError(f"samples are no integers from 0 to {2**bits - 1}, as the inputs are")
    packed = zlib.compress(whole.tobytes(), 9)
    return torch.from_numpy(np.frombuffer(packed, np.uint8).copy())


def device_rows(samples: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """(N, ...) inputs, channels first, as (N, bytes) in the order in which a device reads them."""
    pixels = math.prod(samples.shape[1:]) // channels
    images = samples.reshape(len(samples), channels, pixels)
    return np.ascontiguousarray(images.transpose(0, 2, 1)).reshape(len(samples), channels * pixels)


def unpack(content: Any, shape: tuple[int, ...], bits: int) -> NDArray[np.uint8]:
    """The inputs (N, *shape) that :func:`pack` made ``content`` of.

    Raises:
        EdgebnnError: it is something else.
    """
    damaged = EdgebnnError("its sample inputs are damaged; copy it again, or train it anew")
    if not isinstance(content, Tensor) or content.dtype != torch.uint8 or content.dim() != 1:
        raise damaged
    stream = zlib.decompressobj()
    try:
        whole = stream.decompress(content.numpy().tobytes(), MOST_BYTES + 1)
    except zlib.error:
        raise damaged from None
    if not stream.eof or len(whole) > MOST_BYTES or len(whole) % math.prod(shape):
        raise damaged
    values = np.frombuffer(whole, np.uint8).reshape(-1, *shape).copy()
    if np.any(values >> bits):
        raise damaged
    return values
