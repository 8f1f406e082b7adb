"""Any ``nn.Module``'s forward as a graph of known layers, by torch.fx.

A user's own ``forward`` is as good as a ``Sequential``: :data:`_OPERATIONS` says which functions
and methods of tensors stand for which layer. What torch.fx does not see (hooks, in-place
operations, a forward that was replaced) is not in the graph; :mod:`edgebnn.proof` finds it by
comparing what the module computes with what its graph does.
"""

import enum
import functools
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from edgebnn.errors import EdgebnnError
from edgebnn.nn.functional import sign
from edgebnn.nn.graph import LAYERS, LayerNode, has_state, input_count, is_own, layer_type
from edgebnn.nn.layers import Add, Bias, Input, Scale, Sign

_FIX = (
    "build the model of layers and of +, flatten, max_pool2d, sign, relu, clamp and products and "
    "sums with constants alone"
)


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside torch.compile, DataParallel, AveragedModel and their like.

    Raises:
        EdgebnnError: the wrapper has a hook, which the module inside does not run.
    """
    while True:
        inner = getattr(model, "_orig_mod", None)  # torch.compile
        if isinstance(model, DataParallel | DistributedDataParallel | AveragedModel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        if hooked(model):
            kind = type(model).__name__
            raise EdgebnnError(f"the {kind} around the model has a hook; give the model inside")
        model = inner


def hooked(module: nn.Module) -> bool:
    """Whether a forward hook, or one before it, may change what ``module`` computes."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """``model`` in eval mode, without gradients and autocast; after it each module as it was.

    Raises:
        EdgebnnError: ``model.eval()`` fails, or leaves a module in training mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    kinds = {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} - {"meta"}
    try:
        try:
            model.eval()
        except Exception as error:
            raise EdgebnnError(f"model.eval() fails: {first_line(error)}") from error
        for name, module in model.named_modules():
            if module.training:
                where = f"'{name}' ({type(module).__name__})" if name else "the model itself"
                raise EdgebnnError(
                    f"model.eval() leaves {where} in training mode; have its train() pass the "
                    f"mode on: super().train(mode)"
                )
        # The kinds of device are few, so that leaving autocast for each is no loop to speak of.
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            if "cuda" in kinds:
                with torch.autocast("cuda", enabled=False):
                    yield
            else:
                yield
    finally:
        for module, training in modes:
            module.training = training


def first_line(error: BaseException) -> str:
    """What ``error`` says first, or its type where it says nothing."""
    text = " ".join(str(part) for part in error.args).strip()
    return text.splitlines()[0] if text else type(error).__name__


# --- operations that stand for layers -----------------------------------------------------------


class _Batch(enum.Enum):
    """What is known of sizes: that of a whole tensor, and the number of inputs in it."""

    SHAPE = enum.auto()
    SIZE = enum.auto()


@dataclass(frozen=True, slots=True)
class _Value:
    """The result of the layer of this name; "" is the model's input."""

    layer: str


#: What an operation gives: a value that was there before, a constant, or layers that follow each
#: other and, last, what the first of them reads.
_Meaning = _Value | _Batch | Tensor | int | float | tuple[Any, ...]


def _flatten(input: _Value, start_dim: int = 0, end_dim: int = -1) -> _Meaning:
    if start_dim != 1 or end_dim != -1:
        raise EdgebnnError("flatten everything but the batch: x.flatten(1)")
    return nn.Flatten(), (input,)


def _reshape(input: _Value, *shape: Any) -> _Meaning:
    sizes = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
    match tuple(sizes):
        case (_Batch.SIZE, int()) | (-1, int()) if sizes[1] == -1 or sizes[1] > 0:
            if tuple(sizes) != (-1, -1):
                return nn.Flatten(), (input,)
    raise EdgebnnError("flatten everything but the batch: x.flatten(1)")


def _size(input: _Value, dim: int | None = None) -> _Meaning:
    if dim is None:
        return _Batch.SHAPE
    if dim == 0:
        return _Batch.SIZE
    raise EdgebnnError("take the number of inputs alone: x.size(0)")


def _attribute(input: _Value, name: str) -> _Meaning:
    if name == "shape":
        return _Batch.SHAPE
    raise EdgebnnError(_FIX)


def _item(input: Any, index: Any) -> _Meaning:
    if input is _Batch.SHAPE and index == 0:
        return _Batch.SIZE
    raise EdgebnnError(_FIX)


def _add(input: Any, other: Any, *, alpha: int = 1) -> _Meaning:
    if alpha != 1:
        raise EdgebnnError("add the results of two layers, or a constant, without a factor")
    values = tuple(part for part in (input, other) if isinstance(part, _Value))
    if len(values) == 2:
        return Add(), values
    if not values:
        raise EdgebnnError(_FIX)
    constant = other if isinstance(input, _Value) else input
    if isinstance(constant, int) and constant == 0:  # how sum() begins
        return values[0]
    return _with(Bias, constant), (_given(values[0]),)


def _subtract(input: Any, other: Any, *, alpha: int = 1) -> _Meaning:
    match input, other:
        case (_Value(), _Value()):
            raise EdgebnnError("subtract constants alone; a layer learns the sign of its weights")
        case (_Value() as value, Tensor() | int() | float()) if alpha == 1:
            return _with(Bias, -other), (_given(value),)
        case (constant, _Value() as value) if alpha == 1:
            return Scale(-1.0), _with(Bias, constant), (_given(value),)
    raise EdgebnnError(_FIX)


def _multiply(input: Any, other: Any) -> _Meaning:
    match input, other:
        case (_Value(), _Value()):
            raise EdgebnnError("multiply by constants alone, as in x * 0.5 or x * self.factor")
        case (_Value() as value, constant) | (constant, _Value() as value):
            return _with(Scale, constant), (_given(value),)
    raise EdgebnnError(_FIX)


def _divide(input: Any, other: Any) -> _Meaning:
    _given(input)
    if isinstance(other, int | float) and other and math.isfinite(other):
        fraction, exponent = math.frexp(abs(other))
        if fraction == 0.5 and -100 < exponent < 100:  # then the product is the same to the bit
            return Scale(1.0 / other), (input,)
    raise EdgebnnError("multiply by the inverse: how a quotient is rounded differs between devices")


def _negate(input: _Value) -> _Meaning:
    return Scale(-1.0), (_given(input),)


def _given(value: Any) -> _Value:
    """``value``, if it is the result of a layer."""
    if not isinstance(value, _Value):
        raise EdgebnnError(_FIX)
    if not value.layer:
        raise EdgebnnError(
            "it comes before Input, which takes integers; the first norm scales them"
        )
    return value


def _with(kind: type[Scale] | type[Bias], constant: Any) -> nn.Module:
    """The layer that multiplies by a constant, or adds it, as torch would in float32."""
    if not isinstance(constant, Tensor):
        if type(constant) not in (int, float):
            raise EdgebnnError(_FIX)
        return _built(kind, constant)
    if constant.dtype in (torch.float64, torch.int64, torch.int32) or constant.is_complex():
        raise EdgebnnError(f"its constant is {constant.dtype}; make it float32")
    module = _built(kind, shape=tuple(constant.shape))
    return _holding(module, "value", constant)


def _built(kind: Callable[..., nn.Module], *values: Any, **more: Any) -> nn.Module:
    try:
        return kind(*values, **more)
    except (ValueError, AssertionError) as error:
        raise EdgebnnError(str(error) or _FIX) from None


def _holding(module: nn.Module, name: str, values: Tensor) -> nn.Module:
    """``module`` with ``values`` as its parameter ``name``, in float32."""
    module.load_state_dict({name: values.to(torch.float32, copy=True)}, assign=True)
    return module


def _relu(input: _Value, inplace: bool = False) -> _Meaning:
    return nn.ReLU(), (input,)


def _relu6(input: _Value, inplace: bool = False) -> _Meaning:
    return nn.ReLU6(), (input,)


def _hardtanh(
    input: _Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> _Meaning:
    return _built(nn.Hardtanh, min_val, max_val), (input,)


def _clamp(input: _Value, min: float | None = None, max: float | None = None) -> _Meaning:
    low, high = -math.inf if min is None else min, math.inf if max is None else max
    if not (isinstance(low, int | float) and isinstance(high, int | float) and low < high):
        raise EdgebnnError("clamp between two numbers, the lower one first")
    return nn.Hardtanh(float(low), float(high)), (input,)


def _leaky_relu(input: _Value, negative_slope: float = 0.01, inplace: bool = False) -> _Meaning:
    return nn.LeakyReLU(negative_slope), (input,)


def _prelu(input: _Value, weight: Any) -> _Meaning:
    if not isinstance(weight, Tensor):
        raise EdgebnnError(_FIX)
    return _holding(nn.PReLU(weight.numel()), "weight", weight.reshape(-1)), (input,)


def _softmax(
    input: _Value, dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> _Meaning:
    if dtype is not None:
        raise EdgebnnError("leave out its dtype")
    return nn.Softmax(dim), (input,)


def _log_softmax(
    input: _Value, dim: int | None = None, _stacklevel: int = 3, dtype: None = None
) -> _Meaning:
    if dtype is not None:
        raise EdgebnnError("leave out its dtype")
    return nn.LogSoftmax(dim), (input,)


def _max_pool(
    input: _Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> _Meaning:
    # An empty stride is torch's other way to say that it is the kernel's size.
    pool = nn.MaxPool2d(kernel_size, stride or None, padding, dilation, return_indices, ceil_mode)
    return pool, (input,)


def _dropout(
    input: _Value, p: float = 0.5, training: bool = True, inplace: bool = False
) -> _Meaning:
    if training:
        raise EdgebnnError("it drops values in eval mode too; give it training=self.training")
    return nn.Dropout(p), (input,)


def _sign(x: _Value) -> _Meaning:
    return Sign(), (x,)


def _same(input: _Value) -> _Meaning:
    return input


_OPERATIONS: Mapping[Any, Callable[..., _Meaning]] = {
    torch.flatten: _flatten,
    "flatten": _flatten,
    torch.reshape: _reshape,
    "reshape": _reshape,
    "view": _reshape,
    "size": _size,
    getattr: _attribute,
    operator.getitem: _item,
    operator.add: _add,
    torch.add: _add,
    "add": _add,
    operator.sub: _subtract,
    torch.sub: _subtract,
    "sub": _subtract,
    operator.mul: _multiply,
    torch.mul: _multiply,
    "mul": _multiply,
    operator.truediv: _divide,
    torch.div: _divide,
    "div": _divide,
    operator.neg: _negate,
    torch.neg: _negate,
    "neg": _negate,
    F.relu: _relu,
    torch.relu: _relu,
    "relu": _relu,
    F.relu6: _relu6,
    F.hardtanh: _hardtanh,
    torch.clamp: _clamp,
    "clamp": _clamp,
    F.leaky_relu: _leaky_relu,
    F.prelu: _prelu,
    "prelu": _prelu,
    F.softmax: _softmax,
    torch.softmax: _softmax,
    "softmax": _softmax,
    F.log_softmax: _log_softmax,
    torch.log_softmax: _log_softmax,
    "log_softmax": _log_softmax,
    F.max_pool2d: _max_pool,
    torch.max_pool2d: _max_pool,
    F.dropout: _dropout,
    sign: _sign,
    "contiguous": _same,
}


# --- tracing ------------------------------------------------------------------------------------


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        known = layer_type(m) is not None or is_own(m)
        return known or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True, slots=True)
class Traced:
    """The layers of a model, and the Softmax or LogSoftmax behind them, None where there is none.

    It is no layer: it leaves the order of the scores, hence the class, as it is.
    """

    layers: tuple[LayerNode, ...]
    ending: LayerNode | None

    def check_ending(self, shape: torch.Size) -> None:
        """Check that the ending is over the classes, where the scores of an input have ``shape``.

        Raises:
            EdgebnnError: it is over something else, or there is one score, which it makes 1.
        """
        if self.ending is None:
            return
        kind, dim = type(self.ending.module).__name__, getattr(self.ending.module, "dim", None)
        where = f"layer '{self.ending.name}' ({kind})"
        if math.prod(shape) == 1:
            raise EdgebnnError(
                f"{where} makes the same of any single score; leave it out: class 1 is where the "
                f"score is at least 0"
            )
        dims = len(shape) + 1
        axis = (0 if dims == 3 else 1) if dim is None else dim
        if axis not in (1, 1 - dims):
            raise EdgebnnError(f"{where} is not over the classes; give it dim=1")


def trace(model: nn.Module) -> tuple[LayerNode, ...]:
    """The layers of ``model``: :func:`follow` without the ending."""
    return follow(model).layers


def follow(model: nn.Module) -> Traced:
    """The layers of ``model`` in order of execution, in the mode it is in; the last is the output.

    Raises:
        EdgebnnError: the model cannot be traced, or does something that is not a layer.
    """
    attributes = set(vars(model))
    try:
        return _follow(model)
    finally:  # torch.fx keeps constants there
        for name in set(vars(model)) - attributes:
            if name.startswith("_tensor_constant"):
                delattr(model, name)


def _follow(model: nn.Module) -> Traced:
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # torch.fx raises whatever the user's forward does
        reason = first_line(error)
        raise EdgebnnError(f"the model cannot be traced by torch.fx: {reason}") from error
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    if len(placeholders) != 1:
        raise EdgebnnError(
            f"the model takes more than one input ({', '.join(placeholders)}); give it one"
        )
    walk = _Walk(model)
    for node in graph.nodes:
        walk.visit(node)
    nodes = _needed(walk.nodes, walk.last)
    _check_order(nodes)
    ending = nodes.pop() if type(nodes[-1].module) in (nn.Softmax, nn.LogSoftmax) else None
    return Traced((LayerNode(nodes[0].name, nodes[0].module, ()), *nodes[1:]), ending)


class _Walk:
    """Collects the layers of a graph of torch.fx, node by node."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.nodes: list[LayerNode] = []
        self.last = ""
        self._root = model
        self._meanings: dict[fx.Node, _Meaning] = {}
        self._names: set[str] = set()

    def visit(self, node: fx.Node) -> None:
        arguments: Any = fx.node.map_arg(node.args, self._meaning)
        keywords: Any = fx.node.map_arg(node.kwargs, self._meaning)
        match node.op:
            case "placeholder":
                self._meanings[node] = _Value("")
            case "output":
                result = arguments[0]
                if not isinstance(result, _Value) or not result.layer:
                    raise EdgebnnError("the model must return the result of its last layer alone")
                self.last = result.layer
            case "call_module":
                values = (*arguments, *keywords.values())
                self._meanings[node] = self._layer(str(node.target), values)
            case _:
                meaning = self._operation(node, arguments, keywords)
                if isinstance(meaning, tuple):
                    *modules, sources = meaning
                    for module in modules:
                        sources = (self._append(self._free(node.name), module, sources),)
                    meaning = sources[0]
                self._meanings[node] = meaning

    def _meaning(self, node: fx.Node) -> Any:
        return self._meanings[node]

    def _layer(self, name: str, values: tuple[Any, ...]) -> _Value:
        module = self.modules[name]
        if not all(isinstance(value, _Value) for value in values):
            kind = type(module).__name__
            raise EdgebnnError(f"layer '{name}' ({kind}) is given more than results of layers")
        if name in self._names:
            if has_state(module):
                raise EdgebnnError(
                    f"layer '{name}' is used twice; give each use a layer of its own"
                )
            name = self._free(name)
        return self._append(name, module, values)

    def _operation(self, node: fx.Node, arguments: Any, keywords: Any) -> _Meaning:
        what = getattr(node.target, "__name__", node.target)
        try:
            if node.op == "get_attr":
                path = str(node.target).split(".")
                return self._constant(functools.reduce(getattr, path, self._root))
            if _constant_alone(arguments, keywords):
                return self._constant(_evaluated(node, arguments, keywords))
            if node.target not in _OPERATIONS:
                raise EdgebnnError(f"supported layers: {', '.join(LAYERS)}")
            return _OPERATIONS[node.target](*arguments, **keywords)
        except EdgebnnError as error:
            reason = str(error)
        except (TypeError, ValueError, RuntimeError):
            reason = _FIX
        raise EdgebnnError(f"operation '{node.name}' ({what}) is not supported; {reason}")

    def _constant(self, value: Any) -> _Meaning:
        if isinstance(value, Tensor):
            return value.detach()
        if type(value) in (int, float):
            return value  # type: ignore[no-any-return]
        raise EdgebnnError(_FIX)

    def _append(self, name: str, module: nn.Module, sources: tuple[_Value, ...]) -> _Value:
        self._names.add(name)
        self.nodes.append(LayerNode(name, module, tuple(source.layer for source in sources)))
        return _Value(name)

    def _free(self, name: str) -> str:
        """``name`` for an operation or another use, which must not be that of a layer."""
        while name in self.modules or name in self._names:
            name += "_"
        return name


def _constant_alone(arguments: Any, keywords: Any) -> bool:
    """Whether an operation computes with parameters and numbers, and with no result of a layer."""
    parts: list[Any] = []
    fx.node.map_aggregate((arguments, keywords), parts.append)
    values = any(isinstance(part, _Value | _Batch) for part in parts)
    return not values and any(isinstance(part, Tensor) for part in parts)


def _evaluated(node: fx.Node, arguments: Any, keywords: Any) -> Any:
    """What an operation makes of constants, which stay as they are."""

    def own(part: Any) -> Any:
        return part.clone() if isinstance(part, Tensor) else part

    arguments = fx.node.map_aggregate(arguments, own)
    keywords = fx.node.map_aggregate(keywords, own)
    try:
        with torch.no_grad():
            if callable(node.target):
                return node.target(*arguments, **keywords)
            return getattr(arguments[0], node.target)(*arguments[1:], **keywords)
    except Exception as error:  # whatever torch raises for what the user has written
        raise EdgebnnError(first_line(error)) from error


def _needed(nodes: list[LayerNode], last: str) -> list[LayerNode]:
    """The nodes that ``last`` depends on; a forward may compute more than it returns."""
    wanted = {last}
    kept = []
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _check_order(nodes: list[LayerNode]) -> None:
    """Check that Input comes first, alone, and that each layer reads what it should."""
    if not nodes or not isinstance(nodes[0].module, Input):
        first = f"layer '{nodes[0].name}' ({type(nodes[0].module).__name__})" if nodes else "it"
        raise EdgebnnError(f"the model must begin with edgebnn.nn.Input(shape, bits), not {first}")
    for node in nodes[1:]:
        kind = type(node.module).__name__
        if isinstance(node.module, Input):
            raise EdgebnnError(f"layer '{node.name}' ({kind}) must be the first; remove it")
        if "" in node.inputs:
            raise EdgebnnError(f"layer '{node.name}' ({kind}) reads past Input; feed it a layer")
        wanted = input_count(node.module)
        if len(node.inputs) != wanted:
            raise EdgebnnError(
                f"layer '{node.name}' ({kind}) takes the results of {wanted} "
                f"layer{'s' if wanted > 1 else ''}, not of {len(node.inputs)}"
            )
