"""Networks of one layer of interest each, over shapes that straddle words: kernels by enumeration.

A case is built as plain IR values. In front of its layer stands as little as can feed it any bits
or sums, behind it as little as can see each of them, and thresholds are taken from dots that its
own inputs give, so that ties happen. Nothing here is random from run to run.

All cases go into one library, as :mod:`batches` has it.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import product
from typing import Any
from unittest import mock

import batches
import jinja2
import numpy as np
from numpy.typing import NDArray

from edgebnn import reference
from edgebnn.codegen import c, env
from edgebnn.codegen.library import Library
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
    Levels,
    MaxPool,
    Network,
    Op,
    Quantize,
    Raw,
    Score,
    Scores,
    Sums,
    Tensor,
    Threshold,
    tensors,
)
from edgebnn.plan import Plan, plan
from edgebnn.targets import Target, get_target
from edgebnn.targets.base import Cpu

WIDTHS = (1, 2, 3, 31, 32, 33, 63, 64, 65)
BYTES = (7, 8, 9, 16)  # beside 1, 2 and 3, what words of 8 bits straddle
KERNELS = ((1, 1), (1, 3), (3, 1), (3, 3), (2, 4), (5, 5))
STRIDES = ((1, 1), (2, 1), (1, 2), (3, 2), (2, 3))
_EQUAL = ((0, 0), (1, 1), (0, 2), (2, 0), (1, 0), (0, 1), (2, 1), (2, 2))
_UNEQUAL = ((0, 1, 0, 1), (1, 0, 0, 0), (0, 0, 1, 2), (0, 2, 0, 0))
PADDINGS = (*((y, y, x, x) for y, x in _EQUAL), *_UNEQUAL)  # top, bottom, left, right
DELTA_KERNELS = ((2, 1), (3, 1), (3, 3), (3, 3), (2, 4), (5, 5), (7, 7), (4, 3))
DELTA_PADDINGS = (
    *((0, 0, 0, 0), (1, 1, 1, 1), (1, 1, 1, 1), (2, 2, 2, 2), (1, 1, 0, 0), (0, 0, 1, 1)),
    *((0, 1, 0, 1), (1, 0, 0, 0), (0, 0, 1, 2), (0, 2, 0, 0), (3, 3, 3, 3), (6, 5, 0, 6)),
)
POOLS = ((1, 1), (1, 1), (2, 2), (2, 2), (1, 2), (2, 1), (3, 2))
PLACES = ((1, 1), (3, 2), (1, 3), (2, 2), (3, 1))
PAD_VALUES = (-1, 0, 1)
FORMS = ("plain", "offset", "shift", "shifts", "zero", "all zero", "factors", "wide")
MASKS = ("none", "some", "all")
LEVELS = {"levels 3": 3, "levels 7": 7}  # heads that make activations of 2 and of 3 planes
WAYS_OF_WORDS = ("bit_planes", "columns", "digit_columns", "masks", "tree")  # of 32 bits
LANES = ("lanes",)  # for what compilers make vectors of
UNMOVED: dict[str, Any] = {"stride": (1, 1), "padding": (0, 0, 0, 0)}
#: This computer, whose compiler makes vectors.
WIDE = get_target("host")
#: This computer as a CPU of which nothing is known but its words of 32 bits.
PLAIN = replace(WIDE, name="plain", cpu=replace(WIDE.cpu, features=frozenset({"mul"})))
#: This computer as a CPU with words of 8 bits, addresses of 16, and no multiplication of 32.
NARROW = replace(
    WIDE,
    name="narrow",
    cpu=Cpu("8-bit words", arch="host", word_bits=8, index="uint16_t"),
)

_SEEN = 8  # rows of the layer that looks at all bits


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One network, whose op of interest is called "layer", and all that it is run on."""

    label: str
    network: Network
    inputs: NDArray[np.uint8]  # (N, input bytes)
    prefer: tuple[str, ...] = ()


def hostile_inputs(shape: Ints, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Nothing, all, in turns, each bit alone, one input alone and missing, ramps and noise."""
    size, top = shape.height * shape.width * shape.channels, 2**shape.bits - 1
    place = np.arange(size)
    rows = [0 * place, 0 * place + top, place % 2 * top, (place + 1) % 2 * top]
    rows += [0 * place + (1 << bit) for bit in range(shape.bits if top > 1 else 0)]
    for alone in sorted({0, size - 1, min(31, size - 1), min(32, size - 1)}):
        rows += [(place == alone) * top, (place != alone) * top]
    rows += [place % (top + 1), *rng.integers(0, top + 1, (4, size))]
    rows += [top * row for row in rng.integers(0, 2, (3, size))]
    return np.array(rows).astype(np.uint8)


class Chain:
    """A network that grows op by op, together with the values that its inputs give."""

    def __init__(self, seed: tuple[int, ...], shape: Ints) -> None:
        self.rng = np.random.default_rng(seed)
        self.network = Network(shape, ())
        self.inputs = hostile_inputs(shape, self.rng)
        self.last = INPUT

    @property
    def tensor(self) -> Tensor:
        return tensors(self.network)[self.last]

    def values(self, name: str) -> NDArray[np.int64]:
        images = reference.check_inputs(self.network, self.inputs)
        return reference.trace(self.network, images)[name]

    def add(self, op: Op) -> str:
        self.network = Network(self.network.input, (*self.network.ops, op))
        self.last = op.name
        return op.name

    def weights(self, *shape: int) -> NDArray[np.bool_]:
        """Random ones; among the rows of many outputs one is all +1 and one all -1."""
        drawn = self.rng.integers(0, 2, shape).astype(bool)
        if len(shape) == 4 and shape[0] > 2:
            drawn[shape[0] // 2], drawn[-1] = True, False
        return drawn

    def minima(self, values: NDArray[np.int64], low: int, high: int) -> NDArray[np.int32]:
        """A limit a channel: a value that is met, or one more; in one channel never, in one always.

        ``low`` and ``high`` are the least and the largest value that could be met.
        """
        seen = values.reshape(-1, values.shape[-1])
        channels = np.arange(seen.shape[1])
        limits = seen[self.rng.integers(0, len(seen), len(channels)), channels]
        limits = limits + (self.rng.random(len(channels)) < 0.3)
        if len(channels) > 2:
            limits[1], limits[-1] = high + 1, low
        return limits.astype(np.int32)

    def head(self, kind: str, op: Dense | Conv | DepthwiseConv) -> Head:
        """The head "threshold", "sums" or a form of scores for ``op``, which comes with Raw()."""
        if kind == "sums":
            return Raw()
        trial = Network(self.network.input, (*self.network.ops, op))
        result = tensors(trial)[op.name]
        assert isinstance(result, Sums)
        if kind == "threshold" or kind in LEVELS:
            images = reference.check_inputs(trial, self.inputs)
            dots = reference.trace(trial, images)[op.name]
            if kind in LEVELS:
                return Levels(self.rising(LEVELS[kind], dots, result.low, result.high))
            return Threshold(self.minima(dots, result.low, result.high))
        return scores(kind, result, self.rng)

    def rising(
        self, levels: int, values: NDArray[np.int64], low: int, high: int
    ) -> NDArray[np.int32]:
        """(levels, channels) minima; those of channel 0 are met always, now and then, and never."""
        minima = np.sort([self.minima(values, low, high) for _ in range(levels)], axis=0)
        if minima.shape[1] > 3:
            minima[0, 0], minima[-1, 0] = low, high + 1
        return minima

    def bits(self) -> None:
        """The input, of one bit, as bits."""
        channels = self.network.input.channels
        ones, none = np.ones(channels, np.int32), np.zeros(channels, bool)
        self.add(Binarize("feed", INPUT, ones, none))

    def levels(self) -> None:
        """The input, of 2 or 3 bits, as levels: an integer is how many thresholds it reaches."""
        shape = self.network.input
        minimum = np.repeat(np.arange(1, 2**shape.bits, dtype=np.int32), shape.channels)
        minimum = minimum.reshape(-1, shape.channels)
        self.add(Quantize("feed", INPUT, minimum, np.zeros(shape.channels, bool)))

    def quantize(self, name: str, levels: int, mask: str, each: bool) -> str:
        """As :meth:`binarize`, by as many minima as there are levels."""
        source, tensor = self.last, self.tensor
        assert isinstance(tensor, Ints | Sums)
        ends = (0, 2**tensor.bits - 1) if isinstance(tensor, Ints) else (tensor.low, tensor.high)
        values = self.values(source)
        shape = values.shape[1:] if each else values.shape[3:]
        minima = self.rising(levels, values.reshape(-1, np.prod(shape)), *ends)
        inverted = self.mask(mask, minima.shape[1]).reshape(shape)
        return self.add(Quantize(name, source, minima.reshape(levels, *shape), inverted))

    def binarize(self, name: str, mask: str = "none", each: bool = False) -> str:
        """Of ``each`` pixel by minima and a mask of its own."""
        source, tensor = self.last, self.tensor
        assert isinstance(tensor, Ints | Sums)
        ends = (0, 2**tensor.bits - 1) if isinstance(tensor, Ints) else (tensor.low, tensor.high)
        values = self.values(source)
        if not each:
            minima = self.minima(values, *ends)
            return self.add(Binarize(name, source, minima, self.mask(mask, tensor.channels)))
        shape = values.shape[1:]
        minima = self.minima(values.reshape(len(values), -1), *ends).reshape(shape)
        return self.add(Binarize(name, source, minima, self.mask(mask, minima.size).reshape(shape)))

    def mask(self, kind: str, channels: int) -> NDArray[np.bool_]:
        """Of no, some or all channels."""
        if kind == "some":
            return np.array(self.rng.permutation(np.arange(channels) % 3 == 0))
        return np.full(channels, kind == "all")

    def see(self) -> None:
        """Ends the network in scores that differ if any bit, or about any sum, does."""
        tensor = self.tensor
        if isinstance(tensor, Sums) and tensor.height * tensor.width == 1:
            self.add(Score("seen", self.last, scores("plain", tensor, self.rng)))
            return
        if isinstance(tensor, Sums):
            self.binarize("signs")
            tensor = self.tensor
        if isinstance(tensor, Bits):
            shape = (_SEEN, tensor.height, tensor.width, tensor.channels)
            head = Scores(np.ones(_SEEN, np.int32), np.zeros(_SEEN, np.int32), 0)
            self.add(Dense("seen", self.last, self.rng.integers(0, 2, shape).astype(bool), head))

    def case(self, label: str, prefer: tuple[str, ...] = ()) -> Case:
        self.see()
        return Case(label, self.network, self.inputs, prefer)


def scores(form: str, dots: Sums, rng: np.random.Generator) -> Scores:
    """A head of :data:`FORMS` for ``dots``; no score leaves 32 bits."""
    n = dots.channels
    factor, offset = np.ones(n, np.int64), rng.integers(-(2**14), 2**14, n)
    match form:
        case "plain":
            offset = 0 * offset
        case "offset":
            offset[-1] = -1
        case "shift":
            factor <<= 5
        case "shifts":
            factor <<= rng.permutation(n) % 7
        case "zero":
            factor = (factor << (np.arange(n) % 6)) * (np.arange(n) % 3 != 1)
        case "all zero":
            factor *= 0
        case "factors":
            factor = rng.integers(-1000, 1000, n) | 1
        case "wide":
            most = min(2**20, (2**31 - 2**22) // dots.high)
            factor = rng.integers(most // 2, most, n)
            factor[0] = most
            factor[::2] *= -1
            offset = rng.integers(2**20, 2**21, n)
            offset[::3] *= -1
    return Scores(factor.astype(np.int32), offset.astype(np.int32), 4 if form != "plain" else 0)


# --- the enumeration ------------------------------------------------------------------------------


def spread(count: int, seed: int, **axes: Sequence[Any]) -> Iterator[dict[str, Any]]:
    """``count`` rows that meet every value of every axis, as long as no axis is longer."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name, values in axes.items():
        assert len(values) <= count, f"{count} rows do not meet {len(values)} values of {name}"
        turns = -(-count // len(values))
        picked = [values[i] for _ in range(turns) for i in rng.permutation(len(values))]
        columns[name] = picked[:count]
    for row in zip(*columns.values(), strict=True):
        yield dict(zip(columns, row, strict=True))


def _image(row: dict[str, Any], single: bool) -> tuple[int, int]:
    """Height and width that give the row's number of places; sets them to what is possible."""
    if single:
        row["places"] = (1, 1)
        most = [(kernel - 1) // 2 for kernel in row["kernel"] for _ in range(2)]
        row["padding"] = tuple(map(min, row["padding"], most))
    size = []
    pads = (sum(row["padding"][:2]), sum(row["padding"][2:]))
    for places, kernel, stride, pad in zip(
        row["places"], row["kernel"], row["stride"], pads, strict=True
    ):
        exact = (places - 1) * stride + kernel - pad
        while exact < 1:
            exact += stride
        # Floor mode: up to stride - 1 rows at the end are left over.
        size.append(exact if single else exact + (exact + stride) % stride)
    return size[0], size[1]


HEADS = ("threshold", "threshold", "sums", *FORMS)


def dense_on_ints() -> Iterator[Case]:
    inputs = (*WIDTHS, 4, 5, 127, 128, 129, 255, 256, 257, 289, 512, 521)
    rows = spread(27, 1, inputs=inputs, outputs=WIDTHS, bits=range(1, 9), kind=HEADS)
    for number, row in enumerate(rows):
        yield from _dense_on_ints(number, **row)
    # Sums at both ends of 16 bits, and beyond them.
    for number, (inputs, outputs) in enumerate(((128, 3), (129, 1), (200, 5), (128, 1)), 100):
        yield from _dense_on_ints(number, inputs=inputs, outputs=outputs, bits=8, kind="sums")
    yield from _dense_on_ints(110, inputs=257, outputs=33, bits=8, kind="threshold")
    # Planes of each width of input that end before, with and behind a carry-save tree.
    for number, (bits, inputs) in enumerate(product(range(1, 9), (33, 256, 289)), 200):
        kind = ("threshold", "plain")[number % 2]
        *_, by_planes = _dense_on_ints(number, inputs=inputs, outputs=4, bits=bits, kind=kind)
        yield by_planes


def _dense_on_ints(number: int, inputs: int, outputs: int, bits: int, kind: str) -> Iterator[Case]:
    chain = Chain((1, number), Ints(1, 1, inputs, bits))
    op = Dense("layer", INPUT, chain.weights(outputs, 1, 1, inputs), Raw())
    chain.add(Dense(op.name, INPUT, op.weights, chain.head(kind, op)))
    for way in ("subset_sums", "bit_planes"):
        label = f"dense {inputs} x {bits} bits -> {outputs} {kind}, {way}"
        yield chain.case(label, prefer=(way,))
        chain = _again(chain)


def _again(chain: Chain) -> Chain:
    """The same network before it was ended."""
    ops = tuple(op for op in chain.network.ops if op.name not in ("signs", "seen"))
    chain.network, chain.last = Network(chain.network.input, ops), ops[-1].name
    return chain


def dense_by_digits() -> Iterator[Case]:
    """Thresholds on integers with as many digits of both signs as there can be, and less."""
    inputs = (*WIDTHS, 4, 5, 30, 34, 95, 96, 97, 127, 128, 129, 255, 256, 257, 289, 512, 521)
    outputs = (*WIDTHS, 100, *WIDTHS, 34, 96)
    for number, row in enumerate(spread(26, 14, inputs=inputs, outputs=outputs, bits=range(1, 9))):
        yield _dense_by_digits(number, **row)
    # Lists that are full several times a digit, with sums above them that grow more and less.
    sizes = ((784, 256, 8), (1000, 33, 8), (784, 65, 3), (1000, 1, 7), (33, 1000, 8), (1, 1000, 2))
    for number, (count, wide, bits) in enumerate(sizes, 100):
        yield _dense_by_digits(number, count, wide, bits)
    for number, one in enumerate((False, True), 200):  # weights of one sign: sums at both ends
        yield _dense_by_digits(number, 300, 33, 8, one)


def _dense_by_digits(
    number: int, inputs: int, outputs: int, bits: int, only: bool | None = None
) -> Case:
    chain = Chain((14, number), Ints(1, 1, inputs, bits))
    top = 2**bits - 1
    # 1, 0, 1, 0 and so on has the most digits of +1, 1, 0, 1, 0, 1, 1 those of -1.
    most = [0x55 & top, 0xAA & top, 0xAB & top, (0x55 & top >> 1) + 1]
    rows = [np.full(inputs, value) for value in most]
    rows += [chain.rng.choice(most, inputs), chain.rng.choice([*most, 0, top], inputs)]
    for eighths in (1, 3, 5, 7):
        some = chain.rng.permutation(inputs) < inputs * eighths // 8
        rows.append(some * chain.rng.integers(0, top + 1, inputs))
    chain.inputs = np.concatenate([chain.inputs, np.array(rows).astype(np.uint8)])
    weights = chain.weights(outputs, 1, 1, inputs)
    if only is not None:
        weights[:] = only
    head = chain.head("threshold", Dense("layer", INPUT, weights, Raw()))
    chain.add(Dense("layer", INPUT, weights, head))
    label = f"dense {inputs} x {bits} bits -> {outputs} threshold, digits"
    return chain.case(label, prefer=("digit_columns",))


def dense_on_bits() -> Iterator[Case]:
    inputs = (*WIDTHS, 127, 255, 256, 257, 511, 512, 513, 545)
    for number, row in enumerate(spread(22, 2, inputs=inputs, outputs=WIDTHS, kind=HEADS)):
        chain = Chain((2, number), Ints(1, 1, row["inputs"], 1))
        chain.bits()
        _add_dense(chain, row["outputs"], row["kind"])
        label = f"dense {row['inputs']} bits -> {row['outputs']} {row['kind']}, rows"
        yield chain.case(label, prefer=("rows",))
    for number, size in enumerate(((2, 3, 33), (3, 1, 64)), 100):
        chain = Chain((2, number), Ints(*size, 1))
        chain.bits()
        _add_dense(chain, 5, "threshold")
        yield chain.case(f"dense {size} bits -> 5 threshold")
    # Dots of 32 bits: more bits than an input would have, most of them from padding.
    for number, outputs in enumerate((1, 3), 110):
        chain = Chain((2, number), Ints(1, 1, 4, 1))
        chain.bits()
        grow = Conv("grow", "feed", chain.weights(35, 1, 1, 4), (1, 1), (15, 15, 15, 15), 1, Raw())
        head = chain.head("threshold", grow)
        chain.add(Conv("grow", "feed", grow.weights, (1, 1), (15, 15, 15, 15), 1, head))
        _add_dense(chain, outputs, "sums")
        yield chain.case(f"dense 33635 bits -> {outputs} sums")


def dense_by_columns() -> Iterator[Case]:
    """Thresholds on bits of every density, at both sides of what half of them are."""
    inputs = (*WIDTHS, 5, 6, 7, 8, 9, 15, 16, 17, 127, 128, 255, 256, 257, 1000)
    outputs = (*WIDTHS, 100, 1000, *WIDTHS, 34, 96)
    for number, row in enumerate(spread(23, 11, inputs=inputs, outputs=outputs)):
        yield _dense_by_columns(number, (1, 1, row["inputs"]), row["outputs"])
    # Pixels of whole words and of words with a tail, one and more of each.
    sizes = ((2, 3, 33), (3, 1, 64), (5, 5, 1), (2, 2, 31), (1, 3, 65), (3, 3, 32), (7, 1, 3))
    for number, size in enumerate(sizes, 100):
        yield _dense_by_columns(number, size, WIDTHS[-1 - number % 3])
    for number, one in enumerate((False, True), 200):  # weights of one sign: sums at both ends
        yield _dense_by_columns(number, (1, 1, 40), 33, one)


def _dense_by_columns(
    number: int,
    size: tuple[int, int, int],
    outputs: int,
    only: bool | None = None,
    way: str = "columns",
) -> Case:
    chain = Chain((11, number), Ints(*size, 1))
    count = chain.inputs.shape[1]
    some = {count * eighths // 8 for eighths in range(9)}
    some |= {max(count // 2 + more, 0) for more in (-1, 0, 1, 2) if count // 2 + more <= count}
    rows = [chain.rng.permutation(count) < ones for ones in sorted(some)]
    chain.inputs = np.concatenate([chain.inputs, np.array(rows).astype(np.uint8)])
    chain.bits()
    weights = chain.weights(outputs, *size)
    if only is not None:
        weights[:] = only
    head = chain.head("threshold", Dense("layer", chain.last, weights, Raw()))
    chain.add(Dense("layer", chain.last, weights, head))
    return chain.case(f"dense {size} bits -> {outputs} threshold, {way}", prefer=(way,))


def masked_layers() -> Iterator[Case]:
    """Thresholds on bits, in blocks of 16 columns: one and more, with and without a tail."""
    inputs = (*WIDTHS, 15, 16, 17, 48, 257, 1000)
    for number, row in enumerate(spread(15, 40, inputs=inputs, outputs=WIDTHS)):
        yield _dense_by_columns(400 + number, (1, 1, row["inputs"]), row["outputs"], way="masks")
    # Pixels of each width of words; weights of one sign, whose sums are at both ends.
    for number, size in enumerate(((5, 5, 1), (2, 2, 33), (3, 2, 16), (1, 3, 48), (2, 3, 40))):
        yield _dense_by_columns(420 + number, size, 33, number % 2 > 0, "masks")
    axes: dict[str, Sequence[Any]] = {
        "channels": (*WIDTHS, 16, 40, 48, 31, 33),
        "outputs": (*WIDTHS, 16, 40, 48, 24, 96),
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": (*PADDINGS, (1, 1, 1, 1)),
        "places": PLACES,
    }
    for number, row in enumerate(spread(16, 41, **axes)):
        height, width = _image(row, False)
        chain = Chain((41, number), Ints(height, width, row["channels"], 1))
        chain.bits()
        _add_conv(chain, row | {"kind": "threshold"}, (-1, 1)[number % 2])
        yield chain.case(f"conv by masked columns: {_window_label(row)}", prefer=("masks",))


def _add_dense(chain: Chain, outputs: int, kind: str, name: str = "layer") -> None:
    source, tensor = chain.last, chain.tensor
    assert isinstance(tensor, Bits | Ints | Sums)
    weights = chain.weights(outputs, tensor.height, tensor.width, tensor.channels)
    head = chain.head(kind, Dense(name, source, weights, Raw()))
    chain.add(Dense(name, source, weights, head))


def _add_conv(chain: Chain, row: dict[str, Any], pad_value: int, name: str = "layer") -> None:
    source, tensor = chain.last, chain.tensor
    assert isinstance(tensor, Bits | Ints)
    weights = chain.weights(row["outputs"], *row["kernel"], tensor.channels)
    where = (row["stride"], row["padding"], pad_value)
    head = chain.head(row["kind"], Conv(name, source, weights, *where, Raw()))
    chain.add(Conv(name, source, weights, *where, head))


def _add_depthwise(chain: Chain, row: dict[str, Any], pad_value: int) -> None:
    source, tensor = chain.last, chain.tensor
    assert isinstance(tensor, Bits | Ints)
    weights = chain.weights(*row["kernel"], tensor.channels)
    where = (row["stride"], row["padding"], pad_value)
    head = chain.head(row["kind"], DepthwiseConv("layer", source, weights, *where, Raw()))
    assert isinstance(head, Threshold | Levels | Raw)
    chain.add(DepthwiseConv("layer", source, weights, *where, head))


def _window_label(row: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())


def conv_on_ints() -> Iterator[Case]:
    axes: dict[str, Sequence[Any]] = {
        "channels": WIDTHS,
        "outputs": WIDTHS,
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": PADDINGS,
        "places": PLACES,
        "bits": range(1, 9),
        "kind": (*HEADS, "threshold", "sums"),
    }
    for number, row in enumerate(spread(18, 3, **axes)):
        yield from _conv_on_ints(number, row)
    plain = {**UNMOVED, "bits": 8, "kind": "sums"}
    for number, padding in enumerate(PADDINGS, 50):
        row = {"outputs": 33, "kernel": (3, 3), "stride": (1, 1), "padding": padding}
        row |= {"channels": 2, "bits": 3, "places": (2, 3), "kind": "threshold"}
        yield from _conv_on_ints(number, row)
    # Sums of 32 bits, of one place and of more.
    yield from _conv_on_ints(
        100, {"channels": 65, "outputs": 3, "kernel": (1, 3), "places": (1, 1), **plain}
    )
    yield from _conv_on_ints(
        101, {"channels": 33, "outputs": 33, "kernel": (2, 4), "places": (2, 1), **plain}
    )
    yield from _conv_on_ints(
        102, {"channels": 65, "outputs": 1, "kernel": (1, 3), "places": (1, 2), **plain}
    )


def _conv_on_ints(number: int, row: dict[str, Any]) -> Iterator[Case]:
    height, width = _image(row, row["kind"] in FORMS)
    chain = Chain((3, number), Ints(height, width, row["channels"], row["bits"]))
    _add_conv(chain, row, 0)
    for way in ("subset_sums", "bit_planes"):
        yield chain.case(f"conv {_window_label(row)}, {way}", prefer=(way,))
        chain = _again(chain)


def conv_by_tree() -> Iterator[Case]:
    """Thresholds on integers, with and without a pool, on images that are blank but for a pixel."""
    axes: dict[str, Sequence[Any]] = {
        "channels": (1, 2, 3),
        "outputs": (*WIDTHS, 15, 16, 17, 48, 97),
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": (*PADDINGS, *PADDINGS[1:]),
        "places": PLACES,
        "bits": range(1, 9),
        "pool": (None, (2, 2), (1, 2), (2, 1), (1, 1)),
        "mask": MASKS,
        "blank": (0, 1, 3, 7),  # eighths of the largest input, which a pad is
    }
    for number, row in enumerate(spread(48, 12, **axes)):
        yield _conv_by_tree(number, row)
    # Channels of any number; with one tap filters differ in nothing but a threshold.
    narrow = {"stride": (1, 1), "padding": (0, 0, 1, 1), "places": (2, 3), "mask": "some"}
    for number, row in enumerate(
        spread(9, 13, channels=WIDTHS, outputs=WIDTHS, bits=(1, 2, 3), kernel=((1, 1), (1, 3))), 100
    ):
        pool = (None, (2, 2))[number % 2]
        yield _conv_by_tree(number, row | narrow | {"pool": pool, "blank": number % 8})
    # Signals, in whose images everything lies below each other, and images of one row.
    signals = product((None, (2, 1)), ((1, 1, 0, 0), (0, 2, 0, 0)), ((5, 1), (2, 1)), (1, 33))
    for number, (pool, padding, kernel, outputs) in enumerate(signals, 200):
        row = {"channels": 1 + number % 3, "outputs": outputs, "kernel": kernel, "bits": 8}
        row |= {"stride": (1 + number % 2, 1), "padding": padding, "places": (4, 1), "pool": pool}
        yield _conv_by_tree(number, row | {"mask": "some", "blank": number % 2})
        flat = {"kernel": kernel[::-1], "stride": (1, 1 + number % 2), "places": (1, 4)}
        flat |= {"padding": (*padding[2:], *padding[:2]), "pool": pool and pool[::-1]}
        yield _conv_by_tree(100 + number, row | flat | {"mask": "all", "blank": number % 3})
    # As many taps as there may be, with all weights of one sign among them: sums at both ends.
    for number, (kernel, channels, bits) in enumerate(
        (((8, 16), 1, 8), ((3, 3), 14, 8), ((8, 8), 8, 6)), 400
    ):
        row = {"kernel": kernel, "channels": channels, "bits": bits, "outputs": 4, "mask": "some"}
        row |= {"stride": (1, 1), "padding": (1, 1, 1, 1), "places": (2, 2), "pool": (2, 2)}
        for blank in (0, 3, 8):
            yield _conv_by_tree(10 * number + blank, row | {"blank": blank})
    # Images as they are.
    row = {
        "stride": (1, 1),
        "bits": 8,
        "mask": "some",
        "pool": (2, 2),
        "places": (5, 7),
        "blank": 0,
    }
    for number, (kernel, channels, pad) in enumerate(
        (((3, 3), 1, 1), ((3, 3), 3, 1), ((5, 5), 1, 2))
    ):
        more = {"kernel": kernel, "channels": channels, "padding": (pad,) * 4, "outputs": 32}
        yield _conv_by_tree(500 + number, row | more)


def levels_by_tree() -> Iterator[Case]:
    """The same with several thresholds, in any order, some of which are equal."""
    axes: dict[str, Sequence[Any]] = {
        "channels": (1, 2, 3),
        "outputs": (1, 3, 8, 15, 16, 17, 24, 31, 32, 33, 48),
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": PADDINGS,
        "places": PLACES,
        "bits": range(1, 9),
        "pool": (None, (2, 2), (1, 2), (2, 1)),
        "mask": MASKS,
        "blank": (0, 3, 0),
    }
    for number, row in enumerate(spread(12, 38, **axes), 700):
        yield _conv_by_tree(number, row, f"levels {3 + 4 * (number // 4 % 2)}")
    row = {"channels": 1, "bits": 8, "stride": (1, 1), "mask": "some", "blank": 1}
    image = row | {"kernel": (3, 3), "padding": (1, 1, 1, 1), "places": (3, 5), "pool": (2, 2)}
    yield _conv_by_tree(720, image | {"outputs": 33}, "levels 7")
    signal = row | {"kernel": (5, 1), "padding": (1, 1, 0, 0), "places": (4, 1), "pool": (2, 1)}
    yield _conv_by_tree(721, signal | {"outputs": 40}, "levels 3")
    for number, pool in enumerate((None, (2, 1)), 722):  # a single window, and two
        alone = image | {"places": (1, 1), "pool": pool, "outputs": 5}
        yield _conv_by_tree(number, alone, "levels 3")
    # All thresholds of a layer are the same: no level but the lowest and the highest.
    yield _conv_by_tree(740, image | {"pool": None, "outputs": 1}, "levels 7")
    yield _conv_by_tree(741, image | {"outputs": 1, "mask": "none"}, "levels 3")


def _disorder(minima: NDArray[np.int32]) -> None:
    """(levels, outputs) thresholds: two or all are equal, are never or always met; turned round."""
    minima[1, 1::4] = minima[0, 1::4]
    minima[:-1, 2::4] = minima[-1, 2::4]
    minima[0, 3::4] = minima[-1, 3::4]
    if minima.shape[1] == 1:
        minima[:] = minima[1]
        return
    minima[:, [0, -1]] = -(2**30), 2**30
    minima[-1, 0] = minima[0, -1] = 0
    minima[:] = np.roll(minima, 1, axis=0)


def _conv_by_tree(number: int, row: dict[str, Any], kind: str = "threshold") -> Case:
    pool = row["pool"]
    row = dict(row)
    if pool is not None:  # one place more than it takes, now and then
        row["places"] = tuple(
            places * size + number % size for places, size in zip(row["places"], pool, strict=True)
        )
    label = f"conv {_window_label(row)}, {kind}, tree"
    height, width = _image(row, False)
    chain = Chain((12, number), Ints(height, width, row["channels"], row["bits"]))
    pad = (2 ** row["bits"] - 1) * row["blank"] // 8
    chain.inputs = np.concatenate([chain.inputs, _specks(chain, pad)])
    _add_conv(chain, row | {"kind": kind}, pad)
    (layer,) = chain.network.ops
    assert isinstance(layer, Conv)
    if isinstance(layer.head, Levels):
        _disorder(layer.head.min_dot)
    elif number % 3 == 1:  # thresholds that are further from dots than 16 bits reach
        assert isinstance(layer.head, Threshold)
        layer.head.min_dot[[0, -1]] = -(2**30), 2**30
    if pool is not None:
        mask = chain.mask(row["mask"], row["outputs"])
        chain.add(MaxPool("pool", "layer", pool, pool, mask))
    if number % 3 == 2:  # what leaves other numbers in the memory of the strip
        _add_conv(
            chain, {"outputs": 250, "kernel": (1, 1), "kind": "threshold", **UNMOVED}, 0, "next"
        )
    return chain.case(label, prefer=("tree",))


def _specks(chain: Chain, blank: int) -> NDArray[np.uint8]:
    """Blank images, one as it is, the others but for one input: each of them, or 40 of many."""
    size, top = chain.inputs.shape[1], 2**chain.network.input.bits - 1
    places = chain.rng.permutation(size)[:40]
    images = np.full((1 + len(places), size), blank)
    images[1 + np.arange(len(places)), places] = (blank + 1 + places % top) % (top + 1)
    return images.astype(np.uint8)


def conv_on_bits() -> Iterator[Case]:
    axes: dict[str, Sequence[Any]] = {
        "channels": WIDTHS,
        "outputs": WIDTHS,
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": (*PADDINGS, *PADDINGS[1:]),
        "places": PLACES,
        "kind": (*HEADS, *HEADS[:4]),
    }
    for number, row in enumerate(spread(36, 4, **axes)):
        height, width = _image(row, row["kind"] in FORMS)
        chain = Chain((4, number), Ints(height, width, row["channels"], 1))
        chain.bits()
        _add_conv(chain, row, PAD_VALUES[number % 3])
        label = f"conv on bits {_window_label(row)}, pad {PAD_VALUES[number % 3]}"
        yield chain.case(label, prefer=("rows",))
    # Every pad value against every tail of a pixel's last word.
    for number, (channels, pad) in enumerate(
        ((channels, pad) for channels in (1, 31, 32, 33, 64, 65) for pad in PAD_VALUES), 100
    ):
        row = {"outputs": 3, "kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1)}
        row["kind"] = ("threshold", "sums")[number % 2]
        chain = Chain((4, number), Ints(2, 3, channels, 1))
        chain.bits()
        _add_conv(chain, row, pad)
        yield chain.case(f"conv on 2x3x{channels} bits, pad {pad}", prefer=("rows",))
    # Dots of 32 bits: a window much larger than its image.
    for number, (pad, outputs, width) in enumerate(((0, 1, 1), (1, 2, 2)), 200):
        row = {
            "outputs": outputs,
            "kernel": (33, 33),
            "stride": (1, 1),
            "padding": (16, 16, 16, 16),
        }
        row["kind"] = "sums"
        chain = Chain((4, number), Ints(1, width, 33, 1))
        chain.bits()
        _add_conv(chain, row, pad)
        yield chain.case(f"conv 33x33 on 1x{width}x33 bits, pad {pad}", prefer=("rows",))


def conv_by_columns() -> Iterator[Case]:
    """Windows that go one row down, then others; with and without the pool behind them."""
    axes: dict[str, Sequence[Any]] = {
        "channels": (*WIDTHS, *WIDTHS, 16, 32, 96),
        "outputs": (*WIDTHS, *WIDTHS, 32, 100),
        "kernel": DELTA_KERNELS,
        "stride": ((1, 1), (1, 1), (1, 2), (1, 3)),
        "padding": DELTA_PADDINGS,
        "places": ((2, 1), (2, 3), (4, 2), (5, 5), (7, 3), (6, 4)),
        "pool": POOLS,
        "mask": MASKS,
        "pad": (-1, 1),
        "kind": ("threshold",),
    }
    for number, row in enumerate(spread(42, 12, **axes)):
        yield _conv_by_columns(number, row)
    axes["kernel"] = (*DELTA_KERNELS, (1, 1), (1, 3), (1, 1))
    axes["stride"] = ((1, 1), (2, 1), (2, 2), (3, 2), (1, 3), (5, 5))
    axes["pad"] = (0, 0, -1, 1)
    axes["places"] = ((1, 1), (2, 3), (4, 2), (5, 5), (7, 3), (6, 4))
    for number, row in enumerate(spread(60, 13, **axes), 300):
        yield _conv_by_columns(number, row)
    plain = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1), "kind": "threshold"}
    pooled = {"pool": (2, 2), "mask": "none", "pad": -1}
    for number, (channels, outputs) in enumerate(((32, 64), (64, 33), (3, 32)), 100):
        row = {"channels": channels, "outputs": outputs, "places": (8, 8), **plain, **pooled}
        yield _conv_by_columns(number, row)
    # Weights of one sign, and thresholds at both ends: the widest counters.
    for number, (one, pad) in enumerate(product((False, True), (-1, 0)), 200):
        row = {"channels": 32, "outputs": 33, "places": (6, 3), **plain, **pooled, "pad": pad}
        yield _conv_by_columns(number, row, one)
    # More words of outputs than are added up at once.
    many = ((170, -1, (1, 1)), (250, 1, (1, 1)), (256, 0, (1, 1)), (192, -1, (3, 1)))
    for number, (outputs, pad, stride) in enumerate(many, 400):
        row = {"channels": 5, "outputs": outputs, "places": (3, 2), **plain, **pooled, "pad": pad}
        yield _conv_by_columns(number, row | {"stride": stride, "mask": MASKS[number % 3]})


def _conv_by_columns(number: int, row: dict[str, Any], only: bool | None = None) -> Case:
    kernel, pool = row["kernel"], row["pool"]
    row["padding"] = tuple(
        min(pad, kernel[side // 2] - 1) for side, pad in enumerate(row["padding"])
    )
    if pool != (1, 1):  # and what it drops
        drop = (number % 2 * (pool[0] - 1), number // 2 % 2 * (pool[1] - 1))
        sizes = zip(row["places"], pool, drop, strict=True)
        row["places"] = tuple(places * size + more for places, size, more in sizes)
    label = _window_label(row)
    height, width = _image(row, False)
    bits = row.get("bits", 1)
    chain = Chain((12, number), Ints(height, width, row["channels"], bits))
    lines = _in_lines(chain.rng, height, width, row["channels"]) * (2**bits - 1)
    chain.inputs = np.concatenate([chain.inputs, lines])
    chain.levels() if bits > 1 else chain.bits()
    mask = chain.mask(row["mask"], row["outputs"])
    _add_conv(chain, row, row["pad"] * (2**bits - 1))
    if only is not None:
        op = chain.network.ops[-1]
        assert isinstance(op, Conv)
        weights = np.full_like(op.weights, only)
        most = op.weights[0].size
        limits = np.array([-most, most, *range(-most, most, 2 * most // 31)], np.int32)
        head = Threshold(np.resize(limits, row["outputs"]))
        op = replace(op, weights=weights, head=head)
        chain.network = Network(chain.network.input, (*chain.network.ops[:-1], op))
    if pool != (1, 1) or number % 4 == 0:
        chain.add(MaxPool("pool", "layer", pool, pool, mask))
    return chain.case(f"conv by columns: {label}", prefer=("columns",))


def _in_lines(
    rng: np.random.Generator, height: int, width: int, channels: int
) -> NDArray[np.uint8]:
    """Lines in turns, opposite to the one above, one alone, some lasting; and densities."""
    shape = (height, width, channels)
    lines = np.arange(height)[:, None, None]
    some = rng.integers(0, 2, (1, width, channels))
    images = [lines % 2, (lines + 1) % 2, lines // 2 % 2, some ^ (lines % 2), lines == height // 2]
    images += [lines != height // 2, np.arange(width)[:, None] % 2, np.arange(channels) % 2]
    images += [rng.random(shape) < eighths / 8 for eighths in (1, 3, 5, 7)]
    lasting = rng.random((1, width, channels)) < 0.4
    images.append(lasting ^ (rng.random(shape) < 0.1))
    images.append(np.where(lines < height // 2, rng.random(shape) < 0.9, rng.random(shape) < 0.1))
    return np.array([np.broadcast_to(image, shape).ravel() for image in images]).astype(np.uint8)


def depthwise() -> Iterator[Case]:
    axes: dict[str, Sequence[Any]] = {
        "channels": WIDTHS,
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": PADDINGS,
        "places": PLACES,
        "bits": range(1, 9),
        "kind": ("threshold", "sums"),
    }
    for number, row in enumerate(spread(12, 5, **axes)):
        height, width = _image(row, False)
        chain = Chain((5, number), Ints(height, width, row["channels"], row["bits"]))
        _add_depthwise(chain, row, 0)
        yield chain.case(f"depthwise {_window_label(row)}")
    for number, row in enumerate(spread(27, 6, **(axes | {"bits": (1,)}))):
        height, width = _image(row, False)
        chain = Chain((6, number), Ints(height, width, row["channels"], 1))
        chain.bits()
        _add_depthwise(chain, row, PAD_VALUES[number % 3])
        yield chain.case(f"depthwise on bits {_window_label(row)}, pad {PAD_VALUES[number % 3]}")
    for number, (channels, pad) in enumerate(
        ((channels, pad) for channels in (1, 31, 32, 33, 64, 65) for pad in PAD_VALUES), 100
    ):
        row = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1)}
        row["kind"] = ("threshold", "sums")[number % 2]
        chain = Chain((6, number), Ints(2, 3, channels, 1))
        chain.bits()
        _add_depthwise(chain, row, pad)
        yield chain.case(f"depthwise on 2x3x{channels} bits, pad {pad}")
    # An even number of sums behind a larger source: one too many leaves the arena.
    row = {"kernel": (5, 5), "stride": (1, 1), "padding": (0, 0, 0, 0), "kind": "sums"}
    chain = Chain((6, 190), Ints(5, 5, 34, 1))
    chain.bits()
    _add_depthwise(chain, row, 0)
    yield chain.case("depthwise on 5x5x34 bits")
    # Sums of 32 bits: 129 bytes a tap each, and more taps than a network should have.
    for number, channels in enumerate((1, 3), 200):
        row = {"kernel": (129, 1), **UNMOVED, "kind": "sums"}
        chain = Chain((5, number), Ints(129 + number % 2, 1, channels, 8))
        _add_depthwise(chain, row, 0)
        yield chain.case(f"depthwise 129x1 on {channels} x 8 bits")
    for number, pad in enumerate((0, 1), 210):
        row = {"kernel": (182, 181), "stride": (1, 1), "padding": (91, 91, 90, 90), "kind": "sums"}
        chain = Chain((6, number), Ints(1, 1, 1 + pad, 1))
        chain.bits()
        _add_depthwise(chain, row, pad)
        yield chain.case(f"depthwise 182x181 on {1 + pad} bits, pad {pad}")


def max_pool() -> Iterator[Case]:
    axes: dict[str, Sequence[Any]] = {
        "channels": WIDTHS,
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": ((0, 0, 0, 0),),
        "places": PLACES,
        "mask": MASKS,
    }
    for number, row in enumerate(spread(15, 7, **axes)):
        height, width = _image(row, False)
        chain = Chain((7, number), Ints(height, width, row["channels"], 1))
        chain.bits()
        mask = chain.mask(row["mask"], row["channels"])
        chain.add(MaxPool("layer", "feed", row["kernel"], row["stride"], mask))
        yield chain.case(f"max-pool {_window_label(row)}")


def _sums(seed: tuple[int, ...], pixels: int, channels: int, bits: int) -> Chain:
    """Sums of 16 or 32 bits of every sign and size, ``pixels`` times ``channels`` of them."""
    inputs = 128 if bits == 16 else 140
    chain = Chain(seed, Ints(1, pixels, inputs, 8))
    row = {"outputs": channels, "kernel": (1, 1), **UNMOVED}
    if pixels == 1:
        _add_dense(chain, channels, "sums", "feed")
    else:
        _add_conv(chain, row | {"kind": "sums"}, 0, "feed")
    return chain


def binarize() -> Iterator[Case]:
    axes: dict[str, Sequence[Any]] = {
        "channels": WIDTHS,
        "pixels": (1, 2, 1, 3),
        "bits": (*range(1, 9), 16, 32, 16, 32, 16, 32),
        "mask": MASKS,
    }
    common = enumerate(spread(27, 8, **axes))
    own = enumerate(spread(21, 15, **axes | {"pixels": (1, 2, 3)}), 100)
    for number, row in (*common, *own):
        pixels, channels, each = row["pixels"], row["channels"], number >= 100
        if row["bits"] > 8:
            chain = _sums((8, number), pixels, channels, row["bits"])
        else:
            chain = Chain((8, number), Ints(1, pixels, channels, row["bits"]))
        chain.binarize("layer", row["mask"], each)
        yield chain.case(f"binarize {_window_label(row)}{', each pixel' if each else ''}")


def add() -> Iterator[Case]:
    """All widths of sums, over what is read again later and what is not."""
    sizes = ((16, 16, 16), (16, 16, 32), (16, 32, 32), (32, 16, 32), (32, 32, 32))
    odd, even = (1, 3, 31, 33, 63, 65), (2, 32, 64)
    for number, (bits, pixels, widths) in enumerate(product(sizes, (1, 2), (odd, even))):
        again = ("", "source", "other", "both")[(number + number // 4) % 4]
        yield _add((9, number), widths[number // 2 % len(widths)], pixels, bits, again)
    chain = Chain((9, 100), Ints(1, 1, 60, 8))
    _add_dense(chain, 33, "sums", "feed")
    chain.add(Add("layer", "feed", "feed"))
    yield chain.case("add 33 sums to themselves")


def _add(
    seed: tuple[int, ...], channels: int, pixels: int, bits: tuple[int, int, int], again: str
) -> Case:
    # 60 bytes stay in 16 bits when doubled, 128 do not, and 140 do not as they are.
    inputs = 60 if bits[2] == 16 else 128 if max(bits[:2]) == 16 else 140
    chain = Chain(seed, Ints(1, pixels, inputs, 8))
    row = {"outputs": channels, "kernel": (1, 1), "kind": "sums"}
    for name, width in zip(("source", "other"), bits[:2], strict=True):
        chain.last = INPUT
        # Sums of bits: 140 at most. Beside others of 60 bytes, so that a lowest bit differs.
        if width == 16 and (inputs == 140 or (inputs == 60 and name == "other")):
            chain.binarize(f"{name}_bits")
        _add_conv(chain, row | UNMOVED, 0, name)
    chain.add(Add("layer", "source", "other"))
    if again:
        second = "other" if again == "both" else again
        chain.add(Add("more", "layer", second))
        if again == "both":
            chain.add(Add("most", "source", "more"))
    return chain.case(f"add {channels} x {pixels} of {bits}, read again: {again or 'none'}")


def score() -> Iterator[Case]:
    for number, (form, bits) in enumerate(product(FORMS, (16, 32))):
        channels = WIDTHS[(2 * number + 3) % len(WIDTHS)]
        chain = _sums((10, number), 1, channels, bits)
        tensor = chain.tensor
        assert isinstance(tensor, Sums)
        chain.add(Score("layer", "feed", scores(form, tensor, chain.rng)))
        yield chain.case(f"score {channels} sums of {bits} bits: {form}")


def around_bytes() -> Iterator[Case]:
    """Every kernel with channels and outputs of about one byte, every pad value and mask."""
    window = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1)}
    for number, (n, pad) in enumerate(product(BYTES, PAD_VALUES)):
        kind, other = HEADS[number % len(HEADS)], ("sums", "threshold")[number % 2]
        yield from _dense_on_ints(1000 + number, inputs=n, outputs=n, bits=8, kind=kind)
        yield from _dense_on_ints(1100 + number, inputs=11 + n, outputs=n, bits=7, kind=other)
        bits = 8 - number % 2
        row = {"channels": n, "outputs": n, "places": (2, 3), "bits": bits, "kind": other}
        yield from _conv_on_ints(1000 + number, row | window)
        for outputs, kind in ((n, "threshold"), (3, "sums")):
            chain = Chain((4, 1000 + 10 * number + outputs), Ints(2, 3, n, 1))
            chain.bits()
            _add_conv(chain, window | {"outputs": outputs, "kind": kind}, pad)
            yield chain.case(f"conv on 2x3x{n} bits -> {outputs} {kind}, pad {pad}")
        for kind in ("threshold", "sums"):
            chain = Chain((6, 1000 + 2 * number + (kind == "sums")), Ints(2, 3, n, 1))
            chain.bits()
            _add_depthwise(chain, window | {"kind": kind}, pad)
            yield chain.case(f"depthwise on 2x3x{n} bits {kind}, pad {pad}")
        chain = Chain((5, 1000 + number), Ints(2, 3, n, 8))
        _add_depthwise(chain, window | {"kind": other}, 0)
        yield chain.case(f"depthwise on 2x3x{n} integers {other}")
        chain = Chain((2, 1000 + number), Ints(1, 1, 8 * n + pad, 1))
        chain.bits()
        _add_dense(chain, n, other)
        yield chain.case(f"dense {8 * n + pad} bits -> {n} {other}")
        mask = MASKS[number % 3]
        chain = Chain((7, 1000 + number), Ints(3, 4, n, 1))
        chain.bits()
        chain.add(MaxPool("layer", "feed", (2, 2), (1, 2), chain.mask(mask, n)))
        yield chain.case(f"max-pool 2x2 of {n} channels, mask {mask}")
        chain = Chain((8, 1000 + number), Ints(1, 2, n, 8))
        chain.binarize("layer", mask)
        yield chain.case(f"binarize 2 x {n} integers, mask {mask}")


def narrow_words() -> Iterator[Case]:
    """Pixels of several words of 8 bits, and of 16: with what a row of all pixels has of a tail."""
    window = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1), "places": (3, 3)}
    pairs = ((24, 24), (48, 48), (20, 44), (40, 24), (12, 49), (5, 24))
    for number, bits in enumerate((1, 2)):  # a tail where something else has been before
        chain = Chain((36, number), Ints(4, 4, 20, bits))
        chain.bits() if bits == 1 else chain.levels()
        kind = ("threshold", "levels 3")[number]
        _add_conv(chain, {"outputs": 20, "kernel": (1, 1), "kind": kind, **UNMOVED}, 0, "mid")
        chain.add(MaxPool("layer", "mid", (2, 2), (1, 1), chain.mask("some", 20)))
        yield chain.case(f"max-pool of 4x4x20 x {bits} bits over what was before")
        for way in ("rows", *LANES)[: 3 - bits]:
            chain = Chain((37, number), Ints(6, 6, 20, bits))
            chain.bits() if bits == 1 else chain.levels()
            chain.add(MaxPool("mid", chain.last, (2, 2), (2, 2), chain.mask("some", 20)))
            _add_conv(chain, window | {"outputs": 20, "kind": kind}, 0)
            label = f"conv on 3x3x20 x {bits} bits, a window over what was before, {way}"
            yield chain.case(label, (way,) if bits == 1 else ())
    for number, (channels, outputs) in enumerate(pairs):
        pad, kind = PAD_VALUES[number % 3], ("threshold", "levels 3")[number % 2]
        row = window | {"channels": channels, "outputs": outputs, "kind": kind}
        for bits, ways in ((1, ("rows", *LANES)), (2, ("",))):
            for way in ways:
                chain = Chain((31, number), Ints(3, 3, channels, bits))
                chain.bits() if bits == 1 else chain.levels()
                _add_conv(chain, row, pad * (2**bits - 1))
                label = f"conv on {bits} x {channels} bits -> {outputs} {kind}, pad {pad}, {way}"
                yield chain.case(label, (way,) if way else ())
        for bits in (1, 2):
            chain = Chain((32, number), Ints(3, 3, channels, bits))
            chain.bits() if bits == 1 else chain.levels()
            plain = {"kind": ("threshold", "sums")[number // 2 % 2]}
            _add_depthwise(chain, row | plain, pad * (2**bits - 1))
            yield chain.case(f"depthwise on {bits} x {channels} bits, pad {pad}")
        for bits, places in product((1, 2), ((3, 3), (1, 1))):  # a pixel that is left has words
            chain = Chain((33, number), Ints(places[0] + 1, places[1] + 1, channels, bits))
            chain.bits() if bits == 1 else chain.levels()
            mask = chain.mask(MASKS[number % 3], channels)
            chain.add(MaxPool("layer", chain.last, (2, 2), (1, 1), mask))
            yield chain.case(f"max-pool to {places} x {channels} x {bits} bits")
        small = row | {"channels": 1, "outputs": channels, "bits": 8, "blank": 0}
        pool = ((2, 2), None)[number % 2]
        yield _conv_by_tree(600 + number, small | {"pool": pool, "mask": "some"})
        down = {"stride": ((1, 1), (2, 1))[number % 2], "pool": (2, 2), "pad": -1, "mask": "some"}
        yield _conv_by_columns(500 + number, row | down | {"kind": "threshold"})
        chain = Chain((34, number), Ints(1, 3, channels, 8))
        chain.binarize("layer", MASKS[1 + number % 2], each=number % 2 == 1)
        yield chain.case(f"binarize 3 x {channels} integers")
        size = (*((3, 3), (2, 4))[number % 2], channels)
        yield _dense_by_columns(300 + number, size, 33)
        for bits, ways in ((1, ("rows", *LANES)), (2, ("",))):
            for way in ways:
                chain = Chain((35, number), Ints(*size, bits))
                chain.bits() if bits == 1 else chain.levels()
                _add_dense(chain, 5, "threshold")
                yield chain.case(f"dense on {bits} x {size} bits, {way}", (way,) if way else ())


def by_lanes() -> Iterator[Case]:
    """Blocks of 16 outputs, one and more, with and without a tail; rows of 31 words and beyond."""
    inputs = (*WIDTHS, 5, 127, 255, 256, 784, 991, 992, 993, 1984, 1985, 2016, 2017)
    outputs = (*WIDTHS, 15, 16, 17, 48, *WIDTHS[3:6])
    rows = spread(28, 12, inputs=inputs, outputs=outputs, bits=range(1, 9), kind=HEADS)
    for number, row in enumerate(rows):
        for bits in (1, row["bits"]):
            chain = Chain((12, number), Ints(1, 1, row["inputs"], bits))
            if bits == 1:
                chain.bits()
            _add_dense(chain, row["outputs"], row["kind"])
            yield chain.case(f"dense {_window_label(row | {'bits': bits})}, lanes", LANES)
    # Sums of 32 bits, scores that are dots, and planes of which there is one.
    sizes = (
        (129, 1, 8, "sums"),
        (200, 17, 8, "sums"),
        (33, 5, 8, "plain"),
        (40, 3, 1, "threshold"),
    )
    for number, (count, heads, bits, kind) in enumerate(sizes, 40):
        chain = Chain((12, number), Ints(1, 1, count, bits))
        _add_dense(chain, heads, kind)
        yield chain.case(f"dense {count} x {bits} bits -> {heads} {kind}, lanes", LANES)
    # Weights of one sign beside inputs of ones alone: no mismatch, and nothing but mismatches.
    for number, one in enumerate((False, True)):
        chain = Chain((12, 50 + number), Ints(1, 1, 40, 8))
        weights = np.full((3, 1, 1, 40), one)
        head = chain.head("threshold", Dense("layer", INPUT, weights, Raw()))
        chain.add(Dense("layer", INPUT, weights, head))
        yield chain.case(f"dense 40 x 8 bits, weights {one}, lanes", LANES)
    # Rows of 31, 32 and 64 words that differ from the input in every bit: all that bytes count.
    for number, count in enumerate((992, 1024, 2048), 60):
        chain = Chain((12, number), Ints(1, 1, count, 1))
        chain.bits()
        weights = np.ones((2, 1, 1, count), bool)
        weights[1] = False
        chain.add(Dense("layer", "feed", weights, Raw()))
        yield chain.case(f"dense {count} bits, weights of one sign, lanes", LANES)
    axes: dict[str, Sequence[Any]] = {
        "channels": WIDTHS,
        "outputs": (*WIDTHS, 16),
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": PADDINGS,
        "places": PLACES,
        "bits": (*range(1, 9), 0, 0),
        "kind": (*HEADS, "threshold", "sums"),
    }
    for number, row in enumerate(spread(36, 13, **axes)):
        height, width = _image(row, row["kind"] in FORMS)
        chain, pad = _ints_or_bits((13, number), height, width, row)
        _add_conv(chain, row, pad)
        yield chain.case(f"conv {_window_label(row)}, pad {pad}, lanes", LANES)
    for number, padding in enumerate(PADDINGS, 100):
        row = {"outputs": 33, "kernel": (3, 3), "stride": (1, 1), "padding": padding}
        row |= {"channels": 2, "bits": 3, "places": (2, 3), "kind": "threshold"}
        height, width = _image(row, False)
        chain, pad = _ints_or_bits((13, number), height, width, row)
        _add_conv(chain, row, pad)
        yield chain.case(f"conv {_window_label(row)}, lanes", LANES)
    wide = {"channels": 65, "outputs": 33, "kernel": (1, 3), "bits": 8, **UNMOVED, "kind": "sums"}
    for number, places in enumerate(((1, 1), (1, 2)), 150):
        height, width = _image(wide | {"places": places}, False)
        chain, pad = _ints_or_bits((13, number), height, width, wide)
        _add_conv(chain, wide, pad)
        yield chain.case(f"conv {_window_label(wide)}, lanes", LANES)
    one = {"channels": 1, "outputs": 3, "kernel": (1, 1), "bits": 8, **UNMOVED, "kind": "threshold"}
    chain, pad = _ints_or_bits((13, 160), 2, 2, one)
    _add_conv(chain, one, pad)
    yield chain.case("conv 1x1 on 2x2x1 x 8 bits, lanes", LANES)
    yield from _pooled_lanes()


def _ints_or_bits(
    seed: tuple[int, ...], height: int, width: int, row: dict[str, Any]
) -> tuple[Chain, int]:
    """A chain of an image of so many bits, where 0 stands for signs, and a value around it."""
    chain = Chain(seed, Ints(height, width, row["channels"], row["bits"] or 1))
    if row["bits"]:
        return chain, 0
    chain.bits()
    return chain, PAD_VALUES[seed[-1] % 3]


def _pooled_lanes() -> Iterator[Case]:
    """A convolution and its max-pool in one; one that shares places between windows is not."""
    pools = (
        ((2, 2), (2, 2)),
        ((1, 3), (1, 3)),
        ((2, 1), (3, 2)),
        ((3, 3), (3, 4)),
        ((2, 2), (1, 2)),
    )
    axes: dict[str, Sequence[Any]] = {
        "channels": (1, 3, 33, 64),
        "outputs": (1, 5, 16, 17, 32, 33, 65),
        "padding": ((1, 1, 1, 1), (0, 0, 0, 0), (0, 1, 1, 0)),
        "bits": (0, 8, 0, 3, 0),
        "pool": pools,
        "mask": MASKS,
    }
    for number, row in enumerate(spread(30, 14, **axes)):
        chain, pad = _ints_or_bits((14, number), 7, 8, row)
        row |= {"kernel": (3, 3), "stride": (1, 1 + number % 2), "kind": "threshold"}
        _add_conv(chain, row, pad)
        mask = chain.mask(row["mask"], row["outputs"])
        chain.add(MaxPool("pool", "layer", *row["pool"], mask))
        yield chain.case(f"conv and max-pool {_window_label(row)}, pad {pad}, lanes", LANES)


def on_levels() -> Iterator[Case]:
    """Layers on bits of 2 and of 3 planes: every head, window, pad and tail."""
    inputs = (*WIDTHS, *BYTES, 127, 255, 256, 257, 289)
    kinds = (*HEADS, *LEVELS)
    for number, row in enumerate(
        spread(27, 21, inputs=inputs, outputs=(*WIDTHS, *BYTES), bits=(2, 3), kind=kinds)
    ):
        chain = Chain((21, number), Ints(1, 1, row["inputs"], row["bits"]))
        chain.levels()
        _add_dense(chain, row["outputs"], row["kind"])
        yield chain.case(f"dense on levels {_window_label(row)}", ("level_rows",))
    for number, (size, kind) in enumerate(
        product(((2, 3, 33), (3, 1, 64), (3, 3, 5)), ("threshold", "levels 3", "sums")), 100
    ):
        chain = Chain((21, number), Ints(*size, 2 + number % 2))
        chain.levels()
        _add_dense(chain, 5, kind)
        yield chain.case(f"dense on levels {size} -> 5 {kind}", ("level_rows",))
    for number, outputs in enumerate((1, 3), 110):  # sums of 32 bits, most of them of padding
        chain = Chain((21, number), Ints(1, 1, 4, 3))
        chain.levels()
        row = {"outputs": 35, "kernel": (1, 1), "stride": (1, 1), "padding": (7, 7, 7, 7)}
        _add_conv(chain, row | {"kind": "levels 7"}, 7, "grow")
        _add_dense(chain, outputs, "sums")
        yield chain.case(f"dense on 7875 levels -> {outputs} sums", ("level_rows",))
    axes: dict[str, Sequence[Any]] = {
        "channels": (*WIDTHS, *BYTES),
        "outputs": (*WIDTHS, *BYTES),
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": (*PADDINGS, *PADDINGS[1:]),
        "places": PLACES,
        "bits": (2, 3),
        "kind": (*HEADS, *LEVELS, *LEVELS, *HEADS[:3]),
    }
    for number, row in enumerate(spread(36, 22, **axes)):
        yield _on_levels(_add_conv, (22, number), row, PAD_VALUES[number % 3], row["kind"] in FORMS)
    window = {"outputs": 3, "kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1)}
    tails = list(enumerate(product((1, 7, 8, 9, 31, 32, 33, 64, 65), PAD_VALUES), 100))
    for number, (channels, pad) in tails:
        row = {"channels": channels, "places": (2, 3), "bits": 2 + number // 3 % 2}
        row |= window | {"kind": ("threshold", "sums", "levels 3")[number // 2 % 3]}
        yield _on_levels(_add_conv, (22, number), row, pad)
    for number, (pad, outputs) in enumerate(((0, 1), (1, 2)), 200):  # sums of 32 bits
        row = {"channels": 33, "outputs": outputs, "kernel": (33, 33), "stride": (1, 1)}
        row |= {"padding": (16, 16, 16, 16), "places": (1, outputs), "bits": 3, "kind": "sums"}
        yield _on_levels(_add_conv, (22, number), row, pad)
    del axes["outputs"]
    axes |= {"bits": (1, 2, 3), "padding": PADDINGS, "kind": ("threshold", "sums", *LEVELS)}
    for number, row in enumerate(spread(36, 23, **axes)):
        yield _on_levels(_add_depthwise, (23, number), row, PAD_VALUES[number % 3])
    for number, (channels, pad) in tails:
        row = {"channels": channels, "places": (2, 3), "bits": 1 + number % 3}
        row |= window | {"kind": ("threshold", "sums", "levels 3", "levels 7")[number // 2 % 4]}
        yield _on_levels(_add_depthwise, (23, number), row, pad)
    for number, (channels, pad) in enumerate(((1, 0), (2, 1)), 200):  # sums of 32 bits
        row = {"channels": channels, "kernel": (69, 69), "stride": (1, 1), "places": (1, 1)}
        row |= {"padding": (34, 34, 34, 34), "bits": 3, "kind": "sums"}
        yield _on_levels(_add_depthwise, (23, number), row, pad)


def _on_levels(
    add: Callable[[Chain, dict[str, Any], int], None],
    seed: tuple[int, ...],
    row: dict[str, Any],
    pad: int,
    single: bool = False,
) -> Case:
    """A layer with windows on levels; on bits in the way that is for levels too."""
    height, width = _image(row, single)
    chain = Chain(seed, Ints(height, width, row["channels"], row["bits"]))
    chain.levels() if row["bits"] > 1 else chain.bits()
    add(chain, row, pad * (2 ** row["bits"] - 1))
    taps = add is _add_depthwise
    prefer = ("level_taps" if taps else "level_rows",)
    return chain.case(f"on levels {_window_label(row)}, pad {pad}", prefer)


def levels_by_columns() -> Iterator[Case]:
    """Columns of levels, and of bits that give levels or sums, with and without a pool behind."""
    axes: dict[str, Sequence[Any]] = {
        "channels": (*WIDTHS, *BYTES, 16, 32, 40),
        "outputs": (*WIDTHS, *BYTES, 16, 32, 40, 100),
        "kernel": DELTA_KERNELS,
        "stride": ((1, 1), (1, 1), (1, 2), (1, 3)),
        "padding": DELTA_PADDINGS,
        "places": ((2, 1), (2, 3), (4, 2), (5, 5), (7, 3), (6, 4)),
        "pool": POOLS,
        "mask": MASKS,
        "pad": (-1,),
        "bits": (2, 3, 1, 2),
        "kind": ("levels 3", "sums", "threshold", "levels 3", "levels 7"),
    }
    down = list(spread(28, 31, **axes))
    axes["kernel"] = (*DELTA_KERNELS, (1, 1), (1, 3))
    axes["stride"] = ((2, 1), (3, 2), (1, 1), (5, 5))
    axes["places"] = ((1, 1), (2, 3), (1, 4), (4, 2), (1, 6))
    for number, row in enumerate((*down, *spread(24, 32, **axes)), 400):
        if row["bits"] == 1 and row["kind"] == "threshold":
            row["kind"] = "sums"
        if row["kind"] == "sums":
            row["mask"] = "none"
            if row["pool"] != (1, 1) and number % 4 < 3:  # where a pool has room for its numbers
                row["outputs"] = (32, 60, 31)[number % 4]
        yield _conv_by_columns(number, row)
    plain = {"stride": (1, 1), "padding": (1, 1, 1, 1), "mask": "some", "pad": -1, "places": (3, 2)}
    words = product(((3, 3), (1, 3)), LEVELS, ((1, 1), (2, 2)), (16, 40, 32, 64))
    for number, (kernel, kind, pool, outputs) in enumerate(words, 500):
        row = {"channels": 5 + 28 * (number % 2), "outputs": outputs, "kernel": kernel}
        row |= plain | {"kind": kind, "bits": 1 + number % 3, "pool": pool}
        yield _conv_by_columns(number, row)
    whole = plain | {"channels": 32, "bits": 2, "kind": "levels 3", "pool": (2, 2), "mask": "all"}
    row = {"outputs": 65, "kernel": (3, 3), "padding": (0, 0, 0, 0)}
    yield _conv_by_columns(600, whole | row)
    row = {"outputs": 17, "kernel": (1, 3), "padding": (0, 0, 1, 1)}
    yield _conv_by_columns(601, whole | row)
    for number, outputs in enumerate((14, 16, 18, 20, 22), 602):  # numbers have 10 or 11 digits
        row = {"outputs": outputs, "kernel": (3, 3), "kind": "sums", "mask": "none"}
        yield _conv_by_columns(number, whole | row | {"channels": 20 + outputs})
    kinds = ("levels 3", "levels 7", "threshold", "sums")
    shapes = ((1, 1, 33), (1, 1, 300), (2, 3, 40), (3, 3, 7))
    for number, (size, kind) in enumerate(product(shapes, kinds)):
        outputs, bits = (16, 33, 64, 1)[(number + number // 4) % 4], 2 + number % 2
        chain = Chain((31, 100 + number), Ints(*size, bits))
        chain.levels()
        _add_dense(chain, outputs, kind)
        yield chain.case(f"dense on {bits} planes {size} -> {outputs} {kind}", ("columns",))


def pool_levels() -> Iterator[Case]:
    axes: dict[str, Sequence[Any]] = {
        "channels": (*WIDTHS, *BYTES),
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": ((0, 0, 0, 0),),
        "places": PLACES,
        "mask": MASKS,
        "bits": (2, 3),
    }
    for number, row in enumerate(spread(24, 24, **axes)):
        height, width = _image(row, False)
        chain = Chain((24, number), Ints(height, width, row["channels"], row["bits"]))
        chain.levels()
        mask = chain.mask(row["mask"], row["channels"])
        chain.add(MaxPool("layer", "feed", row["kernel"], row["stride"], mask))
        yield chain.case(f"max-pool of levels {_window_label(row)}")


def on_sums() -> Iterator[Case]:
    """What an integer head is made of: pools of sums and dense layers on sums, of either size."""
    axes: dict[str, Sequence[Any]] = {
        "channels": (*WIDTHS, *BYTES),
        "kernel": KERNELS,
        "stride": STRIDES,
        "padding": ((0, 0, 0, 0),),
        "places": PLACES,
    }
    for number, row in enumerate(spread(18, 25, **axes)):
        height, width = _image(row, False)
        chain = Chain((25, number), Ints(height, width, 2, 8))
        feed = {"outputs": row["channels"], "kernel": (1, 1), "kind": "sums", **UNMOVED}
        _add_conv(chain, feed, 0, "feed")
        none = np.zeros(row["channels"], bool)
        chain.add(MaxPool("layer", "feed", row["kernel"], row["stride"], none))
        yield chain.case(f"max-pool of sums {_window_label(row)}")
    for number, channels in enumerate((1, 2, 9, 33), 100):  # of 32 bits
        chain = Chain((25, number), Ints(3, 4, 1, 8))
        feed = {"outputs": channels, "kernel": (12, 12), "stride": (1, 1), "kind": "sums"}
        _add_conv(chain, feed | {"padding": (6, 6, 6, 6)}, 0, "feed")
        chain.add(MaxPool("layer", "feed", (2, 2), (1, 2), np.zeros(channels, bool)))
        yield chain.case(f"max-pool of {channels} sums of 32 bits")
    rows = spread(
        39,
        26,
        channels=(*WIDTHS, *BYTES),
        outputs=(*WIDTHS, *BYTES),
        pixels=(1, 1, 2),
        bits=(8, 16, 32),
        kind=(*HEADS, *LEVELS),
    )
    for number, row in enumerate(rows):
        if row["kind"] == "wide" or (row["kind"] == "sums" and number % 2):
            row["bits"] = 8
        if row["bits"] == 8:  # of so few inputs that sums of sums are small, and factors large
            chain = Chain((26, number), Ints(1, row["pixels"], 2, 7))
            feed = {"outputs": row["channels"], "kernel": (1, 1), "kind": "sums", **UNMOVED}
            _add_conv(chain, feed, 0, "feed")
        else:
            chain = _sums((26, number), row["pixels"], row["channels"], row["bits"])
        _add_dense(chain, row["outputs"], row["kind"])
        yield chain.case(f"dense on sums {_window_label(row)}")


def to_levels() -> Iterator[Case]:
    """Levels of integers and sums, and those that all other layers with weights make."""
    axes: dict[str, Sequence[Any]] = {
        "channels": (*WIDTHS, *BYTES),
        "pixels": (1, 2, 1, 3),
        "bits": (*range(1, 9), 16, 32, 16, 32),
        "mask": MASKS,
        "levels": (3, 7),
    }
    for number, row in enumerate(spread(39, 27, **axes)):
        pixels, channels, each = row["pixels"], row["channels"], number % 2 == 1
        if row["bits"] > 8:
            chain = _sums((27, number), pixels, channels, row["bits"])
        else:
            chain = Chain((27, number), Ints(1, pixels, channels, row["bits"]))
        chain.quantize("layer", row["levels"], row["mask"], each)
        yield chain.case(f"levels of {_window_label(row)}{', each pixel' if each else ''}")
    window = {"kernel": (3, 3), "stride": (1, 1), "padding": (1, 1, 1, 1), "places": (2, 3)}
    for number, (outputs, kind) in enumerate(product((1, 5, 16, 32, 33), LEVELS)):
        for bits, ways in ((1, ("rows", *LANES)), (8, ("subset_sums", "bit_planes", *LANES))):
            for way in ways:
                chain = Chain((28, number), Ints(1, 1, 33, bits))
                if bits == 1:
                    chain.bits()
                _add_dense(chain, outputs, kind)
                yield chain.case(f"dense 33 x {bits} bits -> {outputs} {kind}, {way}", (way,))
                row = window | {
                    "channels": 3,
                    "outputs": outputs,
                    "kind": kind,
                    "bits": bits - bits % 8,
                }
                height, width = _image(row, False)
                chain, pad = _ints_or_bits((29, number), height, width, row)
                _add_conv(chain, row, pad)
                yield chain.case(f"conv on 3 x {bits} bits -> {outputs} {kind}, {way}", (way,))
        row = window | {"channels": outputs, "kind": kind}
        height, width = _image(row, False)
        chain = Chain((30, number), Ints(height, width, outputs, 8))
        _add_depthwise(chain, row, 0)
        yield chain.case(f"depthwise on {outputs} integers, {kind}")


@functools.cache
def cases() -> tuple[Case, ...]:
    """All of them, in an order that does not change."""
    return (
        *dense_on_ints(),
        *dense_by_digits(),
        *dense_on_bits(),
        *dense_by_columns(),
        *masked_layers(),
        *conv_on_ints(),
        *conv_by_tree(),
        *levels_by_tree(),
        *conv_on_bits(),
        *conv_by_columns(),
        *depthwise(),
        *max_pool(),
        *binarize(),
        *add(),
        *score(),
        *around_bytes(),
        *narrow_words(),
        *by_lanes(),
        *on_levels(),
        *levels_by_columns(),
        *pool_levels(),
        *on_sums(),
        *to_levels(),
    )


@functools.cache
def meant_for(target: Target) -> tuple[int, ...]:
    """The numbers of the cases that ask for no way that ``target`` has not, nor for too much."""
    most = target.cpu.largest_array
    lacking = () if target.cpu.word_bits == 32 else WAYS_OF_WORDS
    lacking += () if "vectors" in target.cpu.features else LANES
    lacking += ("masks",) if "popcount" in target.cpu.features else ()
    return tuple(
        n
        for n, case in enumerate(cases())
        if not set(case.prefer) & set(lacking) and c.largest_array(planned(case, target)) <= most
    )


# --- one program ----------------------------------------------------------------------------------


@functools.cache
def planned(case: Case, target: Target) -> Plan:
    """The case with the way that it asks for; vectors are one of rows."""
    vectors = "vectors" in target.cpu.features and case.prefer == ("rows",)
    return plan(case.network, target, () if vectors else case.prefer)


def case_library(number: int, target: Target) -> Library:
    return c.generate(planned(cases()[number], target), f"k{number}")


@contextmanager
def changed_templates(texts: Mapping[str, str]) -> Iterator[None]:
    """Generates from templates of which some, by name, have another text."""
    plain = env._environment()
    loader = jinja2.ChoiceLoader([jinja2.DictLoader(texts), plain.loader])
    with mock.patch.object(env, "_environment", return_value=plain.overlay(loader=loader)):
        yield


@functools.cache
def outputs(number: int) -> reference.Outputs:
    """What the oracle gives for the inputs of a case."""
    return reference.run(cases()[number].network, cases()[number].inputs)


def expected(numbers: Sequence[int]) -> batches.Expected:
    """For all records of these cases."""
    return batches.expected({n: (cases()[n].inputs, outputs(n)) for n in numbers})


def differing(outputs: reference.Outputs, wanted: batches.Expected) -> list[str]:
    """The labels of the cases that did not give what the oracle gives."""
    return [f"k{n}: {cases()[n].label}" for n in batches.differing(outputs, wanted)]
