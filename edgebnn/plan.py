"""From an IR network to a schedule: the kernel of each op and where everything lies in one arena.

Every op's output lives from the op that makes it to the last op that reads it, scratch memory for
its op alone. What does not live at the same time may share memory. A kernel that can work in place
writes over a source that no later op reads.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edgebnn import choice, kernels
from edgebnn.bits import own_bits, tensor_words
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Bits, Network, Op, Tensor, sources, tensors
from edgebnn.kernels.base import Reading
from edgebnn.kernels.pixels import alike
from edgebnn.prices import Counted, network_trips, prices_of
from edgebnn.targets import Target
from edgebnn.targets.base import Cpu
from edgebnn.wishes import Wishes


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
    :func:`edgebnn.ir.sources`; ``result`` is what the last one makes. ``instructions`` are those
    predicted, one a sample input, None where nobody can; ``reason`` says why the kernel was taken,
    where that is known.
    """

    ops: tuple[Op, ...]
    sources: tuple[Tensor, ...]
    result: Tensor
    kernel: kernels.Kernel
    view: kernels.View
    source_offsets: tuple[int | None, ...]
    result_offset: int | None
    scratch_offset: int | None
    instructions: Counted | None = None
    reason: str = ""

    @property
    def op(self) -> Op:
        """The first op, whose name the run goes by."""
        return self.ops[0]

    @property
    def source(self) -> Tensor:
        """The tensor that the run reads, the first one if it reads two."""
        return self.sources[0]


def step_words(step: Step, cpu: Cpu) -> tuple[int, int]:
    """Bits of the words that a step reads and writes."""
    read, written = (own_bits(one, cpu.word_bits) for one in (step.source, step.result))
    match step.kernel.reading:
        case Reading.ROW:
            read = cpu.word_bits
        case Reading.BYTES:
            read = 8
        case Reading.ALIKE:
            read = alike(step.source, step.result, cpu)
            written = read if isinstance(step.result, Bits) else written
    return read, written


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

    @property
    def instructions(self) -> Counted | None:
        """Those predicted of a whole inference, one a sample input; None where nobody can."""
        prices, found = prices_of(self.target.name), None
        for step in self.steps:
            if step.instructions is None or prices is None:
                return None
            if found is None:
                trips = network_trips(len(self.steps), self.network.num_classes)
                found = prices.sum(trips, len(step.instructions))
            found = found + step.instructions
        return found

    @property
    def most(self) -> float | None:
        """Those that no input exceeds; None where nobody can say it."""
        prices, found = prices_of(self.target.name), 0.0
        for step in self.steps:
            most = self.most_of(step)
            if most is None or prices is None:
                return None
            found += most
        trips = network_trips(len(self.steps), self.network.num_classes)
        return found + prices.raised("network", float(prices.each(trips)[0])) if prices else None

    def most_of(self, step: Step) -> float | None:
        """The same, of a step."""
        prices = prices_of(self.target.name)
        if prices is None:
            return None
        return prices.most(step.kernel, step.view, step.sources, self.target.cpu)


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


def plan(
    network: Network,
    target: Target,
    prefer: tuple[str, ...] = (),
    *,
    wishes: Wishes = Wishes(),  # noqa: B008 - frozen
    samples: NDArray[np.uint8] | None = None,
) -> Plan:
    """Choose a kernel for each op and lay out the arena.

    Args:
        prefer: ways of kernels to take, wherever they can be, before all others.
        wishes: what it is to be best in, and the memory that there is.
        samples: (N, input bytes) inputs of the network's kind. With them, and prices of the target,
            the kernels that take the fewest instructions are chosen; else rules decide.

    Raises:
        EdgebnnError: an op has no kernel, no kernels fit the memory, or a kernel to prefer takes no
            op of the network, or none on this target.
    """
    shapes = tensors(network)
    there = choice.options(network, shapes, target, prefer, wishes, samples)

    def ram(path: choice.Path) -> int:
        return _laid_out(network, target, shapes, path).arena_bytes

    chosen = choice.best(network, there, wishes, ram, target.cpu.constants_in_ram)
    for way in prefer:
        if all(one.kernel.way != way for one in chosen):
            reason = _why_not(way, chosen, target, wishes.constant_time)
            raise EdgebnnError(f"kernel {way} {reason}; leave the choice to the target")
    found = _laid_out(network, target, shapes, chosen)
    places = {op.name: place for place, op in enumerate(network.ops)}
    steps = tuple(
        replace(step, reason=choice.reason(one, there[places[one.ops[0].name]]))
        for step, one in zip(found.steps, chosen, strict=True)
    )
    return replace(found, steps=steps)


def plans(network: Network, target: Target, samples: NDArray[np.uint8]) -> Iterator[Plan]:
    """All plans that there are, that of the fewest predicted instructions first."""
    shapes = tensors(network)
    there = choice.options(network, shapes, target, (), Wishes(), samples)
    for path in choice.paths(network, there):
        yield _laid_out(network, target, shapes, path)


def _laid_out(
    network: Network, target: Target, shapes: Mapping[str, Tensor], chosen: choice.Path
) -> Plan:
    """The plan of these kernels: where everything lies."""
    last_read = {name: step for step, one in enumerate(chosen) for name in sources(one.ops[0])}
    buffers: list[Buffer] = []
    owners: dict[tuple[str, str], int] = {}

    def words(tensor: Tensor) -> int:
        return tensor_words(tensor, target.cpu.word_bits)

    for step, one in enumerate(chosen):
        first, last = one.ops[0], one.ops[-1].name
        size = words(shapes[last])
        spent = [
            owners[name, "result"]
            for name, tensor in zip(sources(first), one.inputs, strict=True)
            if one.kernel.in_place and last_read[name] == step and words(tensor) == size
        ]
        if spent:
            owners[last, "result"] = spent[0]
            end = last_read.get(last, step)
            buffers[spent[0]] = replace(buffers[spent[0]], last=end)
        elif size:
            owners[last, "result"] = len(buffers)
            buffers.append(Buffer(size, step, last_read.get(last, step)))
        if one.view.scratch_words:
            owners[last, "scratch"] = len(buffers)
            buffers.append(Buffer(one.view.scratch_words, step, step))
    offsets, arena_words = place(buffers)

    def offset(name: str, what: str) -> int | None:
        return offsets[owners[name, what]] if (name, what) in owners else None

    steps = tuple(
        Step(
            ops=one.ops,
            sources=one.inputs,
            result=shapes[one.ops[-1].name],
            kernel=one.kernel,
            view=one.view,
            source_offsets=tuple(offset(name, "result") for name in sources(one.ops[0])),
            result_offset=offset(one.ops[-1].name, "result"),
            scratch_offset=offset(one.ops[-1].name, "scratch"),
            instructions=one.instructions,
        )
        for one in chosen
    )
    return Plan(network, target, steps, arena_words)


def _why_not(way: str, chosen: choice.Path, target: Target, constant_time: bool) -> str:
    """Why no layer is computed in that ``way``."""
    known = [kernel for one in chosen for _, kernel in kernels.candidates(one.run, one.inputs)]
    there = [kernel for kernel in known if kernel.way == way]
    if not there:
        return f"is for {kernels.takes(way)}, and the network has no such layer"
    if constant_time and not any(kernel.constant_time for kernel in there):
        return "takes more time for some inputs than for others"
    return f"takes no layer of this network on target '{target.name}'"
