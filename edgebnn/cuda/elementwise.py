"""Layers whose outputs a thread makes one by one, or 32 of them: all that is no product of bits."""

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import pack
from edgebnn.cuda.layers import Grid, Launch, Layer
from edgebnn.cuda.memory import result_units, units
from edgebnn.ir import (
    Add,
    Binarize,
    Bits,
    BoolArray,
    Conv,
    Dense,
    DepthwiseConv,
    Head,
    Int32Array,
    Ints,
    Levels,
    MaxPool,
    Quantize,
    Score,
    Scores,
    ScoreVector,
    Sums,
    Tensor,
    Threshold,
    infer,
)

_PIXELS = 128  # of a block, one a thread
_WARPS = 8  # of a block, a word of bits each
_THREADS = 256  # of a block, a value each


def direct(op: Conv, source: Ints) -> Layer:
    """A convolution on integers, by ``dot4``."""
    result = infer(op, source)
    height, width = (1, 1) if isinstance(result, ScoreVector) else (result.height, result.width)
    outputs = len(op.weights)
    weights = op.weights.reshape(outputs, -1)
    words, fours = -(-outputs // 32), -(-weights.shape[1] // 4)
    signs = np.zeros((words * 32, fours * 4), np.int8)
    signs[:outputs, : weights.shape[1]] = np.where(weights, 1, -1)
    table = signs.view("<u4").reshape(words, 32, fours).transpose(0, 2, 1)
    columns = _words(outputs) if isinstance(result, Bits) else words
    constants = {
        **_windows(op, source, height, width),
        "CHANNELS": source.channels,
        "FOURS": fours,
        "OUTPUTS": outputs,
        **result_units(result),
        "COLUMNS": columns,
    }
    grid = Grid(height * width, _PIXELS, _PIXELS, columns)
    launch = Launch("", "direct", (grid,))
    packed = np.ascontiguousarray(table).astype(np.uint32)
    return Layer(constants, (launch,), packed, _limits(op.head, outputs))


def dense_sums(op: Dense, source: Sums) -> Layer:
    """A dense layer on sums, each of which is added or taken away: an integer head."""
    result = infer(op, source)
    outputs, features = len(op.weights), source.height * source.width * source.channels
    columns = _words(outputs) if isinstance(result, Bits) else -(-outputs // 32)
    rows = _packed(op.weights.reshape(outputs, features))
    weights = np.zeros((columns * 32, rows.shape[1]), np.uint32)
    weights[:outputs] = rows
    constants = {
        "FEATURES": features,
        "WORDS": rows.shape[1],
        "OUTPUTS": outputs,
        **result_units(result),
        "COLUMNS": columns,
    }
    launch = Launch("", "dense_sums", (Grid(1, 1, 32 * _WARPS, columns),))
    return Layer(constants, (launch,), weights, _limits(op.head, outputs))


def depthwise(op: DepthwiseConv, source: Bits | Ints) -> Layer:
    """A convolution of each channel alone, on bits or integers."""
    result = infer(op, source)
    assert isinstance(result, Bits | Sums)
    channels, unit = source.channels, units(source.channels)
    words = _words(channels) if isinstance(result, Bits) else -(-channels // 32)
    constants = {
        **_windows(op, source, result.height, result.width),
        "CHANNELS": channels,
        "WORDS": words,
        "INTS": isinstance(source, Ints),
        "PLANES": source.planes if isinstance(source, Bits) else 1,
        "UNIT": unit.size,
        "UNITS": unit.count,
        **result_units(result),
    }
    limits = _limits(op.head, channels) if isinstance(result, Bits) else None
    weights = _packed(op.weights.reshape(-1, channels))
    return Layer(constants, (_by_words("depthwise", result, words),), weights, limits)


def max_pool(op: MaxPool, source: Bits) -> Layer:
    """The largest value of a window, or the least: the OR or the AND of bits."""
    unit = units(source.channels)
    result, constants = _pool(op, source)
    constants |= {"PLANES": source.planes, "UNIT": unit.size, "UNITS": unit.count}
    grid = Grid(result.height * result.width, _PIXELS, _PIXELS, unit.count)
    return Layer(constants, (Launch("", "max_pool", (grid,)),), _in_units(op.all_set))


def max_pool_sums(op: MaxPool, source: Sums) -> Layer:
    """The largest of the sums in a window."""
    result, constants = _pool(op, source)
    constants |= {"CHANNELS": source.channels}
    values = result.height * result.width * result.channels
    return Layer(constants, (_by_values("max_pool_sums", values),))


def binarize(op: Binarize | Quantize, source: Ints | Sums) -> Layer:
    """Bits of integers or sums, or levels, whose minima have their order."""
    words = _words(source.channels)
    each = op.inverted.ndim == 3
    minima = np.sort(op.minimum.reshape(-1, *op.inverted.shape), axis=0)
    constants = {
        "PIXELS": source.height * source.width,
        "CHANNELS": source.channels,
        "WORDS": words,
        "INTS": isinstance(source, Ints),
        "EACH": each,
        **result_units(infer(op, source)),
    }
    launch = _by_words("binarize", source, words)
    inverted = np.concatenate([_in_units(row) for row in op.inverted.reshape(-1, source.channels)])
    return Layer(constants, (launch,), inverted, _ints(minima.ravel()))


def add(_op: Add, source: Sums) -> Layer:
    """Sums of sums."""
    values = source.height * source.width * source.channels
    return Layer({"VALUES": values}, (_by_values("add", values),))


def score(op: Score, source: Sums) -> Layer:
    """Scores of sums that are stored."""
    limits = np.concatenate([op.head.factor, op.head.offset])
    constants = {"CLASSES": source.channels}
    return Layer(constants, (_by_values("score", source.channels),), limits=_ints(limits))


def best(classes: int) -> Layer:
    """The classes (images,) of scores (images, classes), both 32 bits and the caller's."""
    return Layer({"CLASSES": classes}, (Launch("", "best", (Grid(1, _PIXELS, _PIXELS),)),))


def _windows(
    op: Conv | DepthwiseConv, source: Bits | Ints, height: int, width: int
) -> dict[str, int | bool]:
    return {
        "HEIGHT": source.height,
        "WIDTH": source.width,
        "OUT_HEIGHT": height,
        "OUT_WIDTH": width,
        "KERNEL_HEIGHT": op.weights.shape[-3],
        "KERNEL_WIDTH": op.weights.shape[-2],
        "STRIDE_Y": op.stride[0],
        "STRIDE_X": op.stride[1],
        "PAD_TOP": op.padding[0],
        "PAD_LEFT": op.padding[2],
        "PAD": op.pad_value if any(op.padding) else 0,
    }


def _pool(op: MaxPool, source: Bits | Sums) -> tuple[Bits | Sums, dict[str, int | bool]]:
    """What comes of it, and the constants of its windows."""
    result = infer(op, source)
    assert isinstance(result, Bits | Sums)
    return result, {
        "HEIGHT": source.height,
        "WIDTH": source.width,
        "OUT_HEIGHT": result.height,
        "OUT_WIDTH": result.width,
        "KERNEL_HEIGHT": op.kernel[0],
        "KERNEL_WIDTH": op.kernel[1],
        "STRIDE_Y": op.stride[0],
        "STRIDE_X": op.stride[1],
    }


def _limits(head: Head, outputs: int) -> Int32Array:
    """(limits, outputs), behind each other: thresholds that rise, or a factor and an offset."""
    match head:
        case Threshold(min_dot) | Levels(min_dot):
            return _ints(np.sort(np.atleast_2d(min_dot), axis=0).ravel())
        case Scores(factor, offset):
            return _ints(np.concatenate([factor, offset]))
        case _:
            return _ints(np.repeat(np.asarray([1, 0], np.int32), outputs))


def _words(channels: int) -> int:
    """Words of a pixel's bits, those without channels at the end of its units included."""
    return units(channels).bits // 32


def _by_words(body: str, tensor: Tensor, words: int) -> Launch:
    assert not isinstance(tensor, ScoreVector)
    grid = Grid(tensor.height * tensor.width * words, _WARPS, 32 * _WARPS)
    return Launch("", body, (grid,))


def _by_values(body: str, values: int) -> Launch:
    return Launch("", body, (Grid(values, _THREADS, _THREADS),))


def _packed(bits: BoolArray) -> NDArray[np.uint32]:
    return pack(bits, 32).astype(np.uint32)


def _in_units(bits: BoolArray) -> NDArray[np.uint32]:
    """A bit a channel, as the bits of a pixel lie in its units."""
    words = _packed(bits)
    return np.pad(words, (0, _words(len(bits)) - len(words)))


def _ints(values: Int32Array) -> Int32Array:
    return np.asarray(values, np.int32)
