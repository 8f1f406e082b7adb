"""Networks to fit prices on whose activations have levels, and that end in integer heads.

As those of :mod:`edgebnn.prices.networks`, a number names one for good. Prices that networks of
signs have are theirs, whatever is added here: :func:`edgebnn.prices.fit.fitted`.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn import reference
from edgebnn.ir import (
    Bits,
    Conv,
    Dense,
    Head,
    Ints,
    Levels,
    MaxPool,
    Quantize,
    Raw,
    ScoreVector,
    Sums,
    Threshold,
)
from edgebnn.prices.networks import WAYS, Builder, Subject

_SIZES = (6, 7, 8, 10, 12, 14, 16, 20, 24)
_WIDTHS = (8, 16, 24, 32, 32, 32, 32, 48, 64, 64, 96)
_WORK = 1_000_000  # products of a convolution, about


def leveled(number: int) -> Subject:
    """The network of this number; every second one is like those of recipes."""
    return _Leveled(1_000_000 + number).build()


class _Leveled(Builder):
    """As networks of signs, with levels for most signs and sums for some."""

    @property
    def plain(self) -> bool:
        """Whether its layers are those of recipes, but for their sizes."""
        return self.number % 8 == 0

    def build(self) -> Subject:
        made = self.recipe() if self.number % 2 == 0 else self.any()
        first = self.pick("tree", "tree", "tree", "subset_sums", "bit_planes", "digit_columns")
        later = self.pick("level_rows", "columns", "columns", "rows")
        prefer = (first, later, "rows") if self.chance(0.8) else (self.pick(*WAYS),)
        return Subject(made.network, made.inputs, prefer)

    def recipe(self) -> Subject:
        """Convolutions with levels, pools of levels, a pool of sums, and scores of sums."""
        size = self.pick(*_SIZES)
        self.begin(Ints(size, self.pick(size, size, *_SIZES), self.pick(1, 1, 3), 8))
        self.windows(self.pick((5, 5), (3, 3)), 0, self.threshold)
        self.pool()
        for _ in range(self.pick(0, 1, 1)):
            self.windows((3, 3), 1, self.threshold)
        if self.chance(0.3):
            self.dense(self.pick(*_WIDTHS), self.threshold)
        else:
            self.windows((3, 3), self.pick(0, 1, 1), lambda _: Raw())
            self.pool()
        if self.chance(0.2):
            self.dense(self.pick(*_WIDTHS), self.threshold)
        classes = self.pick(2, 3, 10, 10, 10, 12)
        self.dense(classes, lambda _: self.scores(classes, 2**16))
        return Subject(self.network, self.inputs, ())

    def windows(self, kernel: tuple[int, int], pad: int, head: Any) -> None:
        """A convolution as recipes have it, where the image is large enough for one."""
        tensor, outputs = self.tensor, self.pick(*((32, 32, 64) if self.plain else _WIDTHS))
        assert isinstance(tensor, Ints | Bits)
        height, width = (size + 2 * pad for size in (tensor.height, tensor.width))
        if height < kernel[0] or width < kernel[1]:
            kernel, pad = (1, 1), 0
        while outputs * tensor.height * tensor.width * tensor.channels * np.prod(kernel) > _WORK:
            outputs //= 2
        weights = self.rng.random((outputs, *kernel, tensor.channels)) < 0.5
        outside = 0
        if isinstance(tensor, Bits):
            outside = -tensor.levels if self.plain else tensor.levels * self.pick(-1, -1, -1, 0, 1)
        op = Conv(self.name("conv"), self.last, weights, (1, 1), (pad,) * 4, outside, Raw())
        self.add(replace(op, head=head(self.values(op))))

    def pool(self) -> None:
        tensor = self.tensor
        assert isinstance(tensor, Bits | Sums)
        if min(tensor.height, tensor.width) < 2:
            return
        others = () if self.plain else ((2, 2), (2, 2), (2, 2), (3, 3), (2, 1), (1, 2))
        kernel = self.pick((2, 2), *others)
        if kernel[0] > tensor.height or kernel[1] > tensor.width:
            return
        falls = 0.0 if isinstance(tensor, Sums) or self.plain else self.pick(0.0, 0.0, 0.0, 0.3)
        all_set = self.rng.random(tensor.channels) < falls
        stride = kernel if self.plain else self.pick(kernel, kernel, kernel, (1, 1))
        self.add(MaxPool(self.name("pool"), self.last, kernel, stride, all_set))

    def threshold(self, dots: NDArray[np.int64]) -> Head:
        """A sign, now and then, else limits of some levels."""
        levels = 3 if self.plain else self.pick(1, 3, 3, 3, 7, 7)
        if levels == 1:
            return Threshold(self.limits(dots))
        return Levels(self.several(dots, levels))

    def several(self, dots: NDArray[np.int64], levels: int) -> NDArray[np.int32]:
        """(levels, channels) limits, in order."""
        return np.sort([self.limits(dots) for _ in range(levels)], axis=0).astype(np.int32)

    def binarize(self) -> None:
        if self.chance(0.3):
            super().binarize()
            return
        tensor = self.tensor
        assert not isinstance(tensor, ScoreVector)
        images = reference.check_inputs(self.network, self.inputs)
        stored = reference.trace(self.network, images)[self.last].reshape(-1, tensor.channels)
        minimum = self.several(stored, self.pick(3, 3, 7))
        inverted = self.rng.random(tensor.channels) < self.pick(0.0, 0.0, 0.3)
        if self.chance(0.2):
            shape = (tensor.height, tensor.width, 1)
            inverted = np.tile(inverted, shape)
            minimum = np.tile(minimum[:, None, None], (1, *shape))
        self.add(Quantize(self.name("sign"), self.last, minimum, inverted))

    def dense(self, outputs: int, head: Any) -> None:
        """Of sums as they are, or of levels of them."""
        tensor = self.tensor
        assert not isinstance(tensor, ScoreVector)
        if isinstance(tensor, Sums) and self.chance(0.3):
            self.binarize()
        shape = (outputs, tensor.height, tensor.width, tensor.channels)
        weights = self.rng.random(shape) < self.rng.uniform(0.3, 0.7)
        op = Dense(self.name("dense"), self.last, weights, Raw())
        self.add(replace(op, head=head(self.values(op))))

    def image_layer(self) -> None:
        """As others, with a pool of sums and what reads them now and then."""
        if isinstance(self.tensor, Sums):
            self.binarize()
        if self.chance(0.25):
            self.conv(self.pick(0, 0, *_WIDTHS[::2]), lambda _: Raw())
            self.pool()
            return
        if self.chance(0.2):
            self.conv(0, self.threshold)
        super().image_layer()

    def geometry(self, tensor: Any, same: bool = False) -> dict[str, Any] | None:
        found = super().geometry(tensor, same)
        if found is not None and isinstance(tensor, Bits):
            found["pad_value"] *= tensor.levels
        return found
