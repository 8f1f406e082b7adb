"""The network as a graph of known layers: what model files store and what lowering walks.

:data:`LAYERS` lists the layers that edgebnn knows; any other is refused by name.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgebnn.errors import EdgebnnError
from edgebnn.nn.constants import Bias, Scale
from edgebnn.nn.layers import Add, Input, Sign
from edgebnn.nn.norm import BatchNorm, OutputNorm, ShiftBatchNorm, ShiftOutputNorm
from edgebnn.nn.weights import BinaryConv, BinaryConv1d, BinaryConv2d, BinaryLinear


@dataclass(frozen=True, slots=True)
class LayerNode:
    """One layer in the order of execution; ``inputs`` are names of earlier nodes, () for Input."""

    name: str
    module: nn.Module
    inputs: tuple[str, ...]


def _own_config(module: Any) -> dict[str, Any]:
    config: dict[str, Any] = module.config()
    return config


def _max_pool_config(module: nn.MaxPool1d | nn.MaxPool2d) -> dict[str, Any]:
    kind, axes = type(module).__name__, axes_of(module)
    if set(as_sizes(module.padding, axes)) != {0} or set(as_sizes(module.dilation, axes)) != {1}:
        raise EdgebnnError(f"{kind} with padding or dilation is not supported; leave them out")
    if module.ceil_mode or module.return_indices:
        raise EdgebnnError(f"{kind} with ceil_mode or return_indices is not supported")
    return {
        "kernel_size": list(as_sizes(module.kernel_size, axes)),
        "stride": list(as_sizes(module.stride, axes)),
    }


def axes_of(module: nn.Module) -> int | None:
    """How many axes behind the channels ``module`` moves over; None where it takes any."""
    match module:
        case BinaryConv():
            return module.axes
        case nn.MaxPool1d():
            return 1
        case nn.MaxPool2d():
            return 2
    return None


def as_sizes(value: Any, axes: int | None) -> tuple[int, ...]:
    """One number for all axes, or one for each, as one for each."""
    sizes = tuple(value) if isinstance(value, tuple | list) else (value,) * (axes or 0)
    if len(sizes) != axes or any(type(v) is not int for v in sizes):
        what = "no integer" if axes == 1 else "neither an integer nor a pair of them"
        raise EdgebnnError(f"{value!r} is {what}")
    return sizes


def _flatten_config(module: nn.Flatten) -> dict[str, Any]:
    if module.start_dim != 1 or module.end_dim != -1:
        raise EdgebnnError("only Flatten() of everything but the batch is supported")
    return {}


def _hardtanh_config(module: nn.Hardtanh) -> dict[str, Any]:
    low, high = module.min_val, module.max_val
    if any(type(v) not in (int, float) for v in (low, high)) or not low < high:
        raise EdgebnnError(f"Hardtanh from {low!r} to {high!r}; give a lower and a higher number")
    return {"min_val": float(low), "max_val": float(high)}


def _leaky_relu_config(module: nn.LeakyReLU) -> dict[str, Any]:
    slope = module.negative_slope
    if type(slope) not in (int, float) or not math.isfinite(slope):
        raise EdgebnnError(f"LeakyReLU with a slope of {slope!r}; give a finite number")
    return {"negative_slope": float(slope)}


#: Every layer that a model file may name: its class and how to read its constructor arguments.
LAYERS: Mapping[str, tuple[type[nn.Module], Callable[[Any], dict[str, Any]]]] = {
    "Input": (Input, _own_config),
    "BinaryLinear": (BinaryLinear, _own_config),
    "BinaryConv1d": (BinaryConv1d, _own_config),
    "BinaryConv2d": (BinaryConv2d, _own_config),
    "BatchNorm": (BatchNorm, _own_config),
    "OutputNorm": (OutputNorm, _own_config),
    "ShiftBatchNorm": (ShiftBatchNorm, _own_config),
    "ShiftOutputNorm": (ShiftOutputNorm, _own_config),
    "Sign": (Sign, _own_config),
    "Scale": (Scale, _own_config),
    "Bias": (Bias, _own_config),
    "ReLU": (nn.ReLU, lambda module: {}),
    "ReLU6": (nn.ReLU6, lambda module: {}),
    "Hardtanh": (nn.Hardtanh, _hardtanh_config),
    "LeakyReLU": (nn.LeakyReLU, _leaky_relu_config),
    "PReLU": (nn.PReLU, lambda module: {"num_parameters": module.num_parameters}),
    "Add": (Add, _own_config),
    "MaxPool1d": (nn.MaxPool1d, _max_pool_config),
    "MaxPool2d": (nn.MaxPool2d, _max_pool_config),
    "Flatten": (nn.Flatten, _flatten_config),
    "Dropout": (nn.Dropout, lambda module: {"p": float(module.p)}),
    "Identity": (nn.Identity, lambda module: {}),
}
_TYPE_NAMES = {cls: name for name, (cls, _) in LAYERS.items()}
_OWN = tuple(cls for cls in _TYPE_NAMES if hasattr(cls, "config"))
_HINTS = {
    "Linear": "use edgebnn.nn.BinaryLinear",
    "Conv1d": "use edgebnn.nn.BinaryConv1d",
    "Conv2d": "use edgebnn.nn.BinaryConv2d",
    "BatchNorm1d": "use edgebnn.nn.BatchNorm, whose eval mode is exact",
    "BatchNorm2d": "use edgebnn.nn.BatchNorm, whose eval mode is exact",
    "Tanh": "use edgebnn.nn.Sign",
    "AvgPool1d": "use edgebnn.nn.MaxPool1d",
    "AvgPool2d": "use edgebnn.nn.MaxPool2d",
    "AdaptiveAvgPool1d": "use edgebnn.nn.MaxPool1d",
    "AdaptiveAvgPool2d": "use edgebnn.nn.MaxPool2d",
    "Softmax": "put it at the end of the network, where it is left out",
    "LogSoftmax": "put it at the end of the network, where it is left out",
    "Sigmoid": "leave it out: of one score, class 1 is where it is at least 0",
}
_FOLDED = "leave it out; before a Sign may stand norms, ReLU, ReLU6, Hardtanh, LeakyReLU and PReLU"


def layer_type(module: nn.Module) -> str | None:
    """The name in :data:`LAYERS` that ``module`` goes by, None where it is no such layer.

    A class that is derived from a layer and computes what that layer does goes by its name.
    """
    for cls in type(module).__mro__:
        if cls in _TYPE_NAMES:
            return _TYPE_NAMES[cls] if type(module).forward is cls.forward else None
    return None


def is_own(module: nn.Module) -> bool:
    """Whether ``module`` is one of edgebnn's layers, or of a class derived from one."""
    return isinstance(module, _OWN)


def has_state(module: nn.Module) -> bool:
    """Whether ``module`` has parameters or statistics, so that no two places can share it."""
    return bool(module.state_dict())


def describe(node: LayerNode, before_sign: bool = False) -> tuple[str, dict[str, Any]]:
    """(layer type, constructor arguments) of ``node`` as plain data.

    Args:
        before_sign: a Sign reads the result, so that a refusal does not ask for one.

    Raises:
        EdgebnnError: the layer, or an option of it, is not supported; named with its place.
    """
    kind = layer_type(node.module)
    if kind is None:
        unknown = type(node.module).__name__
        hint = _HINTS.get(unknown, f"supported layers: {', '.join(LAYERS)}")
        if before_sign and hint == _HINTS["Tanh"]:
            hint = _FOLDED
        for cls in type(node.module).__mro__:
            if cls in _TYPE_NAMES:
                hint = f"its forward is not {_TYPE_NAMES[cls]}'s; write a module that calls one"
        raise EdgebnnError(f"layer '{node.name}' ({unknown}) is not supported; {hint}")
    try:
        return kind, LAYERS[kind][1](node.module)
    except EdgebnnError as error:
        raise EdgebnnError(f"layer '{node.name}': {error}") from None
    except (TypeError, ValueError, AttributeError) as error:  # an attribute was changed since
        raise EdgebnnError(f"layer '{node.name}' ({kind}): {error}") from None


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


def check_values(nodes: tuple[LayerNode, ...]) -> None:
    """Check that parameters and statistics are finite float32.

    Raises:
        EdgebnnError: names the first layer where they are not.
    """
    for node in nodes:
        where = f"layer '{node.name}' ({type(node.module).__name__})"
        for name, value in node.module.state_dict().items():
            if value.is_meta:
                raise EdgebnnError(f"{where} has no values, it is on the meta device; load them")
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
            _check_axes(module, x)
            if isinstance(module, Scale | Bias):
                module.check(x)
                values[node.name] = x
            elif isinstance(module, nn.PReLU):
                if module.num_parameters not in (1, x.shape[1]):
                    raise ValueError(f"num_parameters is {module.num_parameters}")
                values[node.name] = x
            elif isinstance(module, BatchNorm | Sign):
                if module.num_features not in (None, x.shape[1]):
                    raise ValueError(f"num_features is {module.num_features}")
                values[node.name] = x
            elif isinstance(module, BinaryLinear):
                if x.shape[1:] != (module.in_features,):
                    raise ValueError(f"in_features is {module.in_features}")
                values[node.name] = x.new_empty((2, module.out_features))
            elif isinstance(module, BinaryConv):
                weight = torch.empty(module.latent_weight.shape, device="meta")
                values[node.name] = module.convolved(x, weight)
            else:
                values[node.name] = module(x)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise EdgebnnError(
                f"layer '{node.name}' ({type(module).__name__}) does not take its input of shape "
                f"{tuple(x.shape[1:])}: {reason}"
            ) from None
    return values[nodes[-1].name].shape[1:]


def _check_axes(module: nn.Module, x: Tensor) -> None:
    """Check that ``module`` is for such inputs: torch takes a batch for channels where it is not.

    Raises:
        ValueError: it is not; says what is.
    """
    axes = axes_of(module)
    if axes is None or x.dim() == axes + 2:
        return
    what = "signals (C, T)" if axes == 1 else "images (C, H, W)"
    other = "give it no flat input"
    if x.dim() in (3, 4):
        kind = "BinaryConv" if isinstance(module, BinaryConv) else "MaxPool"
        other = f"use edgebnn.nn.{kind}{x.dim() - 2}d"
    raise ValueError(f"it is for {what}; {other}")
