"""Layers with weights on bits, and dense ones on integers, as matrix products of bits.

``templates/cuda/gemm.cuh.j2`` has the derivation. What heads, thresholds and borders mean lies in
two tables: the weights, and ``limits``, which has one behind the other

    for each kind of border a limit a column: S >= limit, or factor * S + limit; of several levels
             each tile has its first limits, then its second ones, and so on, which rise
    ONES     how many weights of a column are set
    FACTORS  the factor of a column, where the head is no threshold
    KINDS    of each row of output pixels, and then of each column, its part of their border's kind
"""

import functools
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgebnn.cuda.layers import Grid, Launch, Layer
from edgebnn.cuda.memory import Units, in_columns, pack_weights, result_units, units
from edgebnn.ir import (
    Bits,
    BoolArray,
    Conv,
    Dense,
    Head,
    Int32Array,
    Ints,
    Levels,
    Scores,
    ScoreVector,
    Sides,
    Sums,
    Tensor,
    Threshold,
    infer,
)

FEW = 16
"""Up to so many rows, a product is computed by threads that have a column each."""
_FEW_ROWS = 4  # of a block of those
_ONE_SHARED = 32 * 1024  # bytes of shared memory for the planes of a single row's integers
_ROWS = 128  # of a tile
_NEVER = 2**28  # above every sum; thresholds are cut to this magnitude
_RING = 192 * 1024  # bytes of shared memory for the stages of wgmma
_DEEPEST = 8
_TEMPLATES = ("gemm", "gemm_popc", "gemm_mma", "gemm_wgmma", "product")
_POPC_WIDTH = 64  # columns of a block, at most


@dataclass(frozen=True, slots=True)
class _Windows:
    """A product's rows: the taps of windows over the bits of ``height`` x ``width`` pixels."""

    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: Sides
    pad_value: int
    out_height: int
    out_width: int
    unit: Units
    planes: int  # of bits of each value

    @property
    def levels(self) -> int:
        """The largest value of bits, and the least one with a minus: that of zeros."""
        return int(2**self.planes - 1)

    @property
    def direct(self) -> bool:
        """Whether a row lies in memory as the product reads it."""
        apart = any(self.padding) or self.stride != (1, 1) or self.kernel != (1, 1)
        return not apart and self.unit.count > 1


def product(op: Dense | Conv, source: Tensor) -> Layer:
    """``op`` on bits, or a dense one on integers, whose planes of bits a kernel makes first."""
    windows = _windows(op, source)
    unit, outputs = windows.unit, len(op.weights)
    weights = op.weights.reshape(outputs, windows.kernel[0] * windows.kernel[1], -1)
    tiles = _tiles(windows, outputs)
    borders, of_row, of_column = _borders(windows)
    result = infer(op, source)
    bits = isinstance(result, Bits)
    limits, places = _limits(
        op.head, weights, _shift(weights, borders, windows, source), tiles.tile
    )
    constants = {
        **_constants(windows, tiles, outputs),
        "FEATURES": weights.shape[2],
        "INTS": isinstance(source, Ints),
        "ALIGNED": isinstance(result, Sums) and outputs % 4 == 0,
        **result_units(result),
        "BORDERS": len(borders),
        **places,
        "KINDS": limits.size,
    }
    scratch = windows.planes * unit.count * unit.size if isinstance(source, Ints) else 0
    kinds = (of_row, of_column) if len(borders) > 1 else ()
    return Layer(
        constants,
        _launches(windows, tiles, scratch),
        pack_weights(weights, unit, tiles.tile, tiles.chunks, bits=bits),
        np.concatenate([limits, *kinds]).astype(np.int32),
        scratch,
        _TEMPLATES,
    )


def plain_product(features: int, outputs: int, *, bits: bool) -> Layer:
    """(rows, features) by (features, outputs); what lies in memory is made by the caller.

    Rows are in units of :func:`wide_units`, weights as :func:`edgebnn.cuda.memory.pack_weights` has
    them. With ``bits`` the limits are one a column, S >= limit, and ONES. Else, for the dots:
    ``features`` less twice the ones of a column, ONES, and a factor of 2.
    """
    windows = _rows(wide_units(features), planes=1)
    tiles = _tiles(windows, outputs)
    result = Bits(1, 1, outputs) if bits else Sums(1, 1, outputs, -features, features)
    columns = tiles.columns * tiles.tile
    constants = {
        **_constants(windows, tiles, outputs),
        "FEATURES": features,
        "INTS": False,
        "ALIGNED": outputs % 4 == 0,
        **result_units(result),
        "BORDERS": 1,
        "ONES": columns,
        "FACTORS": 2 * columns,
        "KINDS": (2 if bits else 3) * columns,
    }
    return Layer(constants, _launches(windows, tiles, 0), templates=_TEMPLATES)


def wide_units(features: int) -> Units:
    """Units of which a product reads whole rows, however few features there are."""
    return Units(16, 2 * -(-features // 256))


@dataclass(frozen=True, slots=True)
class _Tiles:
    """How a product is cut: ``columns`` tiles of outputs, ``chunks`` of 16 bytes a row."""

    tile: int
    columns: int
    chunks: int
    stage: int
    depth: int
    wgmma: bool


def _tiles(windows: _Windows, outputs: int) -> _Tiles:
    unit, taps = windows.unit, windows.kernel[0] * windows.kernel[1]
    if windows.direct:
        chunks = unit.count
        stage = next(n for n in (8, 6, 4, 2) if chunks % n == 0)
    else:
        chunks = -(-taps * unit.size * unit.count // 16)
        stage = 4 if chunks > 16 or chunks % 4 in (0, 3) else 2
        chunks = -(-chunks // stage) * stage
    tile = next(n for n in (32, 64, 128, 256) if outputs <= n or n == 256)
    depth = min(_DEEPEST, _RING // (stage * 16 * (_ROWS + tile)))
    wgmma = windows.direct and tile >= 64
    return _Tiles(tile, -(-outputs // tile), chunks, stage, depth, wgmma)


def _constants(windows: _Windows, tiles: _Tiles, outputs: int) -> dict[str, int | bool]:
    """All but those of the head and its limits."""
    return {
        "HEIGHT": windows.height,
        "WIDTH": windows.width,
        "OUT_HEIGHT": windows.out_height,
        "OUT_WIDTH": windows.out_width,
        "KERNEL_HEIGHT": windows.kernel[0],
        "KERNEL_WIDTH": windows.kernel[1],
        "STRIDE_Y": windows.stride[0],
        "STRIDE_X": windows.stride[1],
        "PAD_TOP": windows.padding[0],
        "PAD_LEFT": windows.padding[2],
        "UNIT": windows.unit.size,
        "UNITS": windows.unit.count,
        "PLANES": windows.planes,
        "DIRECT": windows.direct,
        "WGMMA": tiles.wgmma,
        "CHUNKS": tiles.chunks,
        "STAGE": tiles.stage,
        "DEPTH": tiles.depth,
        "OUTPUTS": outputs,
        "TILE": tiles.tile,
        "COLUMNS": tiles.columns,
    }


def _launches(windows: _Windows, tiles: _Tiles, scratch: int) -> tuple[Launch, ...]:
    """Those for one row, few and many; ``scratch`` are bytes of an image's planes of integers."""
    pixels = windows.out_height * windows.out_width
    few = Grid(pixels, _FEW_ROWS, 256, tiles.columns * tiles.tile // 32)
    launches = [Launch("", "product", _grids(pixels, tiles), least=FEW // pixels + 1)]
    if FEW // pixels:
        launches.insert(0, Launch("few", "product_few", (few,), most=FEW // pixels))
    if scratch:
        chunk = Grid(windows.unit.count, 8, 256)
        launches = [replace(one, reads_scratch=True) for one in launches]
        launches.insert(0, Launch("planes", "planes", (chunk,), writes_scratch=True))
    if pixels == 1 and scratch <= _ONE_SHARED:
        launches = [replace(one, least=max(one.least, 2)) for one in launches]
        one = replace(few, per_block=1)
        launches.insert(0, Launch("one", "product_one", (one,), most=1))
    return tuple(launches)


def _windows(op: Dense | Conv, source: Tensor) -> _Windows:
    result = infer(op, source)
    out_height, out_width = (
        (1, 1) if isinstance(result, ScoreVector) else (result.height, result.width)
    )
    if isinstance(source, Ints):
        assert isinstance(op, Dense)
        features = source.height * source.width * source.channels
        return _rows(wide_units(features), source.bits)
    assert isinstance(source, Bits)
    kernel = (op.weights.shape[1], op.weights.shape[2])
    stride, padding, pad_value = (1, 1), (0, 0, 0, 0), -source.levels
    if isinstance(op, Conv):
        stride, padding, pad_value = op.stride, op.padding, op.pad_value
    return _Windows(
        source.height,
        source.width,
        kernel,
        stride,
        padding,
        pad_value,
        out_height,
        out_width,
        units(source.channels),
        source.planes,
    )


def _rows(unit: Units, planes: int) -> _Windows:
    return _Windows(1, 1, (1, 1), (1, 1), (0, 0, 0, 0), -1, 1, 1, unit, planes)


def _grids(pixels: int, tiles: _Tiles) -> tuple[Grid, Grid, Grid, Grid, Grid]:
    """One for each of :data:`edgebnn.cuda.layers.LEVELS`, as the kernels have their sizes."""
    tile, stage, columns = tiles.tile, tiles.stage, tiles.columns
    both = 16 * (_ROWS + tile)  # bytes of a chunk of rows and columns
    width = min(tile, _POPC_WIDTH)
    popc_shared = (2 * 4 + 6) * 16 * (_ROWS + width)  # two stages as they are, one in forms
    popc = Grid(pixels, _ROWS, 256, columns * tile // width, popc_shared, together=2)
    mma_stage = 4 if stage % 4 == 0 else 2
    xor = Grid(pixels, _ROWS, 256, columns, 2 * mma_stage * both)
    mma = Grid(pixels, _ROWS, 256, columns, 4 * mma_stage * both)
    wgmma = mma
    if tiles.wgmma:
        ring = tiles.depth * stage * both
        wgmma = Grid(pixels, _ROWS, 384, columns, ring, resident=True)
    return popc, xor, mma, mma, wgmma


def _borders(windows: _Windows) -> tuple[BoolArray, Int32Array, Int32Array]:
    """Which taps are inside the image, (kinds, taps); a pixel's kind is of_row[y] + of_column[x].

    Zeros outside are the least value already, so that with it around all taps are inside.
    """
    taps = windows.kernel[0] * windows.kernel[1]
    if windows.pad_value == -windows.levels or not any(windows.padding):
        none = np.zeros(0, np.int32)
        return np.ones((1, taps), np.bool_), none, none
    top, _, left, _ = windows.padding

    def kinds(outputs: int, size: int, kernel: int, stride: int, pad: int):  # type: ignore[no-untyped-def]
        taps = np.arange(outputs)[:, None] * stride - pad + np.arange(kernel)
        return np.unique((taps >= 0) & (taps < size), axis=0, return_inverse=True)

    rows, of_row = kinds(
        windows.out_height, windows.height, windows.kernel[0], windows.stride[0], top
    )
    columns, of_column = kinds(
        windows.out_width, windows.width, windows.kernel[1], windows.stride[1], left
    )
    inside = (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, taps)
    return (
        inside,
        (of_row.ravel() * len(columns)).astype(np.int32),
        of_column.ravel().astype(np.int32),
    )


def _shift(
    weights: BoolArray, borders: BoolArray, windows: _Windows, source: Tensor
) -> tuple[int, NDArray[np.int64]]:
    """What makes dots of S: a factor, and (kinds of borders, outputs) what is added then.

    On integers dot = S. On bits dot = 2 * S + C, where C is ``pad_value`` times the sum of the
    weights outside less ``levels`` times that of those inside.
    """
    if isinstance(source, Ints):
        return 1, np.zeros((1, len(weights)), np.int64)
    sums = (2 * weights.sum(axis=2, dtype=np.int64) - weights.shape[2]).T  # (taps, outputs)
    inside, outside = borders.astype(np.int64), (~borders).astype(np.int64)
    return 2, windows.pad_value * (outside @ sums) - windows.levels * (inside @ sums)


def _limits(
    head: Head, weights: BoolArray, dots: tuple[int, NDArray[np.int64]], tile: int
) -> tuple[NDArray[np.int64], dict[str, int]]:
    """The limits without the kinds of borders, and at which place their parts begin.

    ``dots`` as :func:`_shift` has them.
    """
    bits = isinstance(head, Threshold | Levels)
    columns = functools.partial(in_columns, tile=tile, bits=bits)
    scale, shift = dots
    factors: list[NDArray[np.int64]] = []
    match head:
        case Threshold(min_dot) | Levels(min_dot):
            rising = np.sort(np.atleast_2d(min_dot), axis=0)  # what they count is the same
            least = -((shift[:, None] - rising) // scale)  # the ceiling
            limits = columns(np.clip(least, -_NEVER, _NEVER), fill=_NEVER)
            limits = limits.reshape(*limits.shape[:2], -1, tile).transpose(0, 2, 1, 3)
        case Scores():
            limits = columns(head.factor.astype(np.int64) * shift + head.offset, fill=0)
            factors = [columns(head.factor.astype(np.int64) * scale, fill=0)]
        case _:
            limits = columns(shift, fill=0)
            factors = [columns(np.full(len(weights), scale, np.int64), fill=0)]
    ones = columns(weights.sum(axis=(1, 2), dtype=np.int64), fill=0)
    parts = [limits.ravel(), ones, *factors]
    wrapped = np.concatenate(parts).astype(np.uint64).astype(np.uint32).view(np.int32)
    places = {"ONES": limits.size, "FACTORS": limits.size + ones.size}
    return wrapped.astype(np.int64), places
