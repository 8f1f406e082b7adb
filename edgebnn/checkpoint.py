"""model.pt: tensors and plain data, never code.

A file has one of two forms. The *training* form holds latent weights and, if training goes on, the
state of optimizer and random generators. The *release* form holds the signs, eight to a byte, and
the norms: about 32 times smaller, and enough for everything but further training.
"""

import contextlib
import math
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

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
    trace,
)
from edgebnn.nn.layers import BinaryConv2d, BinaryLinear, weight_signs

FORMAT = "edgebnn model"
VERSION = 1
_DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError)
_STEP = re.compile(r"[a-z]{1,20}( [1-9][0-9]{0,3})?")
_MOST_STEPS = 8
Form = Literal["training", "release"]
Plain = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of a model beside its layers.

    ``test_accuracy`` is a fraction, ``right_shift`` the number of low bits that preprocessing
    drops from an 8-bit pixel, after the ``preprocessing`` steps of
    :mod:`edgebnn.train.transforms`, which the emitted C leaves to its user too.
    """

    class_names: tuple[str, ...] = ()
    test_accuracy: float | None = None
    dataset: str = ""
    right_shift: int = 0
    preprocessing: tuple[str, ...] = ()
    recipe: Mapping[str, Plain] = field(default_factory=dict)
    seed: int | None = None

    @property
    def input_steps(self) -> tuple[str, ...]:
        """All that is done to 8-bit pixels, in order, before they are the network's input."""
        shift = (f"shift right by {self.right_shift}",) if self.right_shift else ()
        return (*self.preprocessing, *shift)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A model file, read. ``training`` is the resumable state, None where there is none."""

    model: nn.Module
    metadata: Metadata
    form: Form
    training: dict[str, Any] | None


def save(
    model: nn.Module,
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] = (),
    test_accuracy: float | None = None,
    dataset: str = "",
    right_shift: int = 0,
    preprocessing: Sequence[str] = (),
    recipe: Mapping[str, Plain] | None = None,
    seed: int | None = None,
    training: dict[str, Any] | None = None,
    form: Form = "training",
) -> None:
    """Write ``model`` to ``path``, whole or not at all.

    Args:
        model: any module of layers that edgebnn knows (see :mod:`edgebnn.nn`).
        training: resumable state, tensors and plain data only; dropped in release form.

    Raises:
        EdgebnnError: a layer is not supported, shapes do not chain, a value is not finite.
    """
    nodes = trace(model)
    layers = []
    for node in nodes:
        kind, config = describe(node)
        state = node.module.state_dict()
        tensors = {name: value.detach().cpu().clone() for name, value in state.items()}
        if form == "release" and isinstance(node.module, BinaryLinear | BinaryConv2d):
            tensors = {"sign_bits": _pack(weight_signs(node.module))}
        entry = {"name": node.name, "type": kind, "config": config}
        layers.append({**entry, "inputs": list(node.inputs), "tensors": tensors})
    check_values(nodes)
    _check_metadata(check_shapes(nodes), class_names, right_shift)
    steps = list(_steps(preprocessing))
    content = {
        "format": FORMAT,
        "version": VERSION,
        "form": form,
        "layers": layers,
        "metadata": {
            "class_names": list(class_names),
            "test_accuracy": test_accuracy,
            "dataset": dataset,
            "right_shift": right_shift,
            "preprocessing": steps,
            "recipe": dict(recipe or {}),
            "seed": seed,
        },
        "training": training if form == "training" else None,
    }
    with _replacing(Path(path)) as file:
        torch.save(content, file)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` when the block ends well, and vanishes otherwise."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    except OSError as error:
        raise EdgebnnError(f"cannot write {path}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> nn.Module:
    """The model in ``path``, in eval mode. Raises EdgebnnError as :func:`read` does."""
    return read(path).model.eval()


def read(path: str | os.PathLike[str]) -> Checkpoint:
    """Everything in ``path``. No code in the file is ever run.

    Raises:
        EdgebnnError: one line that says what is wrong with the file.
    """
    path = Path(path)
    content = _load_plain(path)
    try:
        return _parse(content)
    except EdgebnnError as error:
        raise EdgebnnError(f"{path}: {error}") from None
    except _DAMAGE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgebnnError(f"{path}: damaged edgebnn model ({reason})") from None


def _load_plain(path: Path) -> Any:
    if path.is_dir():
        raise EdgebnnError(f"{path} is a folder; give a model file")
    if not path.is_file():
        raise EdgebnnError(f"{path}: no such file; `edgebnn train` makes one")
    if not zipfile.is_zipfile(path):
        raise EdgebnnError(f"{path}: not an edgebnn model, or cut short; train or copy it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise EdgebnnError(
            f"{path}: refused, the file holds code or objects other than tensors and plain data"
        ) from None
    except OSError as error:
        raise EdgebnnError(f"cannot read {path}: {error.strerror or error}") from None
    except Exception as error:  # torch raises many types for a damaged archive
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EdgebnnError(f"{path}: not an edgebnn model, or damaged ({reason})") from None


def _parse(content: Any) -> Checkpoint:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise EdgebnnError("not an edgebnn model; `edgebnn.save(model, path)` makes one")
    if content["version"] != VERSION:
        raise EdgebnnError(
            f"format version {content['version']}, this edgebnn reads {VERSION}; "
            f"update edgebnn or save the model again"
        )
    form = content["form"]
    if form not in ("training", "release"):
        raise EdgebnnError(f"unknown form '{form}'")
    model = _connect(content["layers"])
    metadata = _metadata(content["metadata"])
    _check_metadata(check_shapes(trace(model)), metadata.class_names, metadata.right_shift)
    training = content["training"]
    if not (training is None or isinstance(training, dict)):
        raise EdgebnnError("its state of training is damaged; train it again")
    return Checkpoint(model, metadata, form, training)


def _connect(entries: Sequence[Mapping[str, Any]]) -> nn.Module:
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


def _check_metadata(output: torch.Size, class_names: Sequence[str], right_shift: int) -> None:
    classes = math.prod(output)
    if class_names and len(class_names) != classes:
        raise EdgebnnError(f"{len(class_names)} class names for {classes} classes")
    if not 0 <= right_shift < 8:
        raise EdgebnnError(f"right_shift is {right_shift}; pixels have 8 bits, so give 0 to 7")


def _steps(steps: object) -> tuple[str, ...]:
    """``steps`` if they look like preprocessing; which there are, edgebnn.train knows."""
    if not isinstance(steps, list | tuple) or len(steps) > _MOST_STEPS:
        raise EdgebnnError(f"preprocessing is no list of up to {_MOST_STEPS} steps")
    for step in steps:
        if not isinstance(step, str) or not _STEP.fullmatch(step):
            raise EdgebnnError(
                f"preprocessing step {step!r:.60} is none; write it as in 'resize 16'"
            )
    return tuple(steps)


def _attribute(name: str, taken: Mapping[str, nn.Module]) -> str:
    """``name`` as that of a submodule: no dots, and not an attribute that the module has."""
    plain = name.replace(".", "_")
    reserved = hasattr(nn.Sequential, plain) or hasattr(LayerGraph, plain)
    if plain and plain not in taken and not reserved:
        return plain
    return f"layer_{len(taken)}_{plain}"


def _restore(name: str, entry: Mapping[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"):  # nothing is allocated before its size has been checked
            module = build_layer(entry["type"], entry["config"])
        describe(LayerNode(name, module, ()))
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise EdgebnnError(f"layer '{name}' ({entry['type']}): {reason}") from None
    tensors: dict[str, Tensor] = dict(entry["tensors"])
    expected = module.state_dict()
    if "sign_bits" in tensors:
        shape = expected["latent_weight"].shape
        tensors = {"latent_weight": _unpack(name, tensors["sign_bits"], shape)}
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


def _metadata(content: Mapping[str, Any]) -> Metadata:
    accuracy = content["test_accuracy"]
    seed = content["seed"]
    recipe = {str(k): v for k, v in content["recipe"].items() if isinstance(v, Plain)}
    return Metadata(
        class_names=tuple(str(name) for name in content["class_names"]),
        test_accuracy=None if accuracy is None else float(accuracy),
        dataset=str(content["dataset"]),
        right_shift=int(content["right_shift"]),
        preprocessing=_steps(content.get("preprocessing", ())),
        recipe=recipe,
        seed=None if seed is None else int(seed),
    )
