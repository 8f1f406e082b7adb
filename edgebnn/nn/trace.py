"""Any ``nn.Module``'s forward as a graph of known layers, by torch.fx.

A user's own ``forward`` is as good as a ``Sequential``: :data:`_OPERATIONS` says which functions
and methods of tensors stand for which layer. What torch.fx does not see (hooks, in-place
operations, a forward that was replaced) is not in the graph; :mod:`edgebnn.proof` finds it by
comparing what the module computes with what its graph does.
"""

import enum
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from edgebnn.errors import EdgebnnError
from edgebnn.nn.functional import sign
from edgebnn.nn.graph import LAYERS, LayerNode, has_state, input_count, is_own, layer_type
from edgebnn.nn.layers import Add, Input, Sign

_FIX = "build the model of layers and of +, flatten, max_pool2d and sign alone"


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


#: What an operation gives: a value that was there before, or a layer and what it reads.
_Meaning = _Value | _Batch | tuple[nn.Module, tuple[_Value, ...]]


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
    match input, other:
        case _Value(), _Value() if alpha == 1:
            return Add(), (input, other)
        case (0, _Value() as value) | (_Value() as value, 0):  # how sum() begins
            return value
    raise EdgebnnError("add the results of two layers, without factors and constants")


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


def trace(model: nn.Module) -> tuple[LayerNode, ...]:
    """The layers of ``model`` in order of execution, in the mode it is in; the last is the output.

    Raises:
        EdgebnnError: the model cannot be traced, or does something that is not a layer.
    """
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
    return (LayerNode(nodes[0].name, nodes[0].module, ()), *nodes[1:])


class _Walk:
    """Collects the layers of a graph of torch.fx, node by node."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        self.nodes: list[LayerNode] = []
        self.last = ""
        self._meanings: dict[fx.Node, _Value | _Batch] = {}
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
                    module, sources = meaning
                    meaning = self._append(self._free(node.name), module, sources)
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
            if node.op == "get_attr" or node.target not in _OPERATIONS:
                raise EdgebnnError(f"supported layers: {', '.join(LAYERS)}")
            return _OPERATIONS[node.target](*arguments, **keywords)
        except EdgebnnError as error:
            reason = str(error)
        except (TypeError, ValueError):
            reason = _FIX
        raise EdgebnnError(f"operation '{node.name}' ({what}) is not supported; {reason}")

    def _append(self, name: str, module: nn.Module, sources: tuple[_Value, ...]) -> _Value:
        self._names.add(name)
        self.nodes.append(LayerNode(name, module, tuple(source.layer for source in sources)))
        return _Value(name)

    def _free(self, name: str) -> str:
        """``name`` for an operation or another use, which must not be that of a layer."""
        while name in self.modules or name in self._names:
            name += "_"
        return name


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
