"""A network on a GPU: the kernels of each op, and where everything lies in one piece of memory.

Tensors live and share memory as :mod:`edgebnn.plan` has it, here per image of a batch.
"""

from dataclasses import dataclass

from edgebnn.cuda.elementwise import layer_of  # not written yet
from edgebnn.cuda.layers import Layer
from edgebnn.cuda.memory import image_bytes
from edgebnn.ir import Network, Op, Tensor, sources, tensors
from edgebnn.plan import Buffer, place

Place = int | None
"""Bytes of an image's memory before a tensor's; None for input and scores, which are the caller's.

In a batch that is filled up to n images, the tensor begins at n times as many bytes.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """An op with its kernels; ``sources`` and ``result`` are the tensors, and places theirs."""

    op: Op
    sources: tuple[Tensor, ...]
    result: Tensor
    layer: Layer
    source_places: tuple[Place, ...]
    result_place: Place
    scratch_place: Place


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """The steps of a network, and the bytes that all tensors between them take for an image."""

    network: Network
    steps: tuple[Step, ...]
    image_bytes: int


def schedule(network: Network) -> Schedule:
    """The kernels for ``network`` and the places of its tensors.

    Raises:
        EdgebnnError: an op has no kernel for GPUs.
    """
    shapes = tensors(network)
    last_read = {name: step for step, op in enumerate(network.ops) for name in sources(op)}
    layers = [layer_of(op, tuple(shapes[name] for name in sources(op))) for op in network.ops]
    buffers: list[Buffer] = []
    owners: dict[tuple[str, str], int] = {}
    for step, (op, layer) in enumerate(zip(network.ops, layers, strict=True)):
        for what, size, last in (
            ("result", image_bytes(shapes[op.name]), last_read.get(op.name, step)),
            ("scratch", layer.scratch, step),
        ):
            if size:
                owners[op.name, what] = len(buffers)
                buffers.append(Buffer(size, step, last))
    offsets, size = place(buffers)

    def offset(name: str, what: str) -> Place:
        return offsets[owners[name, what]] if (name, what) in owners else None

    steps = tuple(
        Step(
            op=op,
            sources=tuple(shapes[name] for name in sources(op)),
            result=shapes[op.name],
            layer=layer,
            source_places=tuple(offset(name, "result") for name in sources(op)),
            result_place=offset(op.name, "result"),
            scratch_place=offset(op.name, "scratch"),
        )
        for op, layer in zip(network.ops, layers, strict=True)
    )
    return Schedule(network, steps, size)
