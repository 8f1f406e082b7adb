"""From a torch model in eval mode to the IR, exactly: the one translation between the two.

A norm followed by a sign is monotone in the integer that goes in, so it is a threshold; so are all
layers that rise or fall and look at one value at a time, in any number and order: ReLU and its
like, factors, biases. :mod:`edgebnn.thresholds` finds it.

Sums that a single sign reads exist only inside the layer that forms them. Sums that an addition
reads, or more than one layer, are stored as they are: integers, so that an addition is exact.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from edgebnn.errors import EdgebnnError
from edgebnn.ir import (
    EXACT_LIMIT,
    INPUT,
    Add,
    Binarize,
    BoolArray,
    Head,
    Int32Array,
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
    Threshold,
    output_size,
)
from edgebnn.nn.constants import Bias, Scale
from edgebnn.nn.graph import LayerNode, as_sizes, axes_of, check_shapes
from edgebnn.nn.layers import Add as AddLayer
from edgebnn.nn.layers import Input, Sign
from edgebnn.nn.norm import SCORE_LIMIT, BatchNorm, OutputNorm
from edgebnn.nn.record import copies
from edgebnn.nn.trace import evaluating, follow, unwrap
from edgebnn.nn.weights import BinaryConv, BinaryLinear
from edgebnn.sums import Pending, Pool, Signs, Source, addend, conv, linear, pair, source_of
from edgebnn.thresholds import (
    MONOTONE,
    Step,
    check_slope,
    differs_by_channel,
    falls,
    thresholds,
)


def lower(model: nn.Module) -> Network:
    """The network of ``model``'s layers in eval mode, in integers; ``model`` is left as it was.

    :func:`edgebnn.proof.prove` also finds out whether it is what ``model`` itself computes.

    Raises:
        EdgebnnError: the model cannot be lowered exactly; names the layer and the reason.
    """
    model = unwrap(model)
    with evaluating(model):
        traced = follow(model)
        nodes = copies(traced.layers)
    traced.check_ending(check_shapes(nodes))
    return _Lowering().run(nodes)


class _Lowering:
    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.counts: Counter[str] = Counter()
        self.input: Source | None = None

    def run(self, nodes: tuple[LayerNode, ...]) -> Network:
        values: dict[str, Pending | Signs] = {}
        stored = _stored(nodes)
        for node in nodes:
            try:
                if isinstance(node.module, Input):
                    value: Pending | Signs = self._input(node.module)
                elif isinstance(node.module, AddLayer):
                    value = self._add(*(values[name] for name in node.inputs))
                else:
                    value = self._layer(node.module, values[node.inputs[0]])
                if node.name in stored and isinstance(value, Pending):
                    value = self._store(value)
                values[node.name] = value
            except EdgebnnError as error:
                kind = type(node.module).__name__
                raise EdgebnnError(f"layer '{node.name}' ({kind}): {error}") from None
        last = nodes[-1]
        try:
            self._output(values[last.name])
        except EdgebnnError as error:
            kind = type(last.module).__name__
            raise EdgebnnError(f"layer '{last.name}' ({kind}) ends the network: {error}") from None
        assert self.input is not None
        assert isinstance(self.input.tensor, Ints)
        return Network(self.input.tensor, tuple(self.ops))

    def _name(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"{kind}{self.counts[kind]}"

    def _input(self, module: Input) -> Pending:
        channels, height, width = (*module.shape, 1, 1)[:3]  # of a signal a sample is a row
        tensor = Ints(height, width, channels, module.bits)
        offset = np.full(channels, -module.zero_point, np.int64)
        self.input = Source(INPUT, tensor, offset)
        top, axes = 2**module.bits - 1, len(module.shape) - 1
        return Pending(None, 0, top, offset, self.input.shape, axes=axes)

    def _layer(self, module: nn.Module, x: Pending | Signs) -> Pending | Signs:
        match module:
            case nn.Flatten():
                return replace(x, axes=0)
            case nn.Dropout() | nn.Identity():
                return x
            case nn.MaxPool1d() | nn.MaxPool2d():
                return self._max_pool(module, x)
            case BatchNorm():
                return self._norm(module, x)
            case nn.ReLU() | nn.Hardtanh() | nn.LeakyReLU() | nn.PReLU() | Scale() | Bias():
                return self._step(module, x)
            case Sign():
                return self._sign(module, x)
            case BinaryLinear():
                return linear(module, self._head_source(x), self._name)
            case BinaryConv():
                return conv(module, source_of(x, self.input), self._name)
            case _:
                raise EdgebnnError("is not supported")

    def _add(self, x: Pending | Signs, y: Pending | Signs) -> Pending:
        source, other = addend(x), addend(y)
        assert isinstance(x, Pending)
        assert isinstance(y, Pending)
        if x.shape != y.shape:
            raise EdgebnnError("adds sums of different layouts; put the addition before Flatten")
        low, high = x.low + y.low, x.high + y.high
        if max(-low, high) >= EXACT_LIMIT:
            raise EdgebnnError(
                f"its sums reach {max(-low, high)}, and float32 is exact only below 2**24; "
                f"add fewer layers or smaller ones"
            )
        name = self._name("add")
        self.ops.append(Add(name, source, other))
        offset = x.offset + y.offset
        return self._stored_sums(name, replace(x, low=low, high=high, offset=offset))

    def _head_source(self, x: Pending | Signs) -> Source:
        """What a linear layer reads: bits, the input, or sums of a convolution, max-pooled or not.

        The last are an integer head; of two linear layers with nothing between one is missing.
        """
        if isinstance(x, Signs) or x.steps or not x.convolved:
            return source_of(x, self.input)
        name = self._store(x).tensor
        assert name is not None
        for pool in x.pools:
            name = self._emit_pool(name, pool, np.zeros(x.shape[2], dtype=np.bool_))
        return Source(name, Sums(*x.shape, x.low, x.high), x.offset)

    def _store(self, x: Pending) -> Pending:
        """Sums that more than one op reads, in memory."""
        if x.emit is None or x.tensor is not None:
            return x
        op = x.emit(Raw(), np.zeros(x.shape[2], dtype=np.bool_))
        self.ops.append(op)
        return self._stored_sums(op.name, x)

    def _stored_sums(self, tensor: str, like: Pending) -> Pending:
        def emit(head: Head, negated: BoolArray) -> Op:
            match head:
                case Threshold(min_dot) | Levels(min_dot):
                    return _binarize(self._name("binarize"), tensor, min_dot, negated)
                case Scores():
                    factor = np.where(negated, -head.factor, head.factor)  # no weights to negate
                    return Score(self._name("score"), tensor, replace(head, factor=factor))
                case Raw():
                    raise AssertionError("sums are stored once")

        return replace(like, emit=emit, tensor=tensor)

    def _max_pool(self, module: nn.MaxPool1d | nn.MaxPool2d, x: Pending | Signs) -> Pending | Signs:
        axes = axes_of(module)
        kernel = pair(as_sizes(module.kernel_size, axes))
        stride = pair(as_sizes(module.stride, axes))
        shape = _pooled(x.shape, kernel, stride)
        if isinstance(x, Signs):
            never = np.zeros(shape[2], dtype=np.bool_)
            return replace(
                x, tensor=self._emit_pool(x.tensor, Pool(kernel, stride, 0), never), shape=shape
            )
        pool = Pool(kernel, stride, len(x.steps))
        return replace(x, pools=(*x.pools, pool), shape=shape)

    def _emit_pool(self, source: str, pool: Pool, all_set: BoolArray) -> str:
        name = self._name("pool")
        self.ops.append(MaxPool(name, source, pool.kernel, pool.stride, all_set))
        return name

    def _norm(self, module: BatchNorm, x: Pending | Signs) -> Pending:
        x = self._step(module, x)
        if not isinstance(module, OutputNorm):
            scale, shift = module.affine()
            if not bool(torch.isfinite(scale).all() and torch.isfinite(shift).all()):
                raise EdgebnnError("its scale or shift is not finite; train it again")
        return x

    def _step(self, module: nn.Module, x: Pending | Signs) -> Pending:
        if isinstance(x, Signs):
            raise EdgebnnError("follows a Sign; put it before the Sign")
        if any(isinstance(step.module, OutputNorm) for step in x.steps):
            raise EdgebnnError("follows an OutputNorm, which must end the network")
        if differs_by_channel(module) and not x.axes:
            x = self._each_value(x)
        check_slope(module)
        return replace(x, steps=(*x.steps, Step(module, x.axes)))

    def _each_value(self, x: Pending) -> Pending:
        """Flattened values, each of which is a channel from now on, as torch has them."""
        height, width, channels = x.shape
        if len(x.offset) == height * width * channels:
            return x
        earlier = [step.module for step in x.steps if differs_by_channel(step.module)]
        if x.pools or earlier:
            what = "max-pooled values" if x.pools else f"what a {type(earlier[0]).__name__} gives"
            raise EdgebnnError(f"treats {what} one by one after Flatten; put it before Flatten")
        stored = x if x.emit is None else self._store(x)
        tensor = INPUT if stored.tensor is None else stored.tensor

        def emit(head: Head, falling: BoolArray) -> Op:
            assert isinstance(head, Threshold | Levels)
            minimum = head.min_dot.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
            minimum = minimum if isinstance(head, Levels) else minimum[0]
            inverted = falling.reshape(channels, height, width).transpose(1, 2, 0)
            return _binarize(self._name("binarize"), tensor, minimum, inverted)

        offset = np.repeat(x.offset, height * width)
        return replace(x, emit=emit, offset=offset, tensor=tensor)

    def _sign(self, module: Sign, x: Pending | Signs) -> Signs:
        if isinstance(x, Signs):
            if not _keeps(module, 2**x.planes - 1):
                raise EdgebnnError("follows another Sign, whose +-1 its shift may turn; remove it")
            return x
        if module.shift is not None and not x.axes:
            x = self._each_value(x)
        if any(isinstance(step.module, OutputNorm) for step in x.steps):
            raise EdgebnnError("follows an OutputNorm; use BatchNorm inside the network")
        min_dot, falling = thresholds(x.steps, Step(module, x.axes), x.low, x.high, x.offset)
        head = Levels(min_dot) if module.levels > 1 else Threshold(min_dot[0])
        if x.emit is None:
            op: Op = _binarize(self._name("binarize"), INPUT, head.min_dot, falling)
        else:
            # A falling threshold is a rising one on negated weights.
            op = x.emit(head, falling)
        self.ops.append(op)
        name = op.name
        for pool in x.pools:
            all_set = np.zeros(len(x.offset), dtype=np.bool_)
            for step in x.steps[pool.steps_before :]:
                all_set = all_set ^ falls(step.module, len(x.offset))
            name = self._emit_pool(name, pool, all_set)
        return Signs(name, x.shape, x.axes, module.levels.bit_length())

    def _output(self, x: Pending | Signs) -> None:
        if isinstance(x, Signs) or x.emit is None:
            raise EdgebnnError("scores must come from BinaryLinear or a convolution (+ OutputNorm)")
        if x.pools:
            raise EdgebnnError("scores cannot be max-pooled; end with BinaryLinear")
        if x.shape[0] * x.shape[1] != 1:
            raise EdgebnnError(
                f"it gives {x.shape[0]}x{x.shape[1]} scores a class; "
                f"end with Flatten and BinaryLinear"
            )
        classes = x.shape[2]
        match tuple(step.module for step in x.steps):
            case ():
                ones, zeros = np.ones(classes, np.int32), np.zeros(classes, np.int32)
                head = Scores(ones, zeros, 0)
            case (OutputNorm() as norm,):
                head = _fixed_point(norm, x.high)
            case modules:
                others = [type(m).__name__ for m in modules if not isinstance(m, BatchNorm)]
                if others:
                    raise EdgebnnError(
                        f"scores are sums or an OutputNorm of sums, which scales and shifts them; "
                        f"leave out the {others[0]} before them"
                    )
                raise EdgebnnError("use a single edgebnn.nn.OutputNorm as the last norm")
        # No larger than the factor times the reach, beside which there is room for the offset.
        offset = head.offset + head.factor * x.offset
        head = replace(head, offset=offset.astype(np.int32))
        negated = np.zeros(classes, dtype=np.bool_)
        magnitude = np.abs(head.factor)
        if not np.any(magnitude & (magnitude - 1)):
            # Powers of two and zeros: with the signs in the weights, the factors are shifts.
            negated = head.factor < 0
            head = replace(head, factor=magnitude)
        self.ops.append(x.emit(head, negated))


def _stored(nodes: tuple[LayerNode, ...]) -> set[str]:
    """The layers whose sums an addition reads, or more than one layer."""
    origins: dict[str, str] = {}  # through what does not end sums: norms, pools, views ...
    read: Counter[str] = Counter()
    for node in nodes:
        match node.module:
            case nn.MaxPool1d() | nn.MaxPool2d() | nn.Flatten() | nn.Dropout() | nn.Identity():
                origins[node.name] = origins[node.inputs[0]]
            case module if isinstance(module, MONOTONE):
                origins[node.name] = origins[node.inputs[0]]
            case module:
                origins[node.name] = node.name
                for name in node.inputs:
                    read[origins[name]] += 2 if isinstance(module, AddLayer) else 1
    return {name for name, count in read.items() if count > 1}


def _binarize(
    name: str, source: str, min_dot: Int32Array, falling: BoolArray
) -> Binarize | Quantize:
    # A falling step fires at or below a value: not at or above the next one.
    minimum = np.where(falling, 1 - min_dot, min_dot).astype(np.int32)
    kind = Binarize if minimum.ndim == falling.ndim else Quantize
    return kind(name, source, minimum, np.ascontiguousarray(falling))


def _pooled(
    shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int, int]:
    height = output_size(shape[0], kernel[0], stride[0])
    return height, output_size(shape[1], kernel[1], stride[1]), shape[2]


@torch.no_grad()
def _keeps(module: Sign, levels: int) -> bool:
    """Whether the values of a Sign of that many levels pass through unchanged."""
    values = torch.arange(-levels, levels + 1.0, 2.0).reshape(-1, 1)
    values = values.expand(-1, module.num_features or 1)
    return torch.equal(module(values), values)


def _fixed_point(norm: OutputNorm, reach: int) -> Scores:
    if reach > norm.bound:
        kind = type(norm).__name__
        raise EdgebnnError(
            f"the sums reach {reach}, beyond bound={norm.bound}; use {kind}(..., bound={reach})"
        )
    factor, offset, fraction_bits = norm.fixed_point()
    if int((factor.abs() * norm.bound + offset.abs()).max()) > SCORE_LIMIT:
        raise EdgebnnError("its scale does not fit 32-bit scores; train it again")
    return Scores(factor.numpy().astype(np.int32), offset.numpy().astype(np.int32), fraction_bits)
