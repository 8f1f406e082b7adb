"""The tree of filters that ``conv_tree`` goes by: how each is made from another one.

A value is ``u * (x - b)`` and a number, where u is +1 or -1 for each tap; :mod:`.conv_tree` says of
what. The edges of a minimum spanning tree over them differ in as few taps as can be.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn.ir import Conv, Levels, Threshold

Vector = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Value:
    """A value: its ``u``, what it has beside u * (x - b), and the output that it is for.

    ``sign`` is s; the total, the sum of all taps, is for none.
    """

    u: Vector
    constant: int
    output: int
    sign: int

    @property
    def name(self) -> str:
        """For comments."""
        if self.output < 0:
            return "all taps"
        return f"output {self.output}{', inverted' if self.sign < 0 else ''}"

    def to(self, other: "Value") -> tuple[int, bool, int]:
        """What it costs to make the other one of it: taps, then a number that is not small."""
        number = abs(other.constant - self.constant)
        return int((self.u != other.u).sum()), number > 255, number


@dataclass(slots=True)
class Node:
    """A value in the tree and what is made of it; ``levels`` is how many there are at a time."""

    value: Value
    parent: "Node | None"
    children: list["Node"]
    levels: int = 0

    @property
    def equal(self) -> bool:
        """Whether it is its parent's value, and not just the total."""
        above = self.parent
        return (
            above is not None and above.parent is not None and not any(above.value.to(self.value))
        )

    def arrange(self) -> None:
        """Has the child that takes most values last, because it may take its parent's place."""
        for child in self.children:
            child.arrange()
        self.children.sort(key=lambda child: child.levels)
        kept = max((1 + child.levels for child in self.children[:-1] if not child.equal), default=0)
        self.levels = max(1, kept, *(child.levels for child in self.children[-1:]))


def limits(op: Conv, largest: int) -> Vector:
    """(levels, outputs) thresholds in rising order, one for bits; ``largest`` is the largest input.

    Those that all dots reach, or none, are the least of their kind: so no dot is farther from one
    than the largest and the least dot are from each other, and 1.
    """
    assert isinstance(op.head, Threshold | Levels)
    w = op.weights.reshape(len(op.weights), -1)
    low, high = -largest * (~w).sum(axis=1), largest * w.sum(axis=1)
    least = np.atleast_2d(op.head.min_dot).astype(np.int64)
    return np.sort(np.clip(least, low, high + 1), axis=0)


def _values(op: Conv, least: int, output: int) -> tuple[Value, Value]:
    """The two values that are good for an output, by its threshold ``least``."""
    w = np.where(op.weights[output].ravel(), 1, -1).astype(np.int64)
    pads = op.pad_value * int(w.sum())
    return (
        Value(w, 2**15 + pads - least, output, 1),
        Value(-w, 2**15 - pads + least - 1, output, -1),
    )


def spanning_tree(op: Conv, largest: int, outputs: range) -> Node:
    """The minimum spanning tree over the total and ``outputs``, by Prim's algorithm.

    Of several thresholds the values have the one in the middle.
    """
    taps = op.weights[0].size
    added = root = Node(Value(np.ones(taps, np.int64), taps * op.pad_value, -1, 1), None, [])
    thresholds = limits(op, largest)
    middle = thresholds[len(thresholds) // 2]
    left = {output: _values(op, int(middle[output]), output) for output in outputs}
    best: dict[int, tuple[tuple[int, bool, int], Node, Value]] = {}
    while left:
        for output, values in left.items():
            for value in values:
                price = added.value.to(value)
                if output not in best or price < best[output][0]:
                    best[output] = price, added, value
        output = min(left, key=lambda one: best[one][0])
        _, parent, value = best[output]
        added = Node(value, parent, [])
        parent.children.append(added)
        del left[output]
    root.arrange()
    return root


def in_order(node: Node, level: int) -> Iterator[tuple[Node, int, int]]:
    """What is made of ``node``, before what is made of that: with its level and its parent's."""
    for number, child in enumerate(node.children):
        own = level
        if node.parent is not None and number < len(node.children) - 1 and not child.equal:
            own += 1
        yield child, own, level
        yield from in_order(child, own)
