"""The network as a graph of known layers: what model files store and what lowering walks.

:func:`trace` reads any ``nn.Module`` with torch.fx, so a user's own ``forward`` is as good as a
``Sequential``. :data:`LAYERS` lists the layers that edgebnn knows; any other is refused by name.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgebnn.errors import EdgebnnError
from edgebnn.nn.layers import Add, BinaryConv2d, BinaryLinear, Input, Sign
from edgebnn.nn.norm import BatchNorm, OutputNorm, ShiftBatchNorm, ShiftOutputNorm


@dataclass(frozen=True, slots=True)
class LayerNode:
    """One layer in the order of execution; ``inputs`` are names of earlier nodes, () for Input."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]


def _own_config(module: Any) -> dict[str, Any]:
    config: dict[str, Any] = module.config()
    return config


def _max_pool_config(module: nn.MaxPool2d) -> dict[str, Any]:
    if as_pair(module.padding) != (0, 0) or as_pair(module.dilation) != (1, 1):
        raise EdgebnnError("MaxPool2d with padding or dilation is not supported; leave them out")
    if module.ceil_mode or module.return_indices:
        raise EdgebnnError("MaxPool2d with ceil_mode or return_indices is not supported")
    return {
        "kernel_size": list(as_pair(module.kernel_size)),
        "stride": list(as_pair(module.stride)),
    }


def as_pair(value: Any) -> tuple[int, int]:
    """One number, or (vertical, horizontal), as a pair."""
    pair = tuple(value) if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2 or any(type(v) is not int for v in pair):
        raise EdgebnnError(f"{value!r} is neither an integer nor a pair of them")
    return pair[0], pair[1]


def _flatten_config(module: nn.Flatten) -> dict[str, Any]:
    if module.start_dim != 1 or module.end_dim != -1:
        raise EdgebnnError("only Flatten() of everything but the batch is supported")
    return {}


#: Every layer that a model file may name: its class and how to read its constructor arguments.
LAYERS: Mapping[str, tuple[type[nn.Module], Callable[[Any], dict[str, Any]]]] = {
    "Input": (Input, _own_config),
    "BinaryLinear": (BinaryLinear, _own_config),
    "BinaryConv2d": (BinaryConv2d, _own_config),
    "BatchNorm": (BatchNorm, _own_config),
    "OutputNorm": (OutputNorm, _own_config),
    "ShiftBatchNorm": (ShiftBatchNorm, _own_config),
    "ShiftOutputNorm": (ShiftOutputNorm, _own_config),
    "Sign": (Sign, _own_config),
    "Add": (Add, _own_config),
    "MaxPool2d": (nn.MaxPool2d, _max_pool_config),
    "Flatten": (nn.Flatten, _flatten_config),
    "Dropout": (nn.Dropout, lambda module: {"p": float(module.p)}),
    "Identity": (nn.Identity, lambda module: {}),
}
_TYPE_NAMES = {cls: name for name, (cls, _) in LAYERS.items()}
_HINTS = {
    "Linear": "use edgebnn.nn.BinaryLinear",
    "Conv2d": "use edgebnn.nn.BinaryConv2d",
    "BatchNorm1d": "use edgebnn.nn.BatchNorm, whose eval mode is exact",
    "BatchNorm2d": "use edgebnn.nn.BatchNorm, whose eval mode is exact",
    "ReLU": "use edgebnn.nn.Sign",
    "Hardtanh": "use edgebnn.nn.Sign",
    "Tanh": "use edgebnn.nn.Sign",
    "AvgPool2d": "use edgebnn.nn.MaxPool2d",
    "AdaptiveAvgPool2d": "use edgebnn.nn.MaxPool2d",
    "Softmax": "leave it out: the scores are compared as integers",
}


def describe(node: LayerNode) -> tuple[str, dict[str, Any]]:
    """(layer type, constructor arguments) of ``node`` as plain data.

    Raises:
        EdgebnnError: the layer, or an option of it, is not supported; named with its place.
    """
    kind = _TYPE_NAMES.get(type(node.module))
    if kind is None:
        unknown = type(node.module).__name__
        hint = _HINTS.get(unknown, f"supported layers: {', '.join(LAYERS)}")
        raise EdgebnnError(f"layer '{node.name}' ({unknown}) is not supported; {hint}")
    try:
        return kind, LAYERS[kind][1](node.module)
    except EdgebnnError as error:
        raise EdgebnnError(f"layer '{node.name}': {error}") from None


def build_layer(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """The layer that :func:`describe` described; on whatever device is current."""
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
    return LAYERS[kind][0](**arguments)


def input_count(module: nn.Module) -> int:
    """How many layers feed ``module``."""
    return 0 if isinstance(module, Input) else 2 if isinstance(module, Add) else 1


class LayerGraph(nn.Module):
    """Layers that are no chain, in order of execution: what a model file with additions loads as.

    Args:
        layers: by name; the last one gives the output.
        sources: for each layer the names of the earlier ones that feed it, () for Input.
    """

    sources: Mapping[str, tuple[str, ...]] = {}

    def __init__(
        self, layers: Mapping[str, nn.Module], sources: Mapping[str, tuple[str, ...]]
    ) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.sources = dict(sources)

    def forward(self, x: Tensor) -> Tensor:
        values: dict[str, Tensor] = {}
        y = x
        for name, layer in self.named_children():
            y = layer(*[values[source] for source in self.sources[name]] or [x])
            values[name] = y
        return y


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in _TYPE_NAMES or super().is_leaf_module(m, module_qualified_name)


def trace(model: nn.Module) -> tuple[LayerNode, ...]:
    """The layers of ``model`` in order of execution; the last one gives the output.

    Raises:
        EdgebnnError: the model cannot be traced, or does something that is not a layer.
    """
    try:
        graph = _Tracer().trace(model)
    except Exception as error:  # torch.fx raises whatever the user's forward does
        raise EdgebnnError(f"the model cannot be traced by torch.fx: {error}") from error
    modules = dict(model.named_modules())
    nodes: list[LayerNode] = []
    alias: dict[str, str] = {}  # fx node name -> name of the layer that computes it
    placeholders = [node.name for node in graph.nodes if node.op == "placeholder"]
    if len(placeholders) != 1:
        raise EdgebnnError(
            f"the model takes more than one input ({', '.join(placeholders)}); give it one"
        )
    last = ""
    for node in graph.nodes:
        arguments = [*node.args, *node.kwargs.values()]
        # "" is the input
        inputs = tuple(alias.get(n.name, "") for n in arguments if isinstance(n, fx.Node))
        match node.op:
            case "placeholder":
                pass
            case "output":
                if len(inputs) != 1 or inputs == ("",):
                    raise EdgebnnError("the model must return the result of its last layer alone")
                last = inputs[0]
            case "call_module":
                alias[node.name] = str(node.target)
                nodes.append(LayerNode(str(node.target), modules[str(node.target)], inputs))
            case _ if _is_flatten(node):
                alias[node.name] = _free(node.name, modules)
                nodes.append(LayerNode(alias[node.name], nn.Flatten(), inputs))
            case _ if _is_add(node):
                alias[node.name] = _free(node.name, modules)
                nodes.append(LayerNode(alias[node.name], Add(), inputs))
            case _:
                what = getattr(node.target, "__name__", node.target)
                raise EdgebnnError(
                    f"operation '{node.name}' ({what}) is not supported; "
                    f"supported layers: {', '.join(LAYERS)}"
                )
    nodes = _needed(nodes, last)
    names = [node.name for node in nodes]
    if not nodes or not isinstance(nodes[0].module, Input):
        first = f"layer '{nodes[0].name}' ({type(nodes[0].module).__name__})" if nodes else "it"
        raise EdgebnnError(f"the model must begin with edgebnn.nn.Input(shape, bits), not {first}")
    for name in names:
        if names.count(name) > 1:
            raise EdgebnnError(f"layer '{name}' is used twice; give each use a layer of its own")
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
    return (LayerNode(nodes[0].name, nodes[0].module, ()), *nodes[1:])


def _needed(nodes: list[LayerNode], last: str) -> list[LayerNode]:
    """The nodes that ``last`` depends on; a forward may compute more than it returns."""
    wanted = {last}
    kept = []
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return kept[::-1]


def _is_flatten(node: fx.Node) -> bool:
    if node.op == "call_function":
        known = node.target is torch.flatten
    else:
        known = node.op == "call_method" and node.target == "flatten"
    return known and (node.args[1:] == (1,) or node.kwargs == {"start_dim": 1})


def _is_add(node: fx.Node) -> bool:
    if node.op == "call_function":
        known = node.target in (operator.add, torch.add)
    else:
        known = node.op == "call_method" and node.target == "add"
    return known and set(node.kwargs) <= {"input", "other"}


def _free(name: str, modules: Mapping[str, nn.Module]) -> str:
    """``name`` for an operation, which must not be that of a layer."""
    while name in modules:
        name += "_"
    return name


def check_values(nodes: tuple[LayerNode, ...]) -> None:
    """Check that parameters and statistics are finite float32.

    Raises:
        EdgebnnError: names the first layer where they are not.
    """
    for node in nodes:
        where = f"layer '{node.name}' ({type(node.module).__name__})"
        for name, value in node.module.state_dict().items():
            if value.is_floating_point() and value.dtype != torch.float32:
                raise EdgebnnError(f"{where} is {value.dtype}; call model.float() first")
            if not bool(torch.isfinite(value).all()):
                raise EdgebnnError(f"{where} holds NaN or infinity in '{name}'; train it again")
            if name == "running_var" and bool((value < 0).any()):
                raise EdgebnnError(f"{where} holds a negative variance; train it again")


def check_shapes(nodes: tuple[LayerNode, ...]) -> torch.Size:
    """The shape of the output of one input; no value is computed.

    Raises:
        EdgebnnError: names the first layer that does not take what comes before it.
    """
    values: dict[str, Tensor] = {}
    for node in nodes:
        module = node.module
        if isinstance(module, Input):
            values[node.name] = torch.empty((2, *module.shape), device="meta")
            continue
        x = values[node.inputs[0]]
        if isinstance(module, Add):
            shapes = [tuple(values[name].shape[1:]) for name in node.inputs]
            if shapes[0] != shapes[1]:
                raise EdgebnnError(
                    f"layer '{node.name}' (Add) adds {shapes[0]} and {shapes[1]}; "
                    f"give it two results of the same shape"
                )
            values[node.name] = x
            continue
        try:
            if isinstance(module, BatchNorm | Sign):
                if module.num_features not in (None, x.shape[1]):
                    raise ValueError(f"num_features is {module.num_features}")
                values[node.name] = x
            elif isinstance(module, BinaryLinear):
                if x.shape[1:] != (module.in_features,):
                    raise ValueError(f"in_features is {module.in_features}")
                values[node.name] = x.new_empty((2, module.out_features))
            elif isinstance(module, BinaryConv2d):
                weight = torch.empty(module.latent_weight.shape, device="meta")
                padding = module.padding
                y = nn.functional.conv2d(
                    x, weight, None, module.stride, padding, groups=module.groups
                )
                values[node.name] = y
            else:
                values[node.name] = module(x)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise EdgebnnError(
                f"layer '{node.name}' ({type(module).__name__}) does not take its input of shape "
                f"{tuple(x.shape[1:])}: {reason}"
            ) from None
    return values[nodes[-1].name].shape[1:]
