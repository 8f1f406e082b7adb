"""From an IR network to a schedule: the kernel of each op and where everything lies in one arena.

Every op's output lives from the op that makes it to the last op that reads it, scratch memory for
its op alone. What does not live at the same time may share memory. A kernel that can work in place
writes over a source that no later op reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgebnn import kernels
from edgebnn.bits import tensor_words
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network, Op, Tensor, sources, tensors
from edgebnn.targets import Target


@dataclass(frozen=True, slots=True)
class Buffer:
    """``words`` words that live from step ``first`` to step ``last``, both included."""

    words: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Step:
    """A run of ops with its kernel; offsets into the arena are in words, None where it needs none.

    ``sources`` are the tensors that the first op reads, in the order of
    :func:`edgebnn.ir.sources`; ``result`` is what the last one makes.
    """

    ops: tuple[Op, ...]
    sources: tuple[Tensor, ...]
    result: Tensor
    kernel: kernels.Kernel
    view: kernels.View
    source_offsets: tuple[int | None, ...]
    result_offset: int | None
    scratch_offset: int | None

    @property
    def op(self) -> Op:
        """The first op, whose name the run goes by."""
        return self.ops[0]

    @property
    def source(self) -> Tensor:
        """The tensor that the run reads, the first one if it reads two."""
        return self.sources[0]


@dataclass(frozen=True, slots=True)
class Plan:
    """A network scheduled for a target."""

    network: Network
    target: Target
    steps: tuple[Step, ...]
    arena_words: int

    @property
    def arena_bytes(self) -> int:
        return self.arena_words * self.target.cpu.word_bits // 8

    @property
    def constant_bytes(self) -> int:
        """Weights, thresholds and scales in flash."""
        return sum(table.bytes for step in self.steps for table in step.view.tables)


def place(buffers: Sequence[Buffer]) -> tuple[list[int], int]:
    """Offsets in words for ``buffers``, and the size of the arena that holds them.

    Largest first, each at the lowest offset where nothing that lives at the same time lies.
    """
    offsets = [0] * len(buffers)
    placed: list[int] = []
    for index in sorted(range(len(buffers)), key=lambda i: (-buffers[i].words, i)):
        buffer = buffers[index]
        offset = 0
        for other in sorted(placed, key=lambda i: offsets[i]):
            alive = buffers[other].first <= buffer.last and buffer.first <= buffers[other].last
            if alive and offsets[other] < offset + buffer.words:
                offset = max(offset, offsets[other] + buffers[other].words)
        offsets[index] = offset
        placed.append(index)
    ends = [offsets[i] + buffers[i].words for i in placed]
    return offsets, max(ends, default=0)


def plan(network: Network, target: Target, prefer: tuple[str, ...] = ()) -> Plan:
    """Choose a kernel for each op and lay out the arena.

    Args:
        prefer: ways of kernels to take, wherever they can be, before all others.

    Raises:
        EdgebnnError: an op has no kernel, or a kernel to prefer takes no op of the network, or none
            on this target.
    """
    shapes = tensors(network)
    last_read = {name: step for step, op in enumerate(network.ops) for name in sources(op)}
    buffers: list[Buffer] = []
    owners: dict[tuple[str, str], int] = {}
    choices = []

    def words(tensor: Tensor) -> int:
        return tensor_words(tensor, target.cpu.word_bits)

    for step, op in enumerate(network.ops):
        inputs = tuple(shapes[name] for name in sources(op))
        kernel, view = kernels.choose((op,), inputs, target, prefer)
        choices.append((inputs, kernel, view))
        size = words(shapes[op.name])
        spent = [
            owners[name, "result"]
            for name, tensor in zip(sources(op), inputs, strict=True)
            if kernel.in_place and last_read[name] == step and words(tensor) == size
        ]
        if spent:
            owners[op.name, "result"] = spent[0]
            end = last_read.get(op.name, step)
            buffers[spent[0]] = replace(buffers[spent[0]], last=end)
        elif size:
            owners[op.name, "result"] = len(buffers)
            buffers.append(Buffer(size, step, last_read.get(op.name, step)))
        if view.scratch_words:
            owners[op.name, "scratch"] = len(buffers)
            buffers.append(Buffer(view.scratch_words, step, step))
    for way in prefer:
        if all(kernel.way != way for _, kernel, _ in choices):
            given = zip(network.ops, choices, strict=True)
            known = (one for op, (inputs, *_) in given for one in kernels.candidates((op,), inputs))
            reason = f"is for {kernels.takes(way)}, and the network has no such layer"
            if any(one.way == way for one in known):
                reason = f"is not for target '{target.name}'"
            raise EdgebnnError(f"kernel {way} {reason}; leave the choice to the target")
    offsets, arena_words = place(buffers)

    def offset(name: str, what: str) -> int | None:
        return offsets[owners[name, what]] if (name, what) in owners else None

    steps = tuple(
        Step(
            ops=(op,),
            sources=inputs,
            result=shapes[op.name],
            kernel=kernel,
            view=view,
            source_offsets=tuple(offset(name, "result") for name in sources(op)),
            result_offset=offset(op.name, "result"),
            scratch_offset=offset(op.name, "scratch"),
        )
        for op, (inputs, kernel, view) in zip(network.ops, choices, strict=True)
    )
    return Plan(network, target, steps, arena_words)
