"""Layers whose outputs a thread makes one by one, or 32 of them: all that is no product of bits."""

import numpy as np
from numpy.typing import NDArray

from edgebnn.bits import pack
from edgebnn.cuda.layers import Grid, Launch, Layer
from edgebnn.cuda.memory import units
from edgebnn.ir import (
    Add,
    Binarize,
    Bits,
    BoolArray,
    Conv,
    DepthwiseConv,
    Int32Array,
    Ints,
    MaxPool,
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
    outputs, head = len(op.weights), op.head
    weights = op.weights.reshape(outputs, -1)
    words, fours = -(-outputs // 32), -(-weights.shape[1] // 4)
    signs = np.zeros((words * 32, fours * 4), np.int8)
    signs[:outputs, : weights.shape[1]] = np.where(weights, 1, -1)
    table = signs.view("<u4").reshape(words, 32, fours).transpose(0, 2, 1)
    columns = words
    constants: dict[str, int | bool] = {
        **_windows(op, source, height, width),
        "CHANNELS": source.channels,
        "FOURS": fours,
        "OUTPUTS": outputs,
        "HEAD_BITS": isinstance(head, Threshold),
    }
    match head:
        case Threshold():
            limits = head.min_dot
            columns = _words(outputs)
            constants |= _result_units(outputs)
        case Scores():
            limits = np.concatenate([head.factor, head.offset])
        case _:
            limits = np.repeat(np.asarray([1, 0], np.int32), outputs)
    constants["COLUMNS"] = columns
    grid = Grid(height * width, _PIXELS, _PIXELS, columns)
    launch = Launch("", "direct", (grid,))
    return Layer(constants, (launch,), np.ascontiguousarray(table).astype(np.uint32), _ints(limits))


def depthwise(op: DepthwiseConv, source: Bits | Ints) -> Layer:
    """A convolution of each channel alone, on bits or integers."""
    result = infer(op, source)
    assert isinstance(result, Bits | Sums)
    channels, unit = source.channels, units(source.channels)
    words = _words(channels) if isinstance(op.head, Threshold) else -(-channels // 32)
    constants = {
        **_windows(op, source, result.height, result.width),
        "CHANNELS": channels,
        "WORDS": words,
        "INTS": isinstance(source, Ints),
        "UNIT": unit.size,
        "UNITS": unit.count,
        "HEAD_BITS": isinstance(op.head, Threshold),
        **_result_units(channels),
    }
    limits = _ints(op.head.min_dot) if isinstance(op.head, Threshold) else None
    weights = _packed(op.weights.reshape(-1, channels))
    return Layer(constants, (_by_words("depthwise", result, words),), weights, limits)


def max_pool(op: MaxPool, source: Bits) -> Layer:
    """OR or AND of the bits in a window."""
    result = infer(op, source)
    assert isinstance(result, Bits)
    unit = units(source.channels)
    constants = {
        "HEIGHT": source.height,
        "WIDTH": source.width,
        "OUT_HEIGHT": result.height,
        "OUT_WIDTH": result.width,
        "KERNEL_HEIGHT": op.kernel[0],
        "KERNEL_WIDTH": op.kernel[1],
        "STRIDE_Y": op.stride[0],
        "STRIDE_X": op.stride[1],
        "UNIT": unit.size,
        "UNITS": unit.count,
    }
    grid = Grid(result.height * result.width, _PIXELS, _PIXELS, unit.count)
    return Layer(constants, (Launch("", "max_pool", (grid,)),), _in_units(op.all_set))


def binarize(op: Binarize, source: Ints | Sums) -> Layer:
    """Bits of integers or sums."""
    words = _words(source.channels)
    constants = {
        "PIXELS": source.height * source.width,
        "CHANNELS": source.channels,
        "WORDS": words,
        "INTS": isinstance(source, Ints),
        "EACH": op.minimum.ndim == 3,
        **_result_units(source.channels),
    }
    launch = _by_words("binarize", source, words)
    inverted = np.concatenate([_in_units(row) for row in op.inverted.reshape(-1, source.channels)])
    return Layer(constants, (launch,), inverted, _ints(op.minimum.ravel()))


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


def _result_units(channels: int) -> dict[str, int | bool]:
    unit = units(channels)
    return {"RESULT_UNIT": unit.size, "RESULT_UNITS": unit.count}


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
