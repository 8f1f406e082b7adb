"""Shapes of layers to measure, by a name each, and what their inputs are like.

dense-1024-128           1024 bits to 128 outputs
dense-784x8-256          784 integers of 8 bits to 256
conv-16x16x64-64         3x3 on 16 x 16 pixels of 64 bits to 64 channels, padding of -1
conv-28x28x1x8-32-pool   the same on one integer of 8 bits a pixel, padding of 0, and a 2x2 pool
depthwise-16x16x64       3x3, a filter a channel
"""

import re
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgebnn import reference
from edgebnn.errors import EdgebnnError
from edgebnn.ir import (
    INPUT,
    Binarize,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Ints,
    MaxPool,
    Network,
    Op,
    Raw,
    Scores,
    ScoreVector,
    Tensor,
    Threshold,
    fan_in,
    infer,
)

SHAPES = (
    "dense-1024-128",
    "dense-256-256",
    "dense-784x8-256",
    "conv-16x16x64-64",
    "conv-28x28x1x8-32-pool",
    "depthwise-16x16x64",
)

_NOTATION = re.compile(
    r"(?P<kind>dense|conv)-(?P<size>\d+(?:x\d+){0,3})-(?P<outputs>\d+)(?P<pool>-pool)?"
    r"|(?P<depthwise>depthwise)-(?P<image>\d+(?:x\d+){2,3})"
)
_MOST = 1 << 16  # inputs, or outputs, of a layer
_LAYER, _POOL = "layer", "pool"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What inputs are like: a ``density`` of set bits, and how many differ from the row above.

    ``change`` None: no bit depends on another one.
    """

    title: str
    short: str
    density: float = 0.5
    change: float | None = None


INDEPENDENT = Statistics("independent, .5 set", ".5")
SPARSE = Statistics("independent, .3 set", ".3", density=0.3)
ALIKE = Statistics(".15 differ from the row above", "alike", change=0.15)
UNIFORM = Statistics("all integers alike", "")


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A layer with its inputs: a network that has it, whose ops before and behind do not count.

    ``source`` and ``result`` are (N, height, width, channels), what the layer's ops ``names`` read
    and what they make of it by the oracle.
    """

    network: Network
    names: tuple[str, ...]
    source: NDArray[np.int64]
    result: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Shape:
    """One shape: the tensor that is read, and what tells the layers apart that read it."""

    name: str
    kind: str
    source: Bits | Ints
    outputs: int
    pool: bool

    @property
    def statistics(self) -> tuple[Statistics, ...]:
        """What its inputs may be like."""
        if isinstance(self.source, Ints):
            return (UNIFORM,)
        return (INDEPENDENT, SPARSE, ALIKE) if self.kind == "conv" else (INDEPENDENT,)

    def ops(self, source: str, rng: np.random.Generator) -> tuple[Op, ...]:
        """The layer, whose weights ``rng`` draws and whose thresholds are 0, and its pool."""
        tensor, around = self.source, ((1, 1), (1, 1, 1, 1), -1)
        if isinstance(tensor, Ints):
            around = ((1, 1), (1, 1, 1, 1), 0)
        head = Threshold(np.zeros(self.outputs, np.int32))
        layer: Dense | Conv | DepthwiseConv
        match self.kind:
            case "dense":
                weights = _signs(rng, self.outputs, 1, 1, tensor.channels)
                layer = Dense(_LAYER, source, weights, head)
            case "conv":
                weights = _signs(rng, self.outputs, 3, 3, tensor.channels)
                layer = Conv(_LAYER, source, weights, *around, head)
            case _:
                weights = _signs(rng, 3, 3, tensor.channels)
                layer = DepthwiseConv(_LAYER, source, weights, *around, head)
        if not self.pool:
            return (layer,)
        return layer, MaxPool(_POOL, _LAYER, (2, 2), (2, 2), np.zeros(self.outputs, bool))

    @property
    def products(self) -> int:
        """Of one weight and one input each."""
        (layer, *_) = self.ops(INPUT, np.random.default_rng(0))
        assert isinstance(layer, Dense | Conv | DepthwiseConv)
        result = infer(layer, self.source)
        return fan_in(layer) * int(np.prod(_size(result)))

    def subject(self, statistics: Statistics, seed: int, count: int) -> Subject:
        """The layer on ``count`` random inputs; the same for a seed.

        Thresholds are dots that its inputs give, so that about half of its dots reach them.
        """
        rng = np.random.default_rng(seed)
        height, width, channels = _size(self.source)
        shape = (count, height, width, channels)
        bits = self.source.bits if isinstance(self.source, Ints) else 1
        if isinstance(self.source, Ints):
            images = rng.integers(0, 2**bits, shape)
        else:
            images = (rng.random(shape) < statistics.density).astype(np.int64)
            if statistics.change is not None:
                changes = rng.random(shape) < statistics.change
                changes[:, 0] = images[:, 0] > 0
                images = np.cumsum(changes, axis=1) % 2
        network = Network(Ints(height, width, channels, bits), ())
        if isinstance(self.source, Bits):
            ones, none = np.ones(channels, np.int32), np.zeros(channels, bool)
            network = _with(network, Binarize("feed", INPUT, ones, none))
        source = "feed" if isinstance(self.source, Bits) else INPUT
        layer, *rest = self.ops(source, rng)
        assert isinstance(layer, Dense | Conv | DepthwiseConv)
        dots = reference.trace(_with(network, replace(layer, head=Raw())), images.astype(np.uint8))[
            _LAYER
        ]
        flat = dots.reshape(-1, dots.shape[-1])
        limits = flat[rng.integers(0, len(flat), flat.shape[1]), np.arange(flat.shape[1])]
        head = Threshold(limits.astype(np.int32))
        network = _with(network, replace(layer, head=head), *rest)
        names = (_LAYER, *(op.name for op in rest))
        values = reference.trace(network, images.astype(np.uint8))
        seen = (1, *values[names[-1]].shape[1:])
        scores = Scores(np.ones(1, np.int32), np.zeros(1, np.int32), 0)
        network = _with(network, Dense("seen", names[-1], np.ones(seen, bool), scores))
        return Subject(network, names, values[source], values[names[-1]])


def shape_of(name: str) -> Shape:
    """The shape that is written ``name``.

    Raises:
        EdgebnnError: it is none, or too large.
    """
    found = _NOTATION.fullmatch(name)
    if found is None:
        raise _unknown(name)
    kind = found["kind"] or found["depthwise"]
    numbers = [int(number) for number in (found["size"] or found["image"]).split("x")]
    outputs = int(found["outputs"] or numbers[2 if kind == "depthwise" else 0])
    if kind == "dense":
        numbers = [1, 1, *numbers]
    if len(numbers) not in (3, 4) or (kind == "dense" and found["pool"]):
        raise _unknown(name)
    height, width, channels = numbers[:3]
    bits = numbers[3] if len(numbers) == 4 else None
    if bits is not None and not 1 <= bits <= 8:
        raise EdgebnnError(f"shape '{name}': integers have 1 to 8 bits")
    sizes = (height * width * channels, height * width * outputs)
    if min(height, width, channels, outputs) < 1 or max(sizes) > _MOST:
        raise EdgebnnError(f"shape '{name}': a layer has 1 to {_MOST} inputs and outputs")
    if found["pool"] and min(height, width) < 2:
        raise EdgebnnError(f"shape '{name}': a pool takes two rows and columns")
    source = Bits(height, width, channels)
    if bits is not None:
        return Shape(
            name, kind, Ints(height, width, channels, bits), outputs, found["pool"] is not None
        )
    return Shape(name, kind, source, outputs, found["pool"] is not None)


def _unknown(name: str) -> EdgebnnError:
    return EdgebnnError(f"unknown shape '{name}'; write it like one of: {', '.join(SHAPES)}")


def _signs(rng: np.random.Generator, *shape: int) -> NDArray[np.bool_]:
    return rng.integers(0, 2, shape).astype(bool)


def _size(tensor: Tensor) -> tuple[int, int, int]:
    assert not isinstance(tensor, ScoreVector)
    return tensor.height, tensor.width, tensor.channels


def _with(network: Network, *ops: Op) -> Network:
    return Network(network.input, (*network.ops, *ops))
