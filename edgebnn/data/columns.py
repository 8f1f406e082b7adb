"""Columns of numbers as bytes, in integers: the same on every computer and device.

A number x of a column becomes ``t = floor(x * 2**shift)``, but no less than ``low`` and no more
than ``high``, and then the byte ``((t - low) * factor + 2**23) >> 24``, where ``factor`` is
``255 * 2**24 / (high - low)``, rounded. Every product fits 32 bits without a sign. Multiplying by a
power of two rounds nothing, so no compiler and no order of operations changes a byte.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.errors import EdgebnnError
from edgebnn.wording import counted

Bytes = NDArray[np.uint8]
_SPAN_BITS = 15  # of high - low, so that a byte is off by 1/64 of its step at most
_MOST_BITS = 30  # of low and high, so that they are an int32_t
_SHIFTS = (-1030, 1030)


@dataclass(frozen=True, slots=True)
class Column:
    """How the numbers of one column become bytes; see the head of this module.

    ``name`` is "" where the column has none.
    """

    name: str
    shift: int
    low: int
    high: int

    def __post_init__(self) -> None:
        numbers = (self.shift, self.low, self.high)
        if not isinstance(self.name, str) or any(type(number) is not int for number in numbers):
            raise EdgebnnError("a column is a name and three whole numbers: shift, low, high")
        limit = 2**_MOST_BITS
        fits = -limit <= self.low <= self.high <= limit and self.high - self.low <= 2**16
        if not (fits and _SHIFTS[0] <= self.shift <= _SHIFTS[1]):
            raise EdgebnnError(f"column '{self.name}' cannot have {numbers} as shift, low and high")

    @property
    def factor(self) -> int:
        span = self.high - self.low
        return (255 * 2**25 + span) // (2 * span) if span else 0

    def to_bytes(self, values: NDArray[Any]) -> Bytes:
        """Numbers, finite, of any real type and shape, as bytes."""
        with np.errstate(over="ignore", under="ignore"):
            scaled = np.floor(np.ldexp(values.astype(np.float64), self.shift))
        offset = np.clip(scaled, self.low, self.high).astype(np.int64) - self.low
        return ((offset * self.factor + 2**23) >> 24).astype(np.uint8)


def fit(name: str, values: NDArray[Any]) -> Column:
    """The column whose bytes 0 and 255 are the least and the greatest of finite ``values``."""
    numbers = values.astype(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    shift = min(
        _SPAN_BITS - math.frexp(high - low)[1] if math.isfinite(high - low) else _SHIFTS[0] + 20,
        _MOST_BITS - math.frexp(max(abs(low), abs(high)))[1],
    )
    shift = min(max(shift, _SHIFTS[0]), _SHIFTS[1])
    return Column(
        name, shift, math.floor(math.ldexp(low, shift)), math.floor(math.ldexp(high, shift))
    )


def as_bytes(
    source: object,
    parts: Sequence[NDArray[Any]],
    names: Sequence[str],
    known: Sequence[Column] | None,
) -> tuple[list[Bytes], tuple[Column, ...]]:
    """Tables ``(N, F)`` as images ``(N, F, 1, 1)`` of bytes, and how their columns became those.

    Numbers that are all whole and from 0 to 255 stay as they are, without any column. Else every
    column goes from the least to the greatest value that it has in the first part.

    Args:
        parts: the table to train on, and that to test on where there is one; real and finite.
        names: one a column, "" where there is none.
        known: the columns of a model, to be used instead; none if it takes numbers as they are.

    Raises:
        EdgebnnError: the tables are not what a model with ``known`` columns takes.
    """
    bytes_already = all(
        part.dtype == np.uint8
        or (part.min() >= 0 and part.max() <= 255 and (part == np.floor(part)).all())
        for part in parts
    )
    if known is None:
        known = [] if bytes_already else list(map(fit, names, parts[0].T))
    elif known and len(known) != len(names):
        raise EdgebnnError(
            f"{source} has {counted(len(names), 'column')}; the model takes {len(known)}"
        )
    elif not known and not bytes_already:
        raise EdgebnnError(
            f"{source} has other numbers than 0 to 255, and the model was trained on none; name "
            "the right data"
        )
    for place, (column, name) in enumerate(zip(known, names, strict=False), 1):
        if name and column.name and name != column.name:
            raise EdgebnnError(
                f"{source}: column {place} is '{name}', where the model takes '{column.name}'; "
                "give the columns of its training, in their order"
            )
    images = []
    for part in parts:
        table = np.empty((*part.shape, 1, 1), dtype=np.uint8)
        table[:, :, 0, 0] = part if not known else 0
        for place, column in enumerate(known):
            table[:, place, 0, 0] = column.to_bytes(part[:, place])
        images.append(table)
    return images, tuple(known)
