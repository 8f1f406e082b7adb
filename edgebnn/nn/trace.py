"""Any ``nn.Module``'s forward as a graph of known layers, by torch.fx.

A user's own ``forward`` is as good as a ``Sequential``: :mod:`edgebnn.nn.operations` says which
functions and methods of tensors stand for which layer. What torch.fx does not see (hooks, in-place
operations, a forward that was replaced) is not in the graph; :mod:`edgebnn.proof` finds it by
comparing what the module computes with what its graph does.
"""

import functools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from edgebnn.errors import EdgebnnError
from edgebnn.nn.graph import LAYERS, LayerNode, has_state, input_count, is_own, layer_type
from edgebnn.nn.layers import Input
from edgebnn.nn.operations import FIX, OPERATIONS, Batch, Meaning, Value


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
        self._meanings: dict[fx.Node, Meaning] = {}
        self._names: set[str] = set()

    def visit(self, node: fx.Node) -> None:
        arguments: Any = fx.node.map_arg(node.args, self._meaning)
        keywords: Any = fx.node.map_arg(node.kwargs, self._meaning)
        match node.op:
            case "placeholder":
                self._meanings[node] = Value("")
            case "output":
                result = arguments[0]
                if not isinstance(result, Value) or not result.layer:
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

    def _layer(self, name: str, values: tuple[Any, ...]) -> Value:
        module = self.modules[name]
        if not all(isinstance(value, Value) for value in values):
            kind = type(module).__name__
            raise EdgebnnError(f"layer '{name}' ({kind}) is given more than results of layers")
        if name in self._names:
            if has_state(module):
                raise EdgebnnError(
                    f"layer '{name}' is used twice; give each use a layer of its own"
                )
            name = self._free(name)
        return self._append(name, module, values)

    def _operation(self, node: fx.Node, arguments: Any, keywords: Any) -> Meaning:
        what = getattr(node.target, "__name__", node.target)
        try:
            if node.op == "get_attr":
                path = str(node.target).split(".")
                return self._constant(functools.reduce(getattr, path, self._root))
            if _constant_alone(arguments, keywords):
                return self._constant(_evaluated(node, arguments, keywords))
            if node.target not in OPERATIONS:
                raise EdgebnnError(f"supported layers: {', '.join(LAYERS)}")
            return OPERATIONS[node.target](*arguments, **keywords)
        except EdgebnnError as error:
            reason = str(error)
        except (TypeError, ValueError, RuntimeError):
            reason = FIX
        raise EdgebnnError(f"operation '{node.name}' ({what}) is not supported; {reason}")

    def _constant(self, value: Any) -> Meaning:
        if isinstance(value, Tensor):
            return value.detach()
        if type(value) in (int, float):
            return value  # type: ignore[no-any-return]
        raise EdgebnnError(FIX)

    def _append(self, name: str, module: nn.Module, sources: tuple[Value, ...]) -> Value:
        self._names.add(name)
        self.nodes.append(LayerNode(name, module, tuple(source.layer for source in sources)))
        return Value(name)

    def _free(self, name: str) -> str:
        """``name`` for an operation or another use, which must not be that of a layer."""
        while name in self.modules or name in self._names:
            name += "_"
        return name


def _constant_alone(arguments: Any, keywords: Any) -> bool:
    """Whether an operation computes with parameters and numbers, and with no result of a layer."""
    parts: list[Any] = []
    fx.node.map_aggregate((arguments, keywords), parts.append)
    values = any(isinstance(part, Value | Batch) for part in parts)
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
