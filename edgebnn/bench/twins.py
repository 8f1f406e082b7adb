"""Layers in int8 and in float of the shapes of binary ones: their C, and what NumPy makes of them.

They are what a network of bits is compared with. Weights are random: what they take does not depend
on them. A sum becomes int8 again by a shift to the right and by what saturates; float layers keep
their sums, which are integers and so exact.

How int8 is computed: ``templates/bench/int8.c.j2``. The loops are those of a vendor's library, with
several outputs for several pixels at once, and weights lie in flash in the order in which they are
read. With "dsp" two products take one instruction, as halves of words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgebnn.codegen.views import ArrayView, array_view
from edgebnn.errors import EdgebnnError, NoTwin
from edgebnn.ir import (
    INPUT,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Ints,
    MaxPool,
    Op,
    ScoreVector,
    Sums,
    Tensor,
    infer,
)
from edgebnn.kernels import Table
from edgebnn.targets.base import Cpu

Kind = Literal["dense", "conv", "depthwise", "pool"]
Int64Array = NDArray[np.int64]

_LARGEST = 2**24  # float32 has every integer up to here


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer on integers; images are (height, width, channels).

    ``weights`` are (outputs, height, width, channels) of a window, (height, width, channels) where
    it is depthwise; a dense layer is a window as large as its image. ``scores``: the sums stay.
    """

    name: str
    kind: Kind
    shape: tuple[int, int, int]
    out_shape: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    weights: Int64Array
    bias: Int64Array  # (outputs,)
    shift: int
    scores: bool = False

    @property
    def depth(self) -> int:
        """How many products a sum has."""
        taps = self.kernel[0] * self.kernel[1]
        return {"pool": 0, "depthwise": taps}.get(self.kind, taps * self.shape[2])

    @property
    def products(self) -> int:
        return self.depth * int(np.prod(self.out_shape))

    def first_outputs(self, count: int) -> "Layer":
        """The same with ``count`` of its outputs, and of its inputs where those are as many."""
        shape, out_shape = self.shape, (*self.out_shape[:2], count)
        if self.kind in ("depthwise", "pool"):
            shape = (*self.shape[:2], count)
        weights = self.weights[..., :count] if self.kind == "depthwise" else self.weights[:count]
        bias = self.bias[:count]
        return replace(self, shape=shape, out_shape=out_shape, weights=weights, bias=bias)


# --- random layers --------------------------------------------------------------------------------


def twins(ops: Sequence[Op], source: Tensor, seed: int) -> tuple[Layer, ...]:
    """The layers of ``ops``, of which each reads what the one before makes, with random weights.

    Raises:
        NoTwin: there is no such layer in int8.
    """
    rng = np.random.default_rng(seed)
    found: list[Layer] = []
    name = ops[0].source if ops else INPUT
    for op in ops:
        if not isinstance(op, Dense | Conv | DepthwiseConv | MaxPool) or op.source != name:
            raise NoTwin(f"'{op.name}' ({type(op).__name__}) has no twin in int8")
        result = infer(op, source)
        found.append(_twin(op, source, result, rng))
        source, name = result, op.name
    return tuple(found)


def _twin(
    op: Dense | Conv | DepthwiseConv | MaxPool,
    source: Tensor,
    result: Tensor,
    rng: np.random.Generator,
) -> Layer:
    assert isinstance(source, Ints | Bits | Sums)
    shape = (source.height, source.width, source.channels)
    if isinstance(op, MaxPool):
        nothing = np.zeros(0, np.int64)
        whole = _image_shape(result)
        return Layer(
            op.name, "pool", shape, whole, op.kernel, op.stride, (0, 0, 0, 0), nothing, nothing, 0
        )
    kind: Kind = (
        "dense" if isinstance(op, Dense) else "conv" if isinstance(op, Conv) else "depthwise"
    )
    weights = rng.integers(-127, 128, op.weights.shape)
    depth = int(op.weights[0].size) if kind != "depthwise" else int(np.prod(op.weights.shape[:2]))
    # A random sum of products of numbers up to 127 is about 73 * 73 * sqrt(depth).
    shift = max(1, int(np.ceil(np.log2(73 * 73 * np.sqrt(depth) / 64))))
    outputs = op.weights.shape[-1] if kind == "depthwise" else op.weights.shape[0]
    bias = rng.integers(-8, 9, outputs) * 2**shift + 2 ** (shift - 1)
    return Layer(
        name=op.name,
        kind=kind,
        shape=shape,
        out_shape=_image_shape(result),
        kernel=(op.weights.shape[-3], op.weights.shape[-2]),
        stride=(1, 1) if isinstance(op, Dense) else op.stride,
        padding=(0, 0, 0, 0) if isinstance(op, Dense) else op.padding,
        weights=weights,
        bias=bias,
        shift=shift,
        scores=isinstance(result, ScoreVector),
    )


def _image_shape(tensor: Tensor) -> tuple[int, int, int]:
    if isinstance(tensor, ScoreVector):
        return 1, 1, tensor.classes
    return tensor.height, tensor.width, tensor.channels


# --- in NumPy -------------------------------------------------------------------------------------


def values(layers: Sequence[Layer], image: Int64Array) -> Int64Array:
    """What int8 layers make of one ``image``."""
    for layer in layers:
        sums = _sums(layer, image)
        if layer.kind != "pool" and not layer.scores:
            sums = np.clip(sums >> layer.shift, -128, 127)
        image = sums
    return image


def float_values(layers: Sequence[Layer], image: Int64Array) -> Int64Array:
    """What float layers make of one ``image``: the sums themselves.

    Raises:
        EdgebnnError: some of them float might not hold.
    """
    for layer in layers:
        if layer.kind != "pool":
            absolute = replace(layer, weights=np.abs(layer.weights), bias=np.abs(layer.bias))
            if _sums(absolute, np.abs(image)).max() > _LARGEST:
                raise EdgebnnError(f"sums of '{layer.name}' are too large to be exact in float")
        image = _sums(layer, image)
    return image


def _sums(layer: Layer, image: Int64Array) -> Int64Array:
    top, bottom, left, right = layer.padding
    padded = np.pad(image, ((top, bottom), (left, right), (0, 0)))
    height, width, outputs = layer.out_shape
    taps = np.empty((layer.kernel[0], layer.kernel[1], height, width, image.shape[2]), np.int64)
    for ky in range(layer.kernel[0]):
        for kx in range(layer.kernel[1]):
            rows = slice(ky, ky + height * layer.stride[0], layer.stride[0])
            columns = slice(kx, kx + width * layer.stride[1], layer.stride[1])
            taps[ky, kx] = padded[rows, columns][:height, :width]
    match layer.kind:
        case "pool":
            return np.asarray(taps.max(axis=(0, 1)))
        case "depthwise":
            return np.asarray(np.einsum("abyxc,abc->yxc", taps, layer.weights) + layer.bias)
    flat = taps.transpose(2, 3, 0, 1, 4).reshape(height * width, -1)
    dots = flat.astype(np.float64) @ layer.weights.reshape(outputs, -1).T.astype(np.float64)
    return np.asarray(dots.astype(np.int64).reshape(height, width, outputs) + layer.bias)


# --- in C -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer as the templates print it.

    ``pixels`` patches meet ``block`` outputs at once, ``unroll`` inputs a trip, or fours of them
    where ``fours`` says how many there are; ``tail`` inputs are left over from those.
    """

    name: str
    kind: Kind
    height: int
    width: int
    channels: int
    out_height: int
    out_width: int
    outputs: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    pad_top: int
    pad_bottom: int
    pad_left: int
    pad_right: int
    depth: int
    shift: int
    scores: bool
    arrays: tuple[ArrayView, ...]
    out_values: int
    out_type: str = "float"
    ctype: str = "float"  # of weights
    pixels: int = 1
    block: int = 1
    unroll: int = 1
    fours: int = 0
    tail: int = 0
    trips: int = 0
    weights_step: int = 0  # of the pointer to weights, a trip
    places: tuple[int, ...] = ()  # of the values in a window, where it is not copied

    @property
    def out_pixels(self) -> int:
        return self.out_height * self.out_width

    @property
    def taps(self) -> int:
        return self.kernel_height * self.kernel_width

    @property
    def numbered_places(self) -> tuple[tuple[int, int], ...]:
        return tuple(enumerate(self.places))

    @property
    def patch_row(self) -> int:
        """Bytes of a row of a patch."""
        return self.kernel_width * self.channels

    @property
    def image_row(self) -> int:
        """Bytes of a row of the image."""
        return self.width * self.channels

    @property
    def padded_row(self) -> int:
        """The same with what is around the image."""
        return (self.width + self.pad_left + self.pad_right) * self.channels

    @property
    def padded_bytes(self) -> int:
        """Of the image with what is around it; 0 if that is nothing."""
        if not (self.pad_top or self.pad_bottom or self.pad_left or self.pad_right):
            return 0
        return (self.height + self.pad_top + self.pad_bottom) * self.padded_row

    @property
    def padded_first(self) -> int:
        """Where the image begins in it."""
        return self.pad_top * self.padded_row + self.pad_left * self.channels

    @property
    def step(self) -> int:
        """Bytes from one window to the next."""
        return self.stride_x * self.channels

    @property
    def next_row(self) -> int:
        """Bytes from behind the last window of a row to the first one of the next."""
        return self.stride_y * self.padded_row - self.out_width * self.step

    @property
    def patch_bytes(self) -> int:
        """Of a patch, in whole words."""
        return -(-self.depth // 4) * 4

    @property
    def wide_words(self) -> int:
        """Of a patch whose fours are two words each."""
        return 2 * self.fours


def float_view(layer: Layer, cpu: Cpu) -> LayerView:
    """A layer in float, one output after the other."""
    tables: list[Table] = []
    if layer.kind == "depthwise":
        tables.append(Table("weights", "float", layer.weights.reshape(layer.depth, -1)))
    elif layer.kind != "pool":
        tables.append(Table("weights", "float", layer.weights.reshape(len(layer.weights), -1)))
    if tables:
        tables.append(Table("bias", "float", layer.bias))
    return _view(layer, tables, cpu)


def int8_view(layer: Layer, cpu: Cpu) -> LayerView:
    """A layer in int8, blocked as the CPU likes it."""
    outputs, dsp = layer.out_shape[2], "dsp" in cpu.features
    if by_shifts(cpu) and layer.kind != "pool":  # inputs are from 0 to 255 then
        axes = (0, 1) if layer.kind == "depthwise" else (1, 2, 3)
        layer = replace(layer, bias=layer.bias - 128 * layer.weights.sum(axis=axes))
    if layer.kind == "pool":
        fours = outputs // 4 if dsp and outputs % 4 == 0 else 0
        height, width = layer.kernel
        step = layer.shape[1] * layer.shape[2]
        places = tuple(y * step + x * outputs for y in range(height) for x in range(width))
        view = _view(layer, [], cpu)
        block = 4 if fours else 1
        return replace(view, out_type="int8_t", fours=fours, block=block, places=places)
    if layer.kind == "depthwise":
        return _int8_depthwise(layer, cpu)
    pixels, most, unroll = _blocking(layer, cpu)
    block = _divisor(outputs, most)
    rows = layer.weights.reshape(outputs // block, block, layer.depth)
    bias = Table("bias", "int32_t", layer.bias)
    if not dsp or layer.depth < 4:
        unroll = _divisor(layer.depth, unroll)
        weights = Table("weights", "int8_t", rows.transpose(0, 2, 1).reshape(len(rows), -1))
        view = _view(layer, [weights, bias], cpu)
        trips, fours, tail = layer.depth // unroll, 0, 0
        step = unroll * block
    else:
        fours, tail = divmod(layer.depth, 4)
        unroll = _divisor(fours, unroll)
        words = _words(rows[:, :, : 4 * fours].reshape(len(rows), block, fours, 4))
        tables = [_word_table(words.transpose(0, 2, 1).reshape(len(rows), -1)), bias]
        if tail:
            left = layer.weights.reshape(outputs, -1)[:, 4 * fours :]
            tables.append(Table("tail", "int8_t", left))
        view = _view(layer, tables, cpu)
        trips, step = fours // unroll, unroll * block
    return replace(
        view,
        out_type="int32_t" if layer.scores else "int8_t",
        ctype="uint32_t" if fours else "int8_t",
        pixels=pixels,
        block=block,
        unroll=unroll,
        fours=fours,
        tail=tail,
        trips=trips,
        weights_step=step,
    )


def by_shifts(cpu: Cpu) -> bool:
    """Whether products take shifts and additions; an AVR multiplies bytes, if no words."""
    return "mul" not in cpu.features and not cpu.narrow


def _blocking(layer: Layer, cpu: Cpu) -> tuple[int, int, int]:
    """Pixels and outputs at once, and inputs, or fours of them, a trip: what took least of a few.

    Armv6-M multiplies in eight registers, and RV32E has sixteen: there one pixel is enough.
    """
    few = (cpu.arch == "arm" and "clz" not in cpu.features) or "mul" not in cpu.features
    even = layer.out_shape[0] * layer.out_shape[1] % 2 == 0
    if cpu.narrow:
        return 1, 1, 4
    if layer.kind == "conv" and even and not few:
        return 2, 2, 4
    return 1, 2 if "dsp" in cpu.features else 4, 4


def _int8_depthwise(layer: Layer, cpu: Cpu) -> LayerView:
    channels = layer.shape[2]
    dsp = "dsp" in cpu.features and channels % 4 == 0
    block = 4 if dsp else _divisor(channels, 2)
    taps = layer.weights.reshape(layer.depth, channels // block, block)
    weights = Table("weights", "int8_t", taps.transpose(1, 2, 0).reshape(channels // block, -1))
    if dsp:
        weights = _word_table(_words(taps.transpose(1, 0, 2)))
    view = _view(layer, [weights, Table("bias", "int32_t", layer.bias)], cpu)
    height, width = layer.kernel
    places = (y * view.padded_row + x * channels for y in range(height) for x in range(width))
    return replace(
        view,
        places=tuple(places),
        out_type="int8_t",
        ctype=weights.ctype,
        block=block,
        fours=channels // 4 if dsp else 0,
        weights_step=weights.values.shape[1],
    )


def _word_table(words: NDArray[np.uint32]) -> Table:
    return Table("weights", "uint32_t", words, words=True)


def _words(fours: Int64Array) -> NDArray[np.uint32]:
    """(..., 4) bytes as (...) words, the first one lowest."""
    return np.ascontiguousarray(fours.astype(np.int8)).view("<u4")[..., 0].astype(np.uint32)


def _divisor(count: int, most: int) -> int:
    """The largest power of two up to ``most`` that divides ``count``."""
    return next(size for size in (most, most // 2, 1) if size and count % size == 0)


def _view(layer: Layer, tables: Sequence[Table], cpu: Cpu) -> LayerView:
    return LayerView(
        name=layer.name,
        kind=layer.kind,
        height=layer.shape[0],
        width=layer.shape[1],
        channels=layer.shape[2],
        out_height=layer.out_shape[0],
        out_width=layer.out_shape[1],
        outputs=layer.out_shape[2],
        kernel_height=layer.kernel[0],
        kernel_width=layer.kernel[1],
        stride_y=layer.stride[0],
        stride_x=layer.stride[1],
        pad_top=layer.padding[0],
        pad_bottom=layer.padding[1],
        pad_left=layer.padding[2],
        pad_right=layer.padding[3],
        depth=layer.depth,
        shift=layer.shift,
        scores=layer.scores,
        arrays=tuple(array_view(f"bench_{layer.name}", table, cpu) for table in tables),
        out_values=int(np.prod(layer.out_shape)),
    )
