"""The network in integers: what every backend reads and the oracle interprets.

Shapes. Tensors are (height, width, channels); a flat tensor of n features is (1, 1, n). A bit is 1
for +1 and 0 for -1. How bits and sums lie in memory is :mod:`edgebnn.bits`'s concern.

Semantics. Every layer with weights forms ``dot[o] = sum(x * w[o])``. Its head turns dots into bits,
``bit[o] = dot[o] >= min_dot[o]``, or into the network's scores, ``factor[o] * dot[o] + offset[o]``,
or keeps them as they are: a shortcut carries sums, so that an addition is exact.

Levels. An activation of k = 3 or 7 thresholds of which c are reached is ``2 * c - k``, the sum of k
signs. The binary digits of c, 1 for +1 and 0 for -1, are the bits of 2 or 3 planes:
``2 * c - k = sum over p of 2**p * s[p]``. So a dot is the sum of those of its planes, doubled p
times, and weights stay bits.
"""

import hashlib
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError

BoolArray = NDArray[np.bool_]
Int32Array = NDArray[np.int32]

#: Rows above and below an image, columns to its left and right: (top, bottom, left, right).
Sides = tuple[int, int, int, int]

#: float32 holds every integer up to here, so torch's sums are exact below it.
EXACT_LIMIT = 2**24


@dataclass(frozen=True, slots=True)
class Ints:
    """Integers of ``bits`` bits, 0 to 2**bits - 1: the network's input."""

    height: int
    width: int
    channels: int
    bits: int


@dataclass(frozen=True, slots=True)
class Bits:
    """Values in {-1, +1}; of several planes the sum over p of ``2**p`` times that of plane p."""

    height: int
    width: int
    channels: int
    planes: int = 1

    @property
    def levels(self) -> int:
        """The largest value: how many thresholds make it."""
        return int(2**self.planes - 1)


@dataclass(frozen=True, slots=True)
class Sums:
    """Signed integers from ``low`` to ``high``, what dots and sums of dots are before a sign."""

    height: int
    width: int
    channels: int
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class ScoreVector:
    """The network's output: one 32-bit score a class, or a single one that tells two apart."""

    classes: int


Tensor = Ints | Bits | Sums | ScoreVector


@dataclass(frozen=True, slots=True)
class Threshold:
    """bit[o] = dot[o] >= min_dot[o]; a min_dot above every reachable dot never fires."""

    min_dot: Int32Array  # (outputs,)


@dataclass(frozen=True, slots=True)
class Levels:
    """value[o] = 2 * c - levels, where c is how many of min_dot[:, o] dot[o] reaches."""

    min_dot: Int32Array  # (3 or 7 levels, outputs)


@dataclass(frozen=True, slots=True)
class Scores:
    """score[o] = factor[o] * dot[o] + offset[o], a logit with ``fraction_bits`` binary places."""

    factor: Int32Array  # (classes,)
    offset: Int32Array  # (classes,)
    fraction_bits: int


@dataclass(frozen=True, slots=True)
class Raw:
    """The dots themselves, as :class:`Sums`."""


Head = Threshold | Levels | Scores | Raw


@dataclass(frozen=True, slots=True)
class Dense:
    """Every output sees the whole of ``source``."""

    name: str
    source: str
    weights: BoolArray  # (outputs, height, width, channels), True for +1
    head: Head


@dataclass(frozen=True, slots=True)
class Conv:
    """2-D convolution. Taps outside the image count as ``pad_value``: on bits, which reach from
    -levels to levels, one of these two or 0.

    ``padding`` is how far a window may leave the image at the top, bottom, left and right.
    On :class:`Ints` sources it is one of their integers, the one that stands for 0.
    """

    name: str
    source: str
    weights: BoolArray  # (outputs, kernel height, kernel width, channels)
    stride: tuple[int, int]
    padding: Sides
    pad_value: int
    head: Head


@dataclass(frozen=True, slots=True)
class DepthwiseConv:
    """A convolution whose output channel c sees only input channel c."""

    name: str
    source: str
    weights: BoolArray  # (kernel height, kernel width, channels)
    stride: tuple[int, int]
    padding: Sides
    pad_value: int
    head: Threshold | Levels | Raw


@dataclass(frozen=True, slots=True)
class MaxPool:
    """The largest value of each window; the least in the channels where ``all_set`` is True.

    Of bits that is their OR, or their AND: the maximum before a sign is the OR of the signs, or
    their AND where the norm between falls. Sums have their largest.
    """

    name: str
    source: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    all_set: BoolArray  # (channels,)


@dataclass(frozen=True, slots=True)
class Binarize:
    """bit[c] = (x[c] >= minimum[c]) != inverted[c], on the integers of the input or on sums.

    Both arrays have a value a channel, or one a channel of each pixel.
    """

    name: str
    source: str
    minimum: Int32Array  # (channels,) or (height, width, channels)
    inverted: BoolArray  # as minimum


@dataclass(frozen=True, slots=True)
class Quantize:
    """value[c] = 2 * n - levels, where n counts (x[c] >= minimum[i, c]) != inverted[c] over i.

    Of the integers of the input or of sums. Behind ``levels`` the arrays are as in Binarize.
    """

    name: str
    source: str
    minimum: Int32Array  # (levels, channels) or (levels, height, width, channels)
    inverted: BoolArray  # (channels,) or (height, width, channels)


@dataclass(frozen=True, slots=True)
class Add:
    """source + other, two :class:`Sums` of one shape."""

    name: str
    source: str
    other: str


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of sums that are stored, one pixel of them."""

    name: str
    source: str
    head: Scores


Op = Dense | Conv | DepthwiseConv | MaxPool | Binarize | Quantize | Add | Score

INPUT = "input"


@dataclass(frozen=True, slots=True)
class Network:
    """Ops in order of execution. ``source`` names the op that feeds an op, or :data:`INPUT`."""

    input: Ints
    ops: tuple[Op, ...]

    @property
    def num_classes(self) -> int:
        """How many scores there are; :func:`told_apart` says how many classes that makes."""
        return len(self.scores.factor)

    @property
    def scores(self) -> Scores:
        head = getattr(self.ops[-1], "head", None)
        if not isinstance(head, Scores):
            raise EdgebnnError("the network does not end in scores")
        return head

    @property
    def input_bytes(self) -> int:
        return self.input.height * self.input.width * self.input.channels


def told_apart(scores: int) -> int:
    """How many classes so many scores tell apart: one is class 1 where it is >= 0, else class 0."""
    return max(scores, 2)


def output_size(size: int, kernel: int, stride: int, padding: int = 0) -> int:
    """Number of window positions along one axis (floor mode); ``padding`` is that of both ends."""
    return (size + padding - kernel) // stride + 1


def pairs(padding: Sides) -> tuple[int, int] | Sides:
    """``padding`` as (vertical, horizontal) where that says it all."""
    top, bottom, left, right = padding
    return (top, left) if (top, left) == (bottom, right) else padding


def sources(op: Op) -> tuple[str, ...]:
    """The tensors that ``op`` reads."""
    return (op.source, op.other) if isinstance(op, Add) else (op.source,)


def infer(op: Op, *inputs: Tensor) -> Tensor:
    """The tensor that ``op`` makes of ``inputs``, the tensors of its :func:`sources`."""
    source = inputs[0]
    assert not isinstance(source, ScoreVector)
    match op:
        case Dense():
            return _headed(op, source, 1, 1, len(op.weights))
        case Conv() | DepthwiseConv():
            kernel = op.weights.shape[-3:-1]
            return _headed(
                op,
                source,
                output_size(source.height, kernel[0], op.stride[0], sum(op.padding[:2])),
                output_size(source.width, kernel[1], op.stride[1], sum(op.padding[2:])),
                len(op.weights) if isinstance(op, Conv) else source.channels,
            )
        case MaxPool():
            assert isinstance(source, Bits | Sums)
            return replace(
                source,
                height=output_size(source.height, op.kernel[0], op.stride[0]),
                width=output_size(source.width, op.kernel[1], op.stride[1]),
            )
        case Binarize():
            return Bits(source.height, source.width, source.channels)
        case Quantize():
            planes = len(op.minimum).bit_length()
            return Bits(source.height, source.width, source.channels, planes)
        case Add():
            other = inputs[1]
            assert isinstance(source, Sums)
            assert isinstance(other, Sums)
            low, high = source.low + other.low, source.high + other.high
            return Sums(source.height, source.width, source.channels, low, high)
        case Score():
            return ScoreVector(source.channels)


def _headed(
    op: Dense | Conv | DepthwiseConv, source: Tensor, height: int, width: int, channels: int
) -> Tensor:
    match op.head:
        case Threshold():
            return Bits(height, width, channels)
        case Levels(min_dot):
            return Bits(height, width, channels, len(min_dot).bit_length())
        case Scores():
            return ScoreVector(channels)
        case Raw():
            bound = dot_bound(fan_in(op), source)
            return Sums(height, width, channels, -bound, bound)


def tensors(network: Network) -> dict[str, Tensor]:
    """Every tensor of the network by name, the input included."""
    known: dict[str, Tensor] = {INPUT: network.input}
    for op in network.ops:
        known[op.name] = infer(op, *(known[name] for name in sources(op)))
    return known


def fan_in(op: Dense | Conv | DepthwiseConv) -> int:
    """How many products one dot sums."""
    if isinstance(op, DepthwiseConv):
        return int(np.prod(op.weights.shape[:2]))
    return int(np.prod(op.weights.shape[1:]))


def dot_bound(inputs: int, source: Tensor) -> int:
    """The largest magnitude of a dot over ``inputs`` values of ``source``."""
    match source:
        case Ints():
            return inputs * int(2**source.bits - 1)
        case Bits():
            return inputs * source.levels
        case Sums():
            return inputs * max(-source.low, source.high)
    raise AssertionError("scores end a network")


def sha256(network: Network) -> str:
    """Hexadecimal digest of all that decides an output; equal for both forms of a model file.

    Names of ops do not: an op stands for its place. Each value is fed with its kind and its length,
    so that no two networks feed the same bytes.
    """
    places = {INPUT: 0} | {op.name: place for place, op in enumerate(network.ops, 1)}
    digest = hashlib.sha256()

    def feed(kind: str, content: bytes) -> None:
        digest.update(f"{kind} {len(content)}:".encode())
        digest.update(content)

    def visit(value: Any) -> None:
        if is_dataclass(value):
            items = [item.name for item in fields(value) if item.name != "name"]
            feed(type(value).__name__, str(len(items)).encode())
            for item in items:
                part = getattr(value, item)
                if item == "padding":  # equal pads have the digest that they have always had
                    part = pairs(part)
                visit(places[part] if item in ("source", "other") else part)
        elif isinstance(value, np.ndarray):
            feed(f"array {value.dtype.str} {value.shape}", np.ascontiguousarray(value).tobytes())
        elif isinstance(value, tuple):
            feed("tuple", str(len(value)).encode())
            for part in value:
                visit(part)
        else:
            feed(type(value).__name__, repr(value).encode())

    visit(network)
    return digest.hexdigest()
