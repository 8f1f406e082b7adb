"""Layers as plain data and tensors, which model files hold, and back.

An entry is a dict: ``name``, ``type`` (a key of :data:`edgebnn.nn.graph.LAYERS`), ``config`` (its
constructor arguments), ``inputs`` (names of earlier entries) and ``tensors`` (its state on the CPU;
in release form ``sign_bits`` in the place of latent weights).
"""

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from edgebnn.errors import EdgebnnError
from edgebnn.nn.graph import (
    LAYERS,
    LayerGraph,
    LayerNode,
    build_layer,
    check_shapes,
    check_values,
    describe,
    input_count,
)
from edgebnn.nn.layers import Sign
from edgebnn.nn.weights import BinaryConv, BinaryLinear, weight_signs

Form = Literal["training", "release"]
Entry = dict[str, Any]


def record(nodes: Sequence[LayerNode], form: Form = "training") -> list[Entry]:
    """``nodes`` as plain data; the tensors are copies.

    Raises:
        EdgebnnError: a layer is not supported, shapes do not chain, a value is not finite.
    """
    entries: list[Entry] = []
    empty = []
    signed = _before_signs(nodes)
    for node in nodes:
        kind, config = describe(node, node.name in signed)
        entries.append({"name": node.name, "type": kind, "config": config})
        empty.append(LayerNode(node.name, _empty(node.name, entries[-1]), node.inputs))
    check_shapes(tuple(empty))
    check_values(tuple(nodes))
    for node, like, entry in zip(nodes, empty, entries, strict=True):
        state = node.module.state_dict()
        _check_state(like, state)
        tensors = {name: value.detach().cpu().clone() for name, value in state.items()}
        if form == "release" and isinstance(node.module, BinaryLinear | BinaryConv):
            del tensors["latent_weight"]
            tensors["sign_bits"] = _pack(weight_signs(node.module))
        entry.update(inputs=list(node.inputs), tensors=tensors)
    return entries


def _before_signs(nodes: Sequence[LayerNode]) -> set[str]:
    """The layers whose result gets to a Sign, through no layer with weights."""
    signed: set[str] = set()
    for node in reversed(nodes):
        weights = isinstance(
            node.module, BinaryLinear | BinaryConv | nn.Linear | nn.Conv1d | nn.Conv2d
        )
        if isinstance(node.module, Sign) or (node.name in signed and not weights):
            signed.update(node.inputs)
    return signed


def copies(nodes: Sequence[LayerNode]) -> tuple[LayerNode, ...]:
    """``nodes`` with new modules of the same configuration and values, on the CPU, in eval mode.

    What a user has put around a layer (hooks, attributes, a derived class) is not copied.
    """
    return tuple(
        LayerNode(node.name, _restore(node.name, entry).eval(), node.inputs)
        for node, entry in zip(nodes, record(nodes), strict=True)
    )


def _check_state(like: LayerNode, state: Mapping[str, Tensor]) -> None:
    """Check that a layer's state is that of its type, and not computed from something else."""
    where = f"layer '{like.name}' ({type(like.module).__name__})"
    expected = like.module.state_dict()
    for name in expected:
        if name not in state:
            raise EdgebnnError(
                f"{where} computes its '{name}' from something else (a parametrization, pruning, "
                f"weight or spectral norm); make it permanent first, as with "
                f"torch.nn.utils.parametrize.remove_parametrizations(layer, '{name}') or "
                f"torch.nn.utils.prune.remove(layer, '{name}')"
            )
    for name in state:
        if name not in expected:
            raise EdgebnnError(f"{where} holds '{name}', which no model file can; remove it")


def connect(entries: Sequence[Mapping[str, Any]]) -> nn.Module:
    """The layers of a file: a Sequential where each follows the one before it."""
    layers: dict[str, nn.Module] = {}
    sources: dict[str, tuple[str, ...]] = {}
    attributes: dict[str, str] = {}  # by the name in the file
    for entry in entries:
        name = str(entry["name"])
        if entry["type"] not in LAYERS:
            raise EdgebnnError(f"layer '{name}' is of unknown type '{entry['type']}'")
        if name in attributes:
            raise EdgebnnError(f"two layers are named '{name}'")
        inputs = [str(source) for source in entry["inputs"]]
        for source in inputs:
            if source not in attributes:
                raise EdgebnnError(f"layer '{name}' reads '{source}', which is no layer before it")
        module = _restore(name, entry)
        if len(inputs) != input_count(module):
            wanted = input_count(module)
            raise EdgebnnError(f"layer '{name}' reads {len(inputs)} layers, not {wanted}")
        attribute = _attribute(name, layers)
        sources[attribute] = tuple(attributes[source] for source in inputs)
        attributes[name] = attribute
        layers[attribute] = module
    order = list(layers)
    read = {source for names in sources.values() for source in names}
    for name, attribute in attributes.items():
        if attribute not in read and attribute != order[-1]:
            raise EdgebnnError(f"no layer reads the result of layer '{name}'")
    chain = [(), *((name,) for name in order[:-1])]
    if list(sources.values()) == chain[: len(order)]:
        return nn.Sequential(OrderedDict(layers))
    return LayerGraph(layers, sources)


def _attribute(name: str, taken: Mapping[str, nn.Module]) -> str:
    """``name`` as that of a submodule: no dots, and not an attribute that the module has."""
    plain = name.replace(".", "_")
    reserved = hasattr(nn.Sequential, plain) or hasattr(LayerGraph, plain)
    if plain and plain not in taken and not reserved:
        return plain
    return f"layer_{len(taken)}_{plain}"


def _empty(name: str, entry: Mapping[str, Any]) -> nn.Module:
    """The layer without values: nothing is allocated before its size has been checked."""
    try:
        with torch.device("meta"):
            module = build_layer(entry["type"], entry["config"])
        describe(LayerNode(name, module, ()))
    except (TypeError, ValueError, RuntimeError, AssertionError) as error:
        reason = (str(error) or "its settings make no sense").splitlines()[0]
        raise EdgebnnError(f"layer '{name}' ({entry['type']}): {reason}") from None
    return module


def _restore(name: str, entry: Mapping[str, Any]) -> nn.Module:
    module = _empty(name, entry)
    tensors: dict[str, Tensor] = dict(entry["tensors"])
    expected = module.state_dict()
    if "sign_bits" in tensors:
        shape = expected["latent_weight"].shape
        tensors["latent_weight"] = _unpack(name, tensors["sign_bits"], shape)
    for key, like in expected.items():
        if key not in tensors:
            raise EdgebnnError(f"layer '{name}' lacks '{key}'")
        tensor = tensors[key]
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            raise EdgebnnError(
                f"layer '{name}': '{key}' is {tuple(tensor.shape)} {tensor.dtype}, "
                f"not {tuple(like.shape)} {like.dtype}"
            )
        if tensor.untyped_storage().nbytes() < tensor.numel() * tensor.element_size():
            raise EdgebnnError(f"layer '{name}': '{key}' has fewer bytes than its shape says")
        if not bool(torch.isfinite(tensor).all()):
            raise EdgebnnError(f"layer '{name}' holds NaN or infinity in '{key}'; train it again")
        if key == "running_var" and bool((tensor < 0).any()):
            raise EdgebnnError(f"layer '{name}' holds a negative variance; train it again")
    module.load_state_dict({k: tensors[k].clone() for k in expected}, assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    return module


def _pack(signs: Tensor) -> Tensor:
    bits = (signs.numpy().ravel() > 0).astype(np.uint8)
    return torch.from_numpy(np.packbits(bits, bitorder="little"))


def _unpack(name: str, packed: Tensor, shape: torch.Size) -> Tensor:
    count = math.prod(shape)
    if packed.dtype != torch.uint8 or packed.shape != ((count + 7) // 8,):
        raise EdgebnnError(f"layer '{name}': {packed.numel()} bytes of signs for {count} weights")
    bits = np.unpackbits(packed.numpy(), count=count, bitorder="little")
    return torch.from_numpy(2.0 * bits.astype(np.float32) - 1.0).reshape(shape)
