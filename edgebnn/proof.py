"""The first link of the proof: does the lowered network compute what the user's own module does?

A model is traced, written down as plain data, read back and lowered. Each of these steps may miss
what a user has put around the layers: a hook, an in-place operation, a forward that was replaced.
So the module itself, in eval mode, runs on inputs from its whole range, and what each of its
layers gives, and the scores, are compared with the layers read back and with the oracle.
A Softmax or LogSoftmax at the end is no layer, for it changes no class: what the module gives is
compared with that function of the scores of the layers, and these scores with the oracle.
:mod:`edgebnn.measure` is the rest of the chain, from here to the chip.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgebnn import reference
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.nn.graph import LayerNode
from edgebnn.nn.layers import Input
from edgebnn.nn.record import Entry, Form, connect, record
from edgebnn.nn.trace import evaluating, first_line, follow, hooked, trace, unwrap

INPUTS = 32


@dataclass(frozen=True, slots=True)
class Proof:
    """A network that was compared with the module it comes from.

    ``layers`` is the module as plain data (see :mod:`edgebnn.nn.record`).
    """

    layers: list[Entry]
    network: Network

    @property
    def zero_point(self) -> int:
        """The input that stands for 0."""
        return int(self.layers[0]["config"].get("zero_point", 0))


def prove(model: nn.Module, *, form: Form = "training") -> Proof:
    """Lower ``model`` and compare it, in eval mode, with what comes out; it is left as it was.

    Args:
        model: the user's module, in either mode and on any device.
        form: of the plain data.

    Raises:
        EdgebnnError: the model cannot be lowered, or computes something else than its layers one
            after the other; names the layer where it can be found.
    """
    model = unwrap(model)
    with evaluating(model):
        traced = follow(model)
        nodes = traced.layers
        layers = record(nodes, form)
        parsed = connect(layers).eval()
        network = lower(parsed)
        first = nodes[0].module
        assert isinstance(first, Input)
        images = sample(first.shape, first.bits, INPUTS)
        results, own = _run(model, nodes, images)
        scores = _follow(model, nodes, trace(parsed), images, results)
        traced.check_ending(scores.shape[1:])
        expected = _ended(traced.ending, scores, model)
        if own.shape != expected.shape or not torch.equal(own, expected):
            raise EdgebnnError(_outside(model))
        _check_scores(network, images, scores.double())
    return Proof(layers, network)


def sample(shape: tuple[int, ...], bits: int, count: int) -> NDArray[np.uint8]:
    """(count, *shape) integers of ``bits`` bits, always the same.

    All 0, all at the top, and in turn noise of the whole range, of a low range, sparse and of the
    two extremes.
    """
    rng = np.random.default_rng(0)
    top = 2**bits - 1
    images = rng.integers(0, top + 1, (count, *shape))
    images[1::4] //= rng.integers(1, top + 1, (len(images[1::4]), *[1] * len(shape)))
    images[2::4] *= rng.random(images[2::4].shape) < 0.2
    images[3::4] = np.where(images[3::4] > top // 2, top, 0)
    images[:1], images[1:2] = 0, top
    return images.astype(np.uint8)


def _run(
    model: nn.Module, nodes: Sequence[LayerNode], images: NDArray[np.uint8]
) -> tuple[dict[str, Tensor], Tensor]:
    """What each layer of the user's module gives, by name, and the module: in float64 on the CPU.

    What is computed by operations, not by modules, is left out.
    """
    given = torch.from_numpy(images.astype(np.float32)).to(_device(model))
    with _listening(nodes) as results:
        try:
            with _eager(model):
                own = model(given)
        except Exception as error:
            raise EdgebnnError(
                f"the model fails on inputs of shape {tuple(given.shape)} with integers from 0 to "
                f"{int(given.max())}: {first_line(error)}"
            ) from error
    if not isinstance(own, Tensor):
        raise EdgebnnError(f"the model gives a {type(own).__name__}, not a tensor of scores")
    return results, _exact(own)


def _eager(model: nn.Module) -> AbstractContextManager[object]:
    """Modules that were compiled in place run as they are written; what tracing sees is that."""
    if any(module._compiled_call_impl is not None for module in model.modules()):
        stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
        return stance
    return nullcontext()  # set_stance would import a compiler, which takes seconds


@contextmanager
def _listening(nodes: Sequence[LayerNode]) -> Iterator[dict[str, Tensor]]:
    """Collects what the modules of ``nodes`` give while the block runs, by the nodes' names."""
    uses: dict[nn.Module, list[str]] = {}
    for node in nodes:
        uses.setdefault(node.module, []).append(node.name)
    heard: dict[nn.Module, list[object]] = {module: [] for module in uses}
    results: dict[str, Tensor] = {}

    def keep(module: nn.Module, given: object, result: object) -> None:
        heard[module].append(_exact(result) if isinstance(result, Tensor) else result)

    # Of all hooks these come last, so that they hear what the user's have made of a result.
    handles = [module.register_forward_hook(keep) for module in uses]
    try:
        yield results
    finally:
        for handle in handles:
            handle.remove()
    for module, names in uses.items():
        if len(heard[module]) == len(names):  # else it also runs for a result that nobody takes
            given = zip(names, heard[module], strict=True)
            results.update((name, value) for name, value in given if isinstance(value, Tensor))


def _exact(values: Tensor) -> Tensor:
    """A copy that no in-place operation reaches; float64 holds what any of the types does."""
    return values.detach().to("cpu", torch.float64, copy=True)


def _follow(
    model: nn.Module,
    nodes: Sequence[LayerNode],
    parsed: Sequence[LayerNode],
    images: NDArray[np.uint8],
    results: dict[str, Tensor],
) -> Tensor:
    """The scores of the layers read back; each layer's result is that of the user's, or refused."""
    values: dict[str, Tensor] = {}
    given = torch.from_numpy(images)
    result = given
    for node, copy in zip(nodes, parsed, strict=True):
        result = copy.module(*[values[name] for name in copy.inputs] or [given])
        values[copy.name] = result
        theirs = results.get(node.name)
        if theirs is not None and not (
            theirs.shape == result.shape and torch.equal(theirs, result.double())
        ):
            raise EdgebnnError(_at_layer(model, node))
    return result


def _ended(ending: LayerNode | None, scores: Tensor, model: nn.Module) -> Tensor:
    """What the module gives for the scores of its layers: computed where, and as, it does it."""
    if ending is None:
        return scores.double()
    kind: Any = type(ending.module)  # one of its own, with no hook
    return _exact(kind(ending.module.dim)(scores.to(_device(model))))


def _device(model: nn.Module) -> torch.device | str:
    return next((p.device for p in (*model.parameters(), *model.buffers())), "cpu")


def _check_scores(network: Network, images: NDArray[np.uint8], scores: Tensor) -> None:
    """Check that the oracle gives ``scores``."""
    flat = images.reshape(len(images), *_image_shape(network))
    outputs = reference.run(network, flat.transpose(0, 2, 3, 1))
    scaled = scores.numpy().reshape(len(images), -1) * 2.0**network.scores.fraction_bits
    differing = int((scaled != outputs.scores).any(axis=1).sum())
    if differing:
        raise EdgebnnError(
            f"torch and the lowered network differ on {differing} of {len(images)} inputs; "
            f"if torch runs with its default settings, please report this with the model"
        )


def _image_shape(network: Network) -> tuple[int, int, int]:
    return network.input.channels, network.input.height, network.input.width


def _at_layer(model: nn.Module, node: LayerNode) -> str:
    where = f"layer '{node.name}' ({type(node.module).__name__})"
    if "forward" in vars(node.module):
        return f"{where}: its forward was replaced, which no device runs; write a module around it"
    if hooked(node.module):
        return f"{where}: a forward hook changes what it gives, which no device runs; remove it"
    if isinstance(node.module, Input):  # nothing but the model's own hook comes before it
        return _outside(model)
    return (
        f"{where} gives other values in the model than where the layers run one after the other; "
        f"look before it for += on a value that something else reads (write y = y + x), or a hook"
    )


def _outside(model: nn.Module) -> str:
    cause = "look for += or a hook in the model's own forward"
    if hooked(model):
        cause = "the model has a forward hook, which no device runs; remove it"
    elif "forward" in vars(model):
        cause = "its forward was replaced by assignment; define it in the class"
    return f"the model gives other scores than its layers one after the other; {cause}"
