"""What a network costs on a target, known before any compiler runs."""

from dataclasses import dataclass

from edgebnn import kernels
from edgebnn.ir import (
    Conv,
    Dense,
    DepthwiseConv,
    Network,
    ScoreVector,
    fan_in,
    infer,
    sources,
    tensors,
)
from edgebnn.kernels.base import Trips
from edgebnn.plan import Plan
from edgebnn.prices import network_parts, prices_of
from edgebnn.prices.printed import printed, stacked
from edgebnn.targets import Target

_SPARE = 16  # bytes of stack that a layer may take more than all that prices were fitted on
_BEYOND = {  # more than that, as it was seen at most; gcc unrolls loops of these, now and then
    "conv_bit_planes": 72,
    "conv_rows": 57,
    "depthwise_levels": 28,
    "conv_delta": 26,
    "conv_level_direct": 26,
    "conv_level_rows": 26,
    "depthwise_direct": 25,
    "depthwise_sliced": 21,
    "conv_masked": 20,
    "max_pool": 20,
    "conv_direct": 19,
    "dense_rows": 19,
}


@dataclass(frozen=True, slots=True)
class OpCost:
    """One op, or a run of ops with one kernel: weights in bits, constants in bytes, products.

    ``instructions`` are the mean of those predicted for sample inputs, ``most`` those that no input
    exceeds; None where nobody can say it.
    """

    name: str
    kernel: str
    weight_bits: int
    constant_bytes: int
    macs: int
    instructions: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Constants in flash and static RAM, both exact; what code there is, and the stack at most.

    ``instructions`` and ``most`` are those of ops, and those of all ops with what calls them.
    """

    constant_bytes: int
    ram_bytes: int  # the arena, and the constants where a CPU has them in RAM
    ops: tuple[OpCost, ...]
    instructions: float | None = None
    most: float | None = None
    code_bytes: float | None = None
    stack_bytes: float | None = None


@dataclass(frozen=True, slots=True)
class Printed:
    """A layer, or what is beside all layers ("network"), by parts of its code and of its stack."""

    kernel: str
    code: Trips
    stack: Trips


def table_bytes(network: Network, target: Target) -> int:
    """Weights, thresholds and scales in bytes, where each layer has them in its smallest tables.

    What a plan has of them may be less: a tree of filters has its own in instructions.
    """
    shapes, found = tensors(network), 0
    for op in network.ops:
        inputs = tuple(shapes[name] for name in sources(op))
        fitting = kernels.fitting((op,), inputs, target)
        views = [view for _, kernel, view in fitting if not kernel.code(view)]
        found += min(sum(table.bytes for table in view.tables) for view in views)
    return found


def printed_parts(plan: Plan) -> list[Printed] | None:
    """All that a library has, that beside the layers last; None: nobody knows what some have."""
    found = []
    for step in plan.steps:
        there = printed(step.kernel, step.view, step.sources, plan.target.cpu)
        if there is None:
            return None
        found.append(Printed(step.kernel.name, there, stacked(step.kernel, step.view, there)))
    helpers = {helper for step in plan.steps for helper in step.view.helpers}
    beside = network_parts(len(plan.steps), plan.network.num_classes, sorted(helpers))
    return [*found, Printed("network", beside, beside)]


def code_and_stack(plan: Plan) -> tuple[float, float] | None:
    """Bytes of code for an inference, about, and of stack at most; None: nobody knows them."""
    prices, there = prices_of(plan.target.name), printed_parts(plan)
    if prices is None or there is None:
        return None
    code = [prices.code_of(one.kernel, one.code) for one in there]
    stack = [prices.stack_of(one.kernel, one.stack) for one in there]
    sizes = [size for size in code if size is not None]
    spare = [_BEYOND.get(one.kernel, _SPARE) for one in there[:-1]] + [0]
    frames = [
        frame + beyond for frame, beyond in zip(stack, spare, strict=True) if frame is not None
    ]
    if min(len(sizes), len(frames)) < len(there):
        return None
    return sum(sizes), max(frames[:-1]) + frames[-1]


def cost(plan: Plan) -> Cost:
    """The cost of ``plan``, op by op."""
    shapes = tensors(plan.network)
    ops = []
    for step in plan.steps:
        weight_bits = macs = 0
        for op in step.ops:
            if isinstance(op, Dense | Conv | DepthwiseConv):
                weight_bits += int(op.weights.size)
                result = infer(op, shapes[op.source])
                pixels = 1 if isinstance(result, ScoreVector) else result.height * result.width
                outputs = op.weights.shape[-1] if isinstance(op, DepthwiseConv) else len(op.weights)
                macs += pixels * outputs * fan_in(op)
        constants = sum(table.bytes for table in step.view.tables)
        name = " + ".join(op.name for op in step.ops)
        known = None if step.instructions is None else float(step.instructions.mean())
        most = plan.most_of(step)
        ops.append(OpCost(name, step.kernel.way, weight_bits, constants, macs, known, most))
    ram = plan.arena_bytes
    if plan.target.cpu.constants_in_ram:
        ram += plan.constant_bytes
    whole = plan.instructions
    mean = None if whole is None else float(whole.mean())
    sizes = code_and_stack(plan) or (None, None)
    return Cost(plan.constant_bytes, ram, tuple(ops), mean, plan.most, *sizes)


def weight_bits(network: Network) -> int:
    """Binary weights of the whole network."""
    return sum(
        int(op.weights.size) for op in network.ops if isinstance(op, Dense | Conv | DepthwiseConv)
    )
