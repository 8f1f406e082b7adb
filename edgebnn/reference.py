"""The oracle: interprets the IR in NumPy, on plain numbers, with none of the backends' tricks.

Sums are float64 matrix products of integers below 2**24, hence exact.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError
from edgebnn.ir import (
    INPUT,
    Add,
    Binarize,
    Conv,
    Dense,
    DepthwiseConv,
    Head,
    Levels,
    MaxPool,
    Network,
    Quantize,
    Raw,
    Score,
    Sides,
    Threshold,
    output_size,
)

_CHUNK = 256  # images at a time, to bound the memory that windows take


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """``scores`` (N, classes) int32 and ``classes`` (N,) int32: see :func:`best`."""

    scores: NDArray[np.int32]
    classes: NDArray[np.int32]


def run(network: Network, inputs: NDArray[np.uint8]) -> Outputs:
    """Scores and classes of ``inputs``, (N, height, width, channels) or (N, input bytes).

    Raises:
        EdgebnnError: inputs of the wrong size, type or range.
    """
    images = check_inputs(network, inputs)
    parts = [
        trace(network, images[i : i + _CHUNK])[network.ops[-1].name]
        for i in range(0, len(images), _CHUNK)
    ]
    empty = np.empty((0, network.num_classes), dtype=np.int64)
    scores = np.concatenate([empty, *parts]).astype(np.int32)
    return Outputs(scores, best(scores))


def best(scores: NDArray[np.int32]) -> NDArray[np.int32]:
    """The class (N,) of scores (N, classes): the index of the first best one.

    Of a single score, 1 where it is at least 0, else 0.
    """
    if scores.shape[1] == 1:
        return np.asarray(scores[:, 0] >= 0, dtype=np.int32)
    return np.asarray(scores.argmax(axis=1), dtype=np.int32)


def check_inputs(network: Network, inputs: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``inputs`` as (N, height, width, channels), or an EdgebnnError that says what they are."""
    shape = (network.input.height, network.input.width, network.input.channels)
    inputs = np.asarray(inputs)
    if inputs.dtype != np.uint8:
        raise EdgebnnError(f"inputs must be uint8, not {inputs.dtype}")
    if inputs.shape[1:] not in (shape, (network.input_bytes,)):
        raise EdgebnnError(
            f"inputs are {'x'.join(map(str, inputs.shape[1:]))}, the network takes "
            f"{'x'.join(map(str, shape))} (height, width, channels)"
        )
    limit = 2**network.input.bits - 1
    if inputs.size and inputs.max() > limit:
        raise EdgebnnError(
            f"an input is {inputs.max()}, the network takes 0 to {limit}; "
            f"shift 8-bit pixels right by {8 - network.input.bits}"
        )
    return inputs.reshape(len(inputs), *shape)


def trace(network: Network, images: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """Every tensor of the network by name: (N, H, W, C) of values or sums, scores (N, classes).

    The result of :func:`check_inputs` goes in.
    """
    values: dict[str, NDArray[np.int64]] = {INPUT: images.astype(np.int64)}
    for op in network.ops:
        x = values[op.source]
        match op:
            case Dense():
                weights = _signs(op.weights).reshape(len(op.weights), -1)
                dots = _product(x.reshape(len(x), -1), weights)
                values[op.name] = _apply(op.head, dots[:, None, None, :])
            case Conv():
                taps = _windows(x, op.weights.shape[1:3], op.stride, op.padding, op.pad_value)
                n, h, w = taps.shape[:3]
                weights = _signs(op.weights).reshape(len(op.weights), -1)
                dots = _product(taps.reshape(n * h * w, -1), weights).reshape(n, h, w, -1)
                values[op.name] = _apply(op.head, dots)
            case DepthwiseConv():
                taps = _windows(x, op.weights.shape[:2], op.stride, op.padding, op.pad_value)
                dots = (taps * _signs(op.weights)).sum(axis=(3, 4))
                values[op.name] = _apply(op.head, dots)
            case MaxPool():
                taps = _windows(x, op.kernel, op.stride, (0, 0, 0, 0), 0)
                largest, least = taps.max(axis=(3, 4)), taps.min(axis=(3, 4))
                values[op.name] = np.where(op.all_set, least, largest)
            case Binarize():
                values[op.name] = np.where((x >= op.minimum) != op.inverted, 1, -1)
            case Quantize():
                reached = ((x >= least) != op.inverted for least in op.minimum)
                values[op.name] = _sum_of_signs(reached)
            case Add():
                values[op.name] = x + values[op.other]
            case Score():
                values[op.name] = _apply(op.head, x)
    return values


def _signs(weights: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(weights, 1, -1)


def _sum_of_signs(bits: Iterable[NDArray[np.bool_]]) -> NDArray[np.int64]:
    values: NDArray[np.int64] = np.sum([np.where(bit, 1, -1) for bit in bits], axis=0)
    return values


def _product(x: NDArray[np.int64], weights: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n, k) by (outputs, k) -> (n, outputs)."""
    return (x.astype(np.float64) @ weights.T.astype(np.float64)).astype(np.int64)


def _windows(
    x: NDArray[np.int64],
    kernel: tuple[int, ...],
    stride: tuple[int, int],
    padding: Sides,
    pad_value: int,
) -> NDArray[np.int64]:
    """(N, H, W, C) -> (N, H', W', kernel height, kernel width, C)."""
    h = output_size(x.shape[1], kernel[0], stride[0], sum(padding[:2]))
    w = output_size(x.shape[2], kernel[1], stride[1], sum(padding[2:]))
    margins = ((0, 0), padding[:2], padding[2:], (0, 0))
    padded = np.pad(x, margins, constant_values=pad_value)
    taps = np.empty((len(x), h, w, kernel[0], kernel[1], x.shape[3]), dtype=np.int64)
    for ky in range(kernel[0]):
        for kx in range(kernel[1]):
            rows = slice(ky, ky + h * stride[0], stride[0])
            columns = slice(kx, kx + w * stride[1], stride[1])
            taps[:, :, :, ky, kx] = padded[:, rows, columns][:, :h, :w]
    return taps


def _apply(head: Head, dots: NDArray[np.int64]) -> NDArray[np.int64]:
    if isinstance(head, Threshold):
        return np.where(dots >= head.min_dot, 1, -1)
    if isinstance(head, Levels):
        return _sum_of_signs(dots >= least for least in head.min_dot)
    if isinstance(head, Raw):
        return dots
    return (dots * head.factor + head.offset)[:, 0, 0, :]
