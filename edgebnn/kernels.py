"""The kernel table: for each op the ways to compute it, in order of a target's preference.

A kernel is one row of :data:`KERNELS`: the ops it takes, how it lays out their constants, the
scratch memory it needs and the template that prints it. Each helper template under
``templates/c/kernels/`` states the few-line reference that it equals. Adding a kernel is adding a
row, a template and the kernel's name to the targets that profit from it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError
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
    MaxPool,
    Op,
    Raw,
    Score,
    Scores,
    ScoreVector,
    Sums,
    Tensor,
    Threshold,
    fan_in,
    infer,
    pack,
    words,
)
from edgebnn.targets import Target


@dataclass(frozen=True, slots=True)
class Array:
    """A constant of the emitted C: ``static const <ctype> <op>_<suffix>[...]``."""

    suffix: str
    ctype: str
    values: NDArray[Any]

    @property
    def bytes(self) -> int:
        sizes = {"uint8_t": 1, "int16_t": 2, "int32_t": 4, "uint32_t": 4}
        return int(self.values.size) * sizes[self.ctype]


@dataclass(frozen=True, slots=True)
class Layout:
    """What a kernel needs for one op: constants in flash, scratch in RAM, numbers to print."""

    arrays: tuple[Array, ...]
    scratch_words: int
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Kernel:
    """One way to compute ops of type ``op`` on sources of type ``source``.

    ``template`` is under ``templates/c/ops/``; ``helpers`` are files under
    ``templates/c/kernels/`` that it calls. ``lay_out`` takes the op and the tensors it reads. One
    that works ``in_place`` may write its result over a source of the same size.
    """

    name: str
    op: type[Op]
    source: type[Tensor]
    template: str
    helpers: tuple[str, ...]
    lay_out: Callable[..., Layout]
    in_place: bool = False


#: What the first layer with weights can be told to use; ``auto`` leaves it to the target.
FIRST_LAYER: Mapping[str, tuple[str, ...]] = {
    "auto": (),
    "subset-sums": ("subset_sums",),
    "bit-planes": ("bit_planes",),
}


def first_layer_kernels(choice: str) -> tuple[str, ...]:
    """The kernels to prefer for a ``choice`` out of :data:`FIRST_LAYER`.

    Raises:
        EdgebnnError: no such choice; the message lists those there are.
    """
    try:
        return FIRST_LAYER[choice]
    except KeyError:
        known = ", ".join(FIRST_LAYER)
        raise EdgebnnError(f"unknown first layer '{choice}'; pick one of: {known}") from None


def choose(op: Op, source: Tensor, target: Target, prefer: tuple[str, ...] = ()) -> Kernel:
    """The first kernel for ``op`` among those to ``prefer``, then in the target's own order.

    Raises:
        EdgebnnError: no kernel of the target takes this op.
    """
    for name in (*(name for name in prefer if name in target.kernels), *target.kernels):
        for kernel in KERNELS:
            if kernel.name == name and kernel.op is type(op) and kernel.source is type(source):
                return kernel
    kinds = f"{type(op).__name__} on {type(source).__name__}"
    raise EdgebnnError(f"target '{target.name}' has no kernel for '{op.name}' ({kinds})")


def takes(name: str) -> str:
    """The layers that the kernels called ``name`` compute: "Dense or Conv on Ints"."""
    rows = [kernel for kernel in KERNELS if kernel.name == name]
    ops = dict.fromkeys(kernel.op.__name__ for kernel in rows)
    sources = dict.fromkeys(kernel.source.__name__ for kernel in rows)
    return f"{' or '.join(ops)} on {' or '.join(sources)}"


def tensor_words(tensor: Tensor) -> int:
    """32-bit words that a tensor takes in the arena; input and scores are the caller's."""
    if isinstance(tensor, Bits):
        return tensor.height * tensor.width * words(tensor.channels)
    if isinstance(tensor, Sums):
        return tensor.height * tensor.width * words(tensor.channels * tensor.bits)
    return 0


def _smallest(suffix: str, values: Int32Array) -> Array:
    """The values as int16 where they fit, else as int32.

    An odd number of int16 gets a zero at its end, where a linker would put a gap: so the plan of
    the flash is exact.
    """
    if values.min() < -(2**15) or values.max() >= 2**15:
        return Array(suffix, "int32_t", values)
    return Array(suffix, "int16_t", np.pad(values, (0, len(values) % 2)))


def score_shifts(head: Scores) -> Int32Array | None:
    """Left shifts that stand for the factors, 32 for the factor 0; None where some factor is none.

    ``factor * dot`` is ``dot << shift`` in 32 bits; 32 would shift every bit out.
    """
    factor = head.factor
    if np.any(factor < 0) or np.any(factor & (factor - 1)):
        return None
    return np.array([int(f).bit_length() - 1 if f else 32 for f in factor], dtype=np.int32)


def equal_shift(shifts: Int32Array) -> int | None:
    """The shift that all outputs share, which needs no table."""
    return int(shifts[0]) if shifts[0] < 32 and np.all(shifts == shifts[0]) else None


def _head_arrays(head: Head, limits: Int32Array | None) -> tuple[Array, ...]:
    """Constants of a head: limits for a threshold; factor, or shift, and offset for scores."""
    if isinstance(head, Raw):
        return ()
    if isinstance(head, Threshold):
        assert limits is not None
        return (_smallest("limits", limits),)
    if np.all(head.factor == 1) and np.all(head.offset == 0):
        return ()
    offset = _smallest("offset", head.offset)
    shifts = score_shifts(head)
    if shifts is None:
        return (_smallest("factor", head.factor), offset)
    if equal_shift(shifts) is not None:
        return (offset,)
    # Whole words, for the same reason as in _smallest.
    shifts = np.pad(shifts, (0, -len(shifts) % 4))
    return (Array("shift", "uint8_t", shifts), offset)


def _spatial(op: Conv | DepthwiseConv | MaxPool, source: Ints | Bits) -> dict[str, int]:
    out = infer(op, source)
    kernel = op.kernel if isinstance(op, MaxPool) else op.weights.shape[-3:-1]
    padding = (0, 0) if isinstance(op, MaxPool) else op.padding
    return {
        "height": source.height,
        "width": source.width,
        "out_height": 1 if isinstance(out, ScoreVector) else out.height,
        "out_width": 1 if isinstance(out, ScoreVector) else out.width,
        "kernel_height": kernel[0],
        "kernel_width": kernel[1],
        "stride_y": op.stride[0],
        "stride_x": op.stride[1],
        "pad_y": padding[0],
        "pad_x": padding[1],
    }


def _padding(op: Conv | DepthwiseConv, source: Bits) -> dict[str, int]:
    padded = any(op.padding)
    return {
        "padded": int(padded),
        "pad_value": op.pad_value,
        "zero_padded": int(padded and op.pad_value == 0),
        "tail_mask": (1 << (source.channels % 32 or 32)) - 1,
    }


# --- rows of bits against rows of bits -------------------------------------------------------


def _mismatch_limits(head: Head, inputs: int) -> Int32Array | None:
    """Most mismatches at which a bit is set: inputs - 2 * m >= min_dot; -1 never is."""
    if not isinstance(head, Threshold):
        return None
    return ((inputs - head.min_dot) // 2).astype(np.int32)


def _dense_rows(op: Dense, source: Bits) -> Layout:
    inputs = fan_in(op)
    rows = pack(op.weights).reshape(len(op.weights), -1)
    arrays = (
        Array("weights", "uint32_t", rows),
        *_head_arrays(op.head, _mismatch_limits(op.head, inputs)),
    )
    return Layout(arrays, 0, {"inputs": inputs, "outputs": len(rows), "row_words": rows.shape[1]})


def _conv_rows(op: Conv, source: Bits) -> Layout:
    inputs = fan_in(op)
    rows = pack(op.weights).reshape(len(op.weights), -1)
    row_words = rows.shape[1]
    if any(op.padding) and op.pad_value == 0 and isinstance(op.head, Threshold):
        # Both paddings are summed: inputs - (m_low + m_high) >= min_dot.
        limits: Int32Array | None = (inputs - op.head.min_dot).astype(np.int32)
    else:
        limits = _mismatch_limits(op.head, inputs)
    numbers = {
        **_spatial(op, source),
        "inputs": inputs,
        "outputs": len(rows),
        "row_words": row_words,
        "pixel_words": words(source.channels),
        **_padding(op, source),
    }
    arrays = (Array("weights", "uint32_t", rows), *_head_arrays(op.head, limits))
    return Layout(arrays, row_words * (2 if numbers["zero_padded"] else 1), numbers)


# --- rows of bits against integers -----------------------------------------------------------


def _block_columns(rows: BoolArray, first_block: int) -> NDArray[np.uint32]:
    """(outputs, n) booleans -> 1-D words, word (block, output) holding up to 32 weights of a row.

    The first block has ``first_block`` weights, all others 32.
    """
    first, rest = np.split(rows, [first_block], axis=1)
    return np.concatenate([pack(first).T.ravel(), pack(rest).T.ravel()])


def _int_rows(op: Dense | Conv, inputs: int) -> tuple[tuple[Array, ...], dict[str, int]]:
    outputs = len(op.weights)
    limits = op.head.min_dot if isinstance(op.head, Threshold) else None
    first_block = inputs % 32 or 32
    arrays = (
        Array("weights", "uint32_t", _block_columns(op.weights.reshape(outputs, -1), first_block)),
        *_head_arrays(op.head, limits),
    )
    numbers = {
        "inputs": inputs,
        "outputs": outputs,
        "first_block": first_block,
        "first_tables": -(-first_block // 4),
        "more_blocks": int(inputs > first_block),
    }
    return arrays, numbers


def _table_words(inputs: int) -> int:
    return 16 * min(8, -(-inputs // 4))


def _dense_ints(op: Dense, source: Ints) -> Layout:
    inputs = fan_in(op)
    arrays, numbers = _int_rows(op, inputs)
    return Layout(arrays, len(op.weights) + _table_words(inputs), numbers)


def _conv_ints(op: Conv, source: Ints) -> Layout:
    inputs = fan_in(op)
    arrays, numbers = _int_rows(op, inputs)
    numbers = {
        **_spatial(op, source),
        **numbers,
        "channels": source.channels,
        "padded": int(any(op.padding)),
        "patch_offset": len(op.weights) + _table_words(inputs),
    }
    return Layout(arrays, numbers["patch_offset"] + -(-inputs // 4), numbers)


# --- bits of integers, one plane a bit, against rows of bits ----------------------------------


def _plane_rows(op: Dense | Conv, source: Ints) -> tuple[tuple[Array, ...], dict[str, int]]:
    rows = pack(op.weights.reshape(len(op.weights), -1))
    limits = op.head.min_dot if isinstance(op.head, Threshold) else None
    numbers = {
        "inputs": fan_in(op),
        "outputs": len(rows),
        "row_words": rows.shape[1],
        "bits": source.bits,
    }
    return (Array("weights", "uint32_t", rows), *_head_arrays(op.head, limits)), numbers


def _dense_planes(op: Dense, source: Ints) -> Layout:
    arrays, numbers = _plane_rows(op, source)
    return Layout(arrays, source.bits * numbers["row_words"], numbers)


def _conv_planes(op: Conv, source: Ints) -> Layout:
    arrays, numbers = _plane_rows(op, source)
    numbers = {
        **_spatial(op, source),
        **numbers,
        "channels": source.channels,
        "padded": int(any(op.padding)),
        "patch_offset": source.bits * numbers["row_words"],
    }
    return Layout(arrays, numbers["patch_offset"] + -(-numbers["inputs"] // 4), numbers)


# --- depthwise -------------------------------------------------------------------------------


def _slices(values: Int32Array, bits: int) -> NDArray[np.uint32]:
    """(channels,) numbers -> (words, bits) words: bit b of 32 numbers side by side."""
    planes = np.array([(values >> b) & 1 for b in range(bits)], dtype=np.bool_)
    return np.ascontiguousarray(pack(planes).T)


def _depthwise_bits(op: DepthwiseConv, source: Bits) -> Layout:
    taps = fan_in(op)
    weights = Array("weights", "uint32_t", pack(op.weights).reshape(taps, -1))
    # A missing tap of value 0 counts half a mismatch, so all are counted twice.
    halves = any(op.padding) and op.pad_value == 0
    most = 2 * taps if halves else taps
    planes = (most + 1).bit_length()
    arrays: tuple[Array, ...] = (weights,)
    if isinstance(op.head, Threshold):
        limits = (taps - op.head.min_dot) if halves else (taps - op.head.min_dot) // 2
        # count <= limit is count < limit + 1, which is 0 for a bit that is never set.
        sliced = _slices((limits + 1).astype(np.int32), planes)
        arrays += (Array("limits", "uint32_t", sliced),)
    numbers = {
        **_spatial(op, source),
        "inputs": taps,
        "outputs": source.channels,
        "pixel_words": words(source.channels),
        "planes": planes,
        **_padding(op, source),
    }
    return Layout(arrays, 0, numbers)


def _depthwise_ints(op: DepthwiseConv, source: Ints) -> Layout:
    taps = fan_in(op)
    limits = op.head.min_dot if isinstance(op.head, Threshold) else None
    arrays = (
        Array("weights", "uint32_t", pack(op.weights).reshape(taps, -1)),
        *_head_arrays(op.head, limits),
    )
    numbers = {
        **_spatial(op, source),
        "channels": source.channels,
        "outputs": source.channels,
        "padded": int(any(op.padding)),
    }
    return Layout(arrays, 0, numbers)


# --- no weights ------------------------------------------------------------------------------


def _pool_words(op: MaxPool, source: Bits) -> Layout:
    arrays: tuple[Array, ...] = ()
    masks = pack(op.all_set)
    numbers = {**_spatial(op, source), "pixel_words": len(masks)}
    if masks.any() and len(masks) == 1:
        numbers["all_set"] = int(masks[0])  # printed where it is used
    elif masks.any():
        arrays = (Array("all_set", "uint32_t", masks),)
    return Layout(arrays, 0, numbers)


def _row(source: Sums) -> dict[str, int]:
    return {"bits": source.bits, "row_words": words(source.channels * source.bits)}


def _compare(op: Binarize, source: Ints | Sums) -> Layout:
    arrays: tuple[Array, ...] = (_smallest("limits", op.minimum),)
    if op.inverted.any():
        arrays += (Array("inverted", "uint32_t", pack(op.inverted)),)
    row = _row(source) if isinstance(source, Sums) else {"bits": 8}
    pixels = source.height * source.width
    return Layout(arrays, 0, {"pixels": pixels, "outputs": source.channels, **row})


def _add(op: Add, source: Sums, other: Sums) -> Layout:
    result = infer(op, source, other)
    numbers = {
        "words": tensor_words(result),
        "pixels": source.height * source.width,
        "channels": source.channels,
        "source_bits": source.bits,
        "source_words": words(source.channels * source.bits),
        "other_bits": other.bits,
        "other_words": words(source.channels * other.bits),
    }
    return Layout((), 0, numbers)


def _scores(op: Score, source: Sums) -> Layout:
    return Layout(_head_arrays(op.head, None), 0, {"outputs": source.channels, **_row(source)})


_MISMATCHES = ("popcount.c.j2", "mismatches.c.j2")
_BIT_PLANES = ("popcount.c.j2", "bit_planes.c.j2")

KERNELS: tuple[Kernel, ...] = (
    Kernel("rows", Dense, Bits, "dense_rows.c.j2", _MISMATCHES, _dense_rows),
    Kernel("rows", Conv, Bits, "conv_rows.c.j2", _MISMATCHES, _conv_rows),
    Kernel("subset_sums", Dense, Ints, "dense_ints.c.j2", ("subset_sums.c.j2",), _dense_ints),
    Kernel("subset_sums", Conv, Ints, "conv_ints.c.j2", ("subset_sums.c.j2",), _conv_ints),
    Kernel("bit_planes", Dense, Ints, "dense_planes.c.j2", _BIT_PLANES, _dense_planes),
    Kernel("bit_planes", Conv, Ints, "conv_planes.c.j2", _BIT_PLANES, _conv_planes),
    Kernel("bit_sliced", DepthwiseConv, Bits, "depthwise_bits.c.j2", (), _depthwise_bits),
    Kernel("direct", DepthwiseConv, Ints, "depthwise_ints.c.j2", (), _depthwise_ints),
    Kernel("direct", MaxPool, Bits, "max_pool.c.j2", (), _pool_words),
    Kernel("direct", Binarize, Ints, "binarize.c.j2", (), _compare),
    Kernel("direct", Binarize, Sums, "binarize.c.j2", (), _compare),
    Kernel("direct", Add, Sums, "add.c.j2", (), _add, in_place=True),
    Kernel("direct", Score, Sums, "score.c.j2", (), _scores),
)
