"""From a torch model in eval mode to the IR, exactly: the one translation between the two.

A norm followed by a sign is monotone in the integer that goes in, so it is a threshold; so are all
layers that rise or fall and look at one value at a time, in any number and order: ReLU and its
like, factors, biases. :mod:`edgebnn.thresholds` finds it.

Sums that a single sign reads exist only inside the layer that forms them. Sums that an addition
reads, or more than one layer, are stored as they are: integers, so that an addition is exact.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgebnn.errors import EdgebnnError
from edgebnn.ir import (
    EXACT_LIMIT,
    INPUT,
    Add,
    Binarize,
    Bits,
    BoolArray,
    Conv,
    Dense,
    DepthwiseConv,
    Head,
    Int32Array,
    Ints,
    MaxPool,
    Network,
    Op,
    Raw,
    Score,
    Scores,
    Threshold,
    dot_bound,
    output_size,
)
from edgebnn.nn.constants import Bias, Scale
from edgebnn.nn.graph import LayerNode, as_sizes, axes_of, check_shapes
from edgebnn.nn.layers import Add as AddLayer
from edgebnn.nn.layers import Input, Sign
from edgebnn.nn.norm import SCORE_LIMIT, BatchNorm, OutputNorm
from edgebnn.nn.record import copies
from edgebnn.nn.trace import evaluating, follow, unwrap
from edgebnn.nn.weights import BinaryConv, BinaryLinear, weight_signs
from edgebnn.thresholds import (
    MONOTONE,
    Step,
    bias_steps,
    check_slope,
    differs_by_channel,
    falls,
    thresholds,
)


@dataclass(frozen=True, slots=True)
class _Pool:
    kernel: tuple[int, int]
    stride: tuple[int, int]
    steps_before: int  # how many steps of the pending value come before this pool


@dataclass(frozen=True, slots=True)
class _Pending:
    """Integers that no sign has seen yet: the input, or a layer's sums, and what followed them.

    The IR computes with the input as it is, so that ``offset`` is still to be added to each
    channel: what the input's zero point takes from the sums.
    """

    emit: Callable[[Head, BoolArray], Op] | None  # None for the input itself
    low: int
    high: int
    offset: NDArray[np.int64]  # (C,)
    dots: tuple[int, int, int]  # (H, W, C) before any pooling
    shape: tuple[int, int, int]  # (H, W, C) now
    steps: tuple[Step, ...] = ()
    pools: tuple[_Pool, ...] = ()
    axes: int = 0  # behind the channels, in torch
    tensor: str | None = None  # sums in the IR, which ``emit`` reads; None where not stored


@dataclass(frozen=True, slots=True)
class _Signs:
    """A tensor of bits in the IR."""

    tensor: str
    shape: tuple[int, int, int]
    axes: int


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
        self.input: Ints | None = None
        self.zero_point = 0

    def run(self, nodes: tuple[LayerNode, ...]) -> Network:
        values: dict[str, _Pending | _Signs] = {}
        stored = _stored(nodes)
        for node in nodes:
            try:
                if isinstance(node.module, Input):
                    value: _Pending | _Signs = self._input(node.module)
                elif isinstance(node.module, AddLayer):
                    value = self._add(*(values[name] for name in node.inputs))
                else:
                    value = self._layer(node.module, values[node.inputs[0]])
                if node.name in stored and isinstance(value, _Pending):
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
        return Network(self.input, tuple(self.ops))

    def _name(self, kind: str) -> str:
        self.counts[kind] += 1
        return f"{kind}{self.counts[kind]}"

    def _input(self, module: Input) -> _Pending:
        channels, height, width = (*module.shape, 1, 1)[:3]  # of a signal a sample is a row
        self.input = Ints(height, width, channels, module.bits)
        self.zero_point = module.zero_point
        shape, top = (height, width, channels), 2**module.bits - 1
        offset = np.full(channels, -module.zero_point, np.int64)
        return _Pending(None, 0, top, offset, shape, shape, axes=len(module.shape) - 1)

    def _layer(self, module: nn.Module, x: _Pending | _Signs) -> _Pending | _Signs:
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
                return self._linear(module, x)
            case BinaryConv():
                return self._conv(module, x)
            case _:
                raise EdgebnnError("is not supported")

    def _source(self, x: _Pending | _Signs) -> tuple[str, Ints | Bits]:
        """The tensor that a layer with weights reads."""
        if isinstance(x, _Signs):
            return x.tensor, Bits(*x.shape)
        if x.emit is not None:
            raise EdgebnnError("its input is not binary; put edgebnn.nn.Sign() before it")
        if x.steps or x.pools:
            raise EdgebnnError(
                "its input is neither raw integers nor binary; put edgebnn.nn.Sign() before it, "
                "or this layer right after Input"
            )
        assert self.input is not None
        return INPUT, self.input

    def _bound(self, inputs: int, source: Ints | Bits) -> int:
        bound = dot_bound(inputs, source)
        if bound >= EXACT_LIMIT:
            raise EdgebnnError(
                f"its sums reach {bound}, and float32 is exact only below 2**24; "
                f"use fewer inputs or fewer input bits"
            )
        return bound

    def _linear(self, module: BinaryLinear, x: _Pending | _Signs) -> _Pending:
        source, tensor = self._source(x)
        bound = self._bound(module.in_features, tensor)
        height, width, channels = x.shape
        signs = weight_signs(module).numpy() > 0
        # torch flattens (C, H, W); the IR is (H, W, C).
        weights = signs.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)

        def emit(head: Head, negated: BoolArray) -> Op:
            flipped = np.ascontiguousarray(weights ^ negated[:, None, None, None])
            return Dense(self._name("dense"), source, flipped, head)

        shape = (1, 1, module.out_features)
        steps = bias_steps(module)
        offset = self._offset(tensor, signs)
        return _Pending(emit, -bound, bound, offset, shape, shape, steps)

    def _offset(self, source: Ints | Bits, signs: BoolArray) -> NDArray[np.int64]:
        """(O,): what the zero point adds to dots of ``source`` with ``signs`` (O, ...)."""
        rows = signs.reshape(len(signs), -1)
        zero = self.zero_point if isinstance(source, Ints) else 0
        sums: NDArray[np.int64] = 2 * rows.sum(axis=1, dtype=np.int64) - rows.shape[1]
        return -zero * sums

    def _conv(self, module: BinaryConv, x: _Pending | _Signs) -> _Pending:
        source, tensor = self._source(x)
        kernel, stride = _pair(module.kernel_size), _pair(module.stride)
        top, bottom, left, right = (*module.sides(*x.shape[: module.axes]), 0, 0)[:4]
        padding = (top, bottom, left, right)
        signs = weight_signs(module).numpy() > 0
        signs = signs.reshape(*signs.shape[:2], *kernel)  # (O, C / groups, KH, KW)
        padded = any(padding)
        if isinstance(tensor, Ints) and padded and module.pad_value != 0:
            raise EdgebnnError("pads integers with -1 or +1; use pad_value=0 on the first layer")
        depthwise = module.groups > 1
        bound = self._bound(kernel[0] * kernel[1] * (1 if depthwise else x.shape[2]), tensor)
        pad_value = module.pad_value if padded else -1
        if isinstance(tensor, Ints):
            pad_value = self.zero_point if padded else 0

        def emit(head: Head, negated: BoolArray) -> Op:
            weights = signs ^ negated[:, None, None, None]
            if not depthwise:
                rows = np.ascontiguousarray(weights.transpose(0, 2, 3, 1))
                return Conv(self._name("conv"), source, rows, stride, padding, pad_value, head)
            if isinstance(head, Scores):
                raise EdgebnnError("a depthwise layer cannot give the scores; use BinaryLinear")
            taps = np.ascontiguousarray(weights[:, 0].transpose(1, 2, 0))
            name = self._name("depthwise")
            return DepthwiseConv(name, source, taps, stride, padding, pad_value, head)

        shape = (
            output_size(x.shape[0], kernel[0], stride[0], sum(padding[:2])),
            output_size(x.shape[1], kernel[1], stride[1], sum(padding[2:])),
            module.out_channels,
        )
        steps, offset = bias_steps(module), self._offset(tensor, signs)
        return _Pending(emit, -bound, bound, offset, shape, shape, steps, axes=module.axes)

    def _add(self, x: _Pending | _Signs, y: _Pending | _Signs) -> _Pending:
        source, other = _addend(x), _addend(y)
        assert isinstance(x, _Pending)
        assert isinstance(y, _Pending)
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

    def _store(self, x: _Pending) -> _Pending:
        """Sums that more than one op reads, in memory."""
        if x.emit is None or x.tensor is not None:
            return x
        op = x.emit(Raw(), np.zeros(x.shape[2], dtype=np.bool_))
        self.ops.append(op)
        return self._stored_sums(op.name, x)

    def _stored_sums(self, tensor: str, like: _Pending) -> _Pending:
        def emit(head: Head, negated: BoolArray) -> Op:
            match head:
                case Threshold(min_dot):
                    return _binarize(self._name("binarize"), tensor, min_dot, negated)
                case Scores():
                    factor = np.where(negated, -head.factor, head.factor)  # no weights to negate
                    return Score(self._name("score"), tensor, replace(head, factor=factor))
                case Raw():
                    raise AssertionError("sums are stored once")

        return replace(like, emit=emit, tensor=tensor)

    def _max_pool(
        self, module: nn.MaxPool1d | nn.MaxPool2d, x: _Pending | _Signs
    ) -> _Pending | _Signs:
        axes = axes_of(module)
        kernel = _pair(as_sizes(module.kernel_size, axes))
        stride = _pair(as_sizes(module.stride, axes))
        shape = _pooled(x.shape, kernel, stride)
        if isinstance(x, _Signs):
            never = np.zeros(shape[2], dtype=np.bool_)
            return _Signs(self._emit_pool(x.tensor, kernel, stride, never), shape, x.axes)
        pool = _Pool(kernel, stride, len(x.steps))
        return replace(x, pools=(*x.pools, pool), shape=shape)

    def _emit_pool(
        self, source: str, kernel: tuple[int, int], stride: tuple[int, int], all_set: BoolArray
    ) -> str:
        name = self._name("pool")
        self.ops.append(MaxPool(name, source, kernel, stride, all_set))
        return name

    def _norm(self, module: BatchNorm, x: _Pending | _Signs) -> _Pending:
        x = self._step(module, x)
        if not isinstance(module, OutputNorm):
            scale, shift = module.affine()
            if not bool(torch.isfinite(scale).all() and torch.isfinite(shift).all()):
                raise EdgebnnError("its scale or shift is not finite; train it again")
        return x

    def _step(self, module: nn.Module, x: _Pending | _Signs) -> _Pending:
        if isinstance(x, _Signs):
            raise EdgebnnError("follows a Sign; put it before the Sign")
        if any(isinstance(step.module, OutputNorm) for step in x.steps):
            raise EdgebnnError("follows an OutputNorm, which must end the network")
        if differs_by_channel(module) and not x.axes:
            x = self._each_value(x)
        check_slope(module)
        return replace(x, steps=(*x.steps, Step(module, x.axes)))

    def _each_value(self, x: _Pending) -> _Pending:
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
            assert isinstance(head, Threshold)
            minimum = head.min_dot.reshape(channels, height, width).transpose(1, 2, 0)
            inverted = falling.reshape(channels, height, width).transpose(1, 2, 0)
            return _binarize(self._name("binarize"), tensor, minimum, inverted)

        offset = np.repeat(x.offset, height * width)
        return replace(x, emit=emit, offset=offset, tensor=tensor)

    def _sign(self, module: Sign, x: _Pending | _Signs) -> _Signs:
        if isinstance(x, _Signs):
            if not _keeps_signs(module):
                raise EdgebnnError("follows another Sign, whose +-1 its shift may turn; remove it")
            return x
        if module.shift is not None and not x.axes:
            x = self._each_value(x)
        if any(isinstance(step.module, OutputNorm) for step in x.steps):
            raise EdgebnnError("follows an OutputNorm; use BatchNorm inside the network")
        min_dot, falling = thresholds(x.steps, Step(module, x.axes), x.low, x.high, x.offset)
        if x.emit is None:
            name = self._name("binarize")
            self.ops.append(_binarize(name, INPUT, min_dot, falling))
        else:
            # A falling threshold is a rising one on negated weights.
            op = x.emit(Threshold(min_dot), falling)
            self.ops.append(op)
            name = op.name
        for pool in x.pools:
            all_set = np.zeros(len(x.offset), dtype=np.bool_)
            for step in x.steps[pool.steps_before :]:
                all_set = all_set ^ falls(step.module, len(x.offset))
            name = self._emit_pool(name, pool.kernel, pool.stride, all_set)
        return _Signs(name, x.shape, x.axes)

    def _output(self, x: _Pending | _Signs) -> None:
        if isinstance(x, _Signs) or x.emit is None:
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


def _addend(x: _Pending | _Signs) -> str:
    """The stored sums that an addition reads."""
    if isinstance(x, _Signs):
        raise EdgebnnError(
            "adds signs; add sums of convolutions or BinaryLinear, and put the Sign after the "
            "addition"
        )
    if x.emit is None:
        raise EdgebnnError("adds the input; put a convolution or BinaryLinear between")
    if x.steps:
        module = x.steps[0].module
        what = "norm" if isinstance(module, BatchNorm) else type(module).__name__
        raise EdgebnnError(f"adds what a {what} gives; put the {what} after the addition")
    if x.pools:
        raise EdgebnnError("adds max-pooled sums; put the pool after the addition or after a Sign")
    assert x.tensor is not None
    return x.tensor


def _binarize(name: str, source: str, min_dot: Int32Array, falling: BoolArray) -> Binarize:
    # A falling step fires at or below a value: not at or above the next one.
    minimum = np.where(falling, 1 - min_dot, min_dot).astype(np.int32)
    return Binarize(name, source, minimum, np.ascontiguousarray(falling))


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    """(vertical, horizontal); a signal is an image of width 1."""
    vertical, horizontal = (*sizes, 1)[:2]
    return vertical, horizontal


def _pooled(
    shape: tuple[int, int, int], kernel: tuple[int, int], stride: tuple[int, int]
) -> tuple[int, int, int]:
    height = output_size(shape[0], kernel[0], stride[0])
    return height, output_size(shape[1], kernel[1], stride[1]), shape[2]


@torch.no_grad()
def _keeps_signs(module: Sign) -> bool:
    """Whether +-1 pass through unchanged."""
    if module.num_features is None:
        return True
    ones = torch.ones(1, module.num_features)
    return bool((module.shifted(ones) >= 0).all() and (module.shifted(-ones) < 0).all())


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
