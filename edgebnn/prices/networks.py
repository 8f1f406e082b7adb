"""Networks to fit prices on: random ones with all the kernels, on inputs of all kinds.

A number names a network and its inputs, for good. Thresholds are taken from dots that its inputs
give, in a part of them that is drawn for each layer, so that bits are dense in some layers and
sparse in others.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn import reference
from edgebnn.ir import (
    INPUT,
    Add,
    Binarize,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Head,
    Ints,
    MaxPool,
    Network,
    Op,
    Raw,
    Score,
    Scores,
    ScoreVector,
    Sums,
    Tensor,
    Threshold,
    output_size,
    tensors,
)

INPUTS = 6
WAYS = ("rows", "columns", "digit_columns", "subset_sums", "bit_planes", "tree")
_WIDTHS = (1, 2, 5, 8, 9, 16, 17, 24, 31, 32, 33, 40, 48, 63, 64, 65, 80, 96, 100, 128)
_CHANNELS = (1, 1, 1, 2, 3, 3, 4, 5, 8, 31, 32, 33)
_KERNELS = ((1, 1), (3, 3), (3, 3), (3, 3), (5, 5), (2, 2), (1, 3), (3, 1), (2, 4), (7, 1), (4, 3))
_POOLS = ((2, 2), (2, 2), (1, 2), (2, 1), (3, 3))
_SIZES = (*range(1, 17), 20, 24, 28)


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A network, inputs (N, input bytes) for it, and the ways of kernels that it goes."""

    network: Network
    inputs: NDArray[np.uint8]
    prefer: tuple[str, ...]


def subject(number: int) -> Subject:
    """The network of this number."""
    return Builder(number).build()


def masked(number: int) -> Subject:
    """The network of this number whose layers go by masked columns, as far as they can."""
    builder = Builder(2_000_000 + number)
    there = builder.build() if number % 2 else builder.single()
    return replace(there, prefer=("masks",))


def layer(number: int) -> Subject:
    """A layer of any shape and ten scores behind it; where it reads bits, signs before it."""
    return Builder(number).single()


def tree(number: int) -> Subject:
    """The network of this number: a tree of filters, of few taps or of many, and scores."""
    return Builder(3_000_000 + number).tree()


def extremes(shape: Ints) -> NDArray[np.uint8]:
    """(5, input bytes): nothing, all, stripes across, stripes down and squares of both."""
    size = (shape.height, shape.width, shape.channels)
    y, x, _ = np.indices(size)
    rows = np.array([0 * y, 0 * y + 1, y % 2, x % 2, (x + y) % 2], np.uint8)
    return np.asarray(rows.reshape(len(rows), -1) * np.uint8(2**shape.bits - 1))


class Builder:
    """A network that grows op by op, on inputs of its own."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.rng = np.random.default_rng([number, 16])
        self.network = Network(Ints(1, 1, 1, 1), ())
        self.inputs = np.zeros((0, 1), np.uint8)
        self.last = INPUT

    def pick(self, *choices: Any) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def build(self) -> Subject:
        """Every third one has what most networks of images have, others have anything."""
        return self.common() if self.number % 3 == 0 else self.any()

    def common(self) -> Subject:
        """Convolutions on an image, with pools, and dense layers: kernels by columns, mostly."""
        height, width = self.pick(*_SIZES[5:]), self.pick(*_SIZES[5:])
        self.begin(Ints(height, width, self.pick(1, 1, 3), self.pick(4, 8, 8)))
        if self.chance(0.15):
            self.binarize()
        for _ in range(self.pick(2, 2, 3)):
            self.plain_conv()
        for _ in range(self.pick(0, 0, 1)):
            self.dense(self.pick(*_WIDTHS[7:]), self.threshold)
        self.dense(10, lambda dots: self.scores(10, 2**16))
        return Subject(self.network, self.inputs, ())

    def plain_conv(self) -> None:
        tensor = self.tensor
        assert not isinstance(tensor, ScoreVector)
        kernel = self.pick((3, 3), (3, 3), (3, 3), (5, 5), (2, 2), (3, 1), (4, 3), (1, 1))
        pads = [self.pick(0, size // 2, size // 2) for size in kernel]
        sizes = (tensor.height + 2 * pads[0], tensor.width + 2 * pads[1])
        if sizes[0] < kernel[0] or sizes[1] < kernel[1]:
            return
        outputs = self.pick(*_WIDTHS[5:])
        work = tensor.height * tensor.width * tensor.channels * kernel[0] * kernel[1]
        while outputs * work > 6_000_000:
            outputs //= 2
        pad_value = 0 if isinstance(tensor, Ints) else self.pick(-1, -1, -1, 1, 0)
        weights = self.rng.random((outputs, *kernel, tensor.channels)) < 0.5
        sides = (pads[0], pads[0], pads[1], pads[1])
        op = Conv(self.name("conv"), self.last, weights, (1, 1), sides, pad_value, Raw())
        self.add(replace(op, head=self.threshold(self.values(op))))
        tensor = self.tensor
        assert isinstance(tensor, Bits)
        if min(tensor.height, tensor.width) > 1 and self.chance(0.5):
            all_set = self.rng.random(outputs) < self.pick(0.0, 0.3)
            self.add(MaxPool(self.name("pool"), self.last, (2, 2), (2, 2), all_set))

    def single(self) -> Subject:
        flat = self.chance(0.3)
        height, width = self.pick(*_SIZES[3:]), self.pick(*_SIZES[3:])
        if flat:
            size = (1, 1, self.pick(*_WIDTHS) * self.pick(1, 2, 4, 8))
        else:
            size = (height, width, self.pick(1, 3, 8, 16, 32, 48, 64))
        self.begin(Ints(*size, 8))
        if size[2] > 3 or self.chance(0.3):
            self.binarize()
        if flat:
            self.dense(self.pick(*_WIDTHS[5:]), self.threshold)
        else:
            self.plain_conv()
        self.dense(10, lambda dots: self.scores(10, 2**16))
        return Subject(self.network, self.inputs, ())

    def tree(self) -> Subject:
        channels, size = self.pick(1, 2, 3, 4), self.pick(3, 3, 5, 5, 7)
        taps = channels * size * size
        bits = 8 if taps * 255 < 2**15 else 7 if taps * 127 < 2**15 else 6
        self.begin(Ints(12, 12, channels, bits))
        outputs = min(self.pick(1, 3, 6, 12, 16, 17, 31, 32, 33, 64, 96, 128), 4500 // taps)
        pads = (self.pick(0, size // 2),) * 4
        stride = self.pick((1, 1), (1, 1), (2, 2))
        weights = self.rng.random((outputs, size, size, channels)) < 0.5
        op = Conv(self.name("conv"), self.last, weights, stride, pads, 0, Raw())
        self.add(replace(op, head=self.threshold(self.values(op))))
        pool = self.pick((1, 1), (2, 2), (2, 2), (1, 2), (2, 1))
        if pool != (1, 1):
            self.add(MaxPool(self.name("pool"), self.last, pool, pool, np.zeros(outputs, bool)))
        self.dense(2, lambda dots: self.scores(2, 2**16))
        return Subject(self.network, self.inputs, ("tree",))

    def any(self) -> Subject:
        bits = self.pick(1, 2, 3, 4, 6, 8, 8, 8, 8)
        if self.chance(0.3):
            size = (1, 1, self.pick(*_WIDTHS) * self.pick(1, 1, 2, 3, 6))
            if self.chance(0.3):
                size = (self.pick(*_SIZES), self.pick(*_SIZES), 1)
        elif self.chance(0.2):
            size = self.pick((1, 30), (30, 1), (64, 1), (1, 50), (17, 1), (1, 9))
            size = (*size, self.pick(*_CHANNELS))
        else:
            size = (self.pick(*_SIZES), self.pick(*_SIZES), self.pick(*_CHANNELS))
        self.begin(Ints(*size, bits))
        if self.chance(0.25):
            self.binarize()
        if size[0] * size[1] > 1:
            for _ in range(self.pick(0, 1, 1, 2, 2)):
                self.image_layer()
        if self.chance(0.25):
            self.shortcut()
        for _ in range(self.pick(0, 1, 1, 2)):
            self.dense(self.pick(*_WIDTHS), self.threshold)
        if isinstance(self.tensor, Sums):
            self.binarize()
        classes = self.pick(1, 2, 3, 5, 10, 10, 12, 31, 33)
        if self.chance(0.15):
            self.dense(classes, lambda _: Raw())
            low, high = self.tensor.low, self.tensor.high  # type: ignore[union-attr]
            self.add(Score("score", self.last, self.scores(classes, max(-low, high))))
        else:
            self.dense(classes, lambda dots: self.scores(classes, 2**16))
        prefer = () if self.chance(0.45) else (self.pick(*WAYS),)
        return Subject(self.network, self.inputs, prefer)

    def begin(self, shape: Ints) -> None:
        self.network = Network(shape, ())
        size, top = (INPUTS, shape.height, shape.width, shape.channels), 2**shape.bits - 1
        noise = self.rng.integers(0, top + 1, size)
        density = np.linspace(0.05, 0.95, INPUTS)[:, None, None, None]
        values = np.where(self.rng.random(size) < density, noise, 0)
        # Alike from row to row: each row is the one above, but for a few pixels.
        for row in range(1, shape.height):
            kept = self.rng.random((INPUTS // 2, *size[2:])) < 0.8
            values[::2, row] = np.where(kept, values[::2, row - 1], values[::2, row])
        values[-1] = noise[-1]
        self.inputs = values.reshape(INPUTS, -1).astype(np.uint8)

    @property
    def tensor(self) -> Tensor:
        return tensors(self.network)[self.last]

    def add(self, op: Op) -> None:
        self.network = Network(self.network.input, (*self.network.ops, op))
        self.last = op.name

    def values(self, op: Op) -> NDArray[np.int64]:
        """(n, channels) what ``op`` makes, pixel by pixel."""
        trial = Network(self.network.input, (*self.network.ops, op))
        found = reference.trace(trial, reference.check_inputs(trial, self.inputs))[op.name]
        return found.reshape(-1, found.shape[-1])

    def name(self, kind: str) -> str:
        return f"{kind}{len(self.network.ops)}"

    def limits(self, dots: NDArray[np.int64]) -> NDArray[np.int32]:
        share = self.rng.uniform(0.15, 0.85)
        spread = np.clip(self.rng.normal(share, 0.15, dots.shape[1]), 0.02, 0.98)
        found = [np.quantile(dots[:, o], one) for o, one in enumerate(spread)]
        return np.array(found).astype(np.int32)

    def threshold(self, dots: NDArray[np.int64]) -> Head:
        return Threshold(self.limits(dots))

    def scores(self, classes: int, _bound: int) -> Scores:
        offset = self.rng.integers(-90, 90, classes).astype(np.int32)
        form = self.pick("plain", "shift", "shifts", "zero", "factors", "factors")
        factor = np.ones(classes, np.int32)
        if form == "plain":
            offset *= self.pick(0, 1)
        elif form == "shift":
            factor *= 4
        elif form == "factors":
            factor = self.rng.integers(2, 10, classes).astype(np.int32)
        else:
            factor = (1 << self.rng.integers(0, 5, classes)).astype(np.int32)
            factor[-1] = 0 if form == "zero" and classes > 1 else 1
        return Scores(factor, offset, 2)

    def dense(self, outputs: int, head: Any) -> None:
        tensor = self.tensor
        if isinstance(tensor, Sums):
            self.binarize()
            tensor = self.tensor
        assert not isinstance(tensor, ScoreVector)
        shape = (outputs, tensor.height, tensor.width, tensor.channels)
        weights = self.rng.random(shape) < self.rng.uniform(0.3, 0.7)
        op = Dense(self.name("dense"), self.last, weights, Raw())
        self.add(replace(op, head=head(self.values(op))))

    def binarize(self) -> None:
        tensor = self.tensor
        assert not isinstance(tensor, ScoreVector)
        images = reference.check_inputs(self.network, self.inputs)
        stored = reference.trace(self.network, images)[self.last].reshape(-1, tensor.channels)
        minimum = np.clip(self.limits(stored), stored.min() + 1, stored.max()).astype(np.int32)
        inverted = self.rng.random(tensor.channels) < self.pick(0.0, 0.0, 0.3)
        if self.chance(0.2):
            shape = (tensor.height, tensor.width, 1)
            minimum, inverted = np.tile(minimum, shape), np.tile(inverted, shape)
        self.add(Binarize(self.name("sign"), self.last, minimum, inverted))

    def geometry(self, tensor: Tensor, same: bool = False) -> dict[str, Any] | None:
        assert not isinstance(tensor, ScoreVector)
        kernel = self.pick(*_KERNELS)
        around = [self.pick(0, (size - 1) // 2, (size - 1) // 2) for size in kernel]
        padding = (around[0], around[0], around[1], around[1])
        stride = self.pick((1, 1), (1, 1), (1, 1), (2, 2), (1, 2), (2, 1), (3, 2))
        if same:
            stride = (1, 1)
            padding = ((kernel[0] - 1) // 2, kernel[0] // 2, (kernel[1] - 1) // 2, kernel[1] // 2)
        height = output_size(tensor.height, kernel[0], stride[0], sum(padding[:2]))
        width = output_size(tensor.width, kernel[1], stride[1], sum(padding[2:]))
        if min(height, width) < 1:
            return None
        ints = isinstance(tensor, Ints)
        pad = 0 if ints and self.chance(0.8) else self.pick(-1, -1, 0, 0, 1)
        return {
            "kernel": kernel,
            "stride": stride,
            "padding": padding,
            "pad_value": abs(pad) if ints else pad,
        }

    def conv(self, outputs: int, head: Any, same: bool = False) -> bool:
        """A convolution, depthwise if ``outputs`` is 0; False where none fits."""
        tensor, where = self.tensor, None
        while where is None:
            where = self.geometry(tensor, same)
        assert not isinstance(tensor, ScoreVector)
        kernel = where.pop("kernel")
        work = tensor.height * tensor.width * tensor.channels * kernel[0] * kernel[1]
        while outputs * work > 3_000_000:
            outputs //= 2
        op: Conv | DepthwiseConv
        if outputs:
            weights = self.rng.random((outputs, *kernel, tensor.channels)) < 0.5
            op = Conv(self.name("conv"), self.last, weights, **where, head=Raw())
        else:
            weights = self.rng.random((*kernel, tensor.channels)) < 0.5
            op = DepthwiseConv(self.name("conv"), self.last, weights, **where, head=Raw())
        self.add(replace(op, head=head(self.values(op))))
        return True

    def image_layer(self) -> None:
        tensor = self.tensor
        if isinstance(tensor, Sums):
            self.binarize()
        if self.chance(0.15):
            self.conv(0, self.threshold)
        else:
            self.conv(self.pick(*_WIDTHS[2:]), self.threshold)
        tensor = self.tensor
        assert isinstance(tensor, Bits)
        if self.chance(0.4):
            kernel = self.pick(*_POOLS)
            if kernel[0] <= tensor.height and kernel[1] <= tensor.width:
                all_set = self.rng.random(tensor.channels) < self.pick(0.0, 0.3)
                stride = self.pick(kernel, kernel, kernel, (1, 1), (2, 1))
                self.add(MaxPool(self.name("pool"), self.last, kernel, stride, all_set))

    def shortcut(self) -> None:
        """A sum of sums, and signs of it."""
        tensor = self.tensor
        if isinstance(tensor, Sums):
            return
        assert not isinstance(tensor, ScoreVector)
        outputs = 0 if self.chance(0.3) else self.pick(*_WIDTHS[2:])
        before = self.last
        if tensor.height * tensor.width == 1:
            outputs = outputs or 10
            self.dense(outputs, lambda _: Raw())
            first = self.last
            if self.chance(0.5):
                self.last = before
            self.dense(outputs, lambda _: Raw())
        else:
            self.conv(outputs, lambda _: Raw(), same=True)
            first, made = self.last, self.tensor
            if not self.chance(0.5):
                self.binarize()
            else:
                self.last = before
            same = self.tensor.channels == made.channels  # type: ignore[union-attr]
            depthwise = same and self.chance(0.4)
            self.conv(
                0 if depthwise else made.channels,  # type: ignore[union-attr]
                lambda _: Raw(),
                same=True,
            )
        shapes = tensors(self.network)
        if shapes[first] != shapes[self.last] and _size(shapes[first]) != _size(shapes[self.last]):
            return
        self.add(Add(self.name("add"), self.last, first))
        if self.chance(0.8):
            self.binarize()


def _size(tensor: Tensor) -> tuple[int, int, int]:
    assert not isinstance(tensor, ScoreVector)
    return tensor.height, tensor.width, tensor.channels
