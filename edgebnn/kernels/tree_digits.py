"""Digits of how many thresholds a value reaches, of which ``conv_tree`` makes planes of bits.

A dot that reaches a threshold reaches all below it. So digit p of their number is the XOR of every
``2**p``-th of the bits that say so, and has all those of which the digit above is the XOR.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from edgebnn.ir import Bits
from edgebnn.kernels.filter_tree import Value

BOTH = 0x10001  # times a number: in both halves of a word


@dataclass(frozen=True, slots=True)
class Reached:
    """Whether a threshold is reached: bit 15 of the filter's values with a number in both halves.

    The number is added or taken away by ``sign``; "" where it is 0.
    """

    sign: str
    number: int


@dataclass(frozen=True, slots=True)
class Digit:
    """Bit 15 of each half of ``value`` is a digit of how many thresholds are reached.

    With a ``name`` the value is a variable, ``origin``, another digit or "", XOR what is
    ``reached``. ``assign`` is how its bits are put to ``lanes``.
    """

    name: str
    origin: str
    reached: tuple[Reached, ...]
    value: str
    lanes: str
    assign: str

    @property
    def single(self) -> bool:
        """Whether it says of one threshold that it is reached, and nothing else."""
        return not self.origin and len(self.reached) == 1


@dataclass(frozen=True, slots=True)
class Plane:
    """A plane of the result: how names end that it has, its digit, and how far it is from out."""

    name: str
    digit: int
    place: int


def planes_of(result: Bits, apart: int) -> tuple[Plane, ...]:
    """Those of ``result``, ``apart`` words from each other, the highest first."""
    if result.planes == 1:
        return (Plane("", 0, 0),)
    return tuple(Plane(str(p), p, p * apart) for p in reversed(range(result.planes)))


def number_in_both(number: int) -> tuple[str, int]:
    """The sign of a number, "" if it is 0, and its magnitude in both halves."""
    return "" if number == 0 else "+" if number > 0 else "-", abs(number) * BOTH


def numbers_of(value: Value, thresholds: list[int]) -> list[int]:
    """What to add to a filter's value for each of its thresholds, in rising order."""
    middle = thresholds[len(thresholds) // 2]
    return [value.sign * (middle - one) for one in thresholds]


def digits_of(
    value: str,
    numbers: list[int],
    planes: tuple[Plane, ...],
    joined: bool,
    lanes: str,
    assign: str,
) -> Iterable[Digit]:
    """The digits of how many thresholds are reached, the highest first.

    ``value`` is that of the threshold in the middle; if two rows are ``joined`` for it, and there
    are more digits, it is a variable. Equal thresholds have equal bits, whose XOR is 0.
    """
    above: set[int] = set()
    for plane in planes:
        step = 2**plane.digit
        reached = {one for one, often in Counter(numbers[step - 1 :: step]).items() if often % 2}
        name, origin, wanted = "", "", reached
        if above and len(reached ^ above) < len(reached):
            origin, wanted = value, reached ^ above
        if wanted and (above or joined) and len(planes) > 1:
            name = value = f"digit{plane.digit}"
        yield Digit(
            name=name,
            origin=origin,
            reached=tuple(Reached(*number_in_both(one)) for one in sorted(wanted)) if name else (),
            value=value,
            lanes=f"{lanes}{plane.name}",
            assign=assign,
        )
        above = reached
