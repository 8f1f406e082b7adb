"""A network on a GPU: the kernels of each op, and where everything lies in one piece of memory.

Tensors live and share memory as :mod:`edgebnn.plan` has it, here per image of a batch.
"""

from dataclasses import dataclass

from edgebnn.cuda import elementwise
from edgebnn.cuda.layers import Launch, Layer
from edgebnn.cuda.memory import IMAGES, image_bytes
from edgebnn.cuda.persistent import persistent
from edgebnn.cuda.product import product
from edgebnn.errors import EdgebnnError
from edgebnn.ir import (
    Add,
    Binarize,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Ints,
    MaxPool,
    Network,
    Op,
    Quantize,
    Score,
    ScoreVector,
    Sums,
    Tensor,
    sources,
    tensors,
)
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

    @property
    def at_once(self) -> Launch | None:
        """The kernel of all layers, for batches that are not too large; most networks have none."""
        return persistent(self.network, [step.layer for step in self.steps])

    @property
    def most_images(self) -> int:
        """The largest batch: kernels number blocks and pixels with 31 bits."""
        shapes = {tensor for step in self.steps for tensor in (*step.sources, step.result)}
        pixels = [
            tensor.height * tensor.width for tensor in shapes if not isinstance(tensor, ScoreVector)
        ]
        grids = [
            grid.items * max(1, -(-grid.columns // grid.per_block))
            for step in self.steps
            for launch in step.layer.launches
            for grid in launch.grids
        ]
        return (2**31 - 1) // max(*pixels, *grids) // IMAGES * IMAGES


def layer_of(op: Op, inputs: tuple[Tensor, ...]) -> Layer:
    """The kernels of ``op`` on the tensors of its :func:`edgebnn.ir.sources`.

    Raises:
        EdgebnnError: there are none for GPUs.
    """
    match op, inputs[0]:
        case Dense(), Bits() | Ints():
            return product(op, inputs[0])
        case Dense(), Sums() as source:
            return elementwise.dense_sums(op, source)
        case Conv(), Bits():
            return product(op, inputs[0])
        case Conv(), Ints() as source:
            return elementwise.direct(op, source)
        case DepthwiseConv(), Bits() | Ints() as source:
            return elementwise.depthwise(op, source)
        case MaxPool(), Bits() as source:
            return elementwise.max_pool(op, source)
        case MaxPool(), Sums() as source if not op.all_set.any():
            return elementwise.max_pool_sums(op, source)
        case Binarize() | Quantize(), Ints() | Sums() as source:
            return elementwise.binarize(op, source)
        case Add(), Sums() as source:
            return elementwise.add(op, source)
        case Score(), Sums() as source:
            return elementwise.score(op, source)
    raise EdgebnnError(f"layer {op.name} has no kernel for GPUs; choose another target than cuda")


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
