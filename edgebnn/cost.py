"""What a network costs on a target, known before any compiler runs."""

from dataclasses import dataclass

from edgebnn.ir import Conv, Dense, DepthwiseConv, Network, ScoreVector, fan_in, infer, tensors
from edgebnn.plan import Plan


@dataclass(frozen=True, slots=True)
class OpCost:
    """One op, or a run of ops with one kernel: weights in bits, constants in bytes, products."""

    name: str
    kernel: str
    weight_bits: int
    constant_bytes: int
    macs: int


@dataclass(frozen=True, slots=True)
class Cost:
    """Constants in flash and static RAM, both exact; code and stack come on top."""

    constant_bytes: int
    ram_bytes: int  # the arena, and the constants where a CPU has them in RAM
    ops: tuple[OpCost, ...]


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
        ops.append(OpCost(name, step.kernel.way, weight_bits, constants, macs))
    ram = plan.arena_bytes
    if plan.target.cpu.constants_in_ram:
        ram += plan.constant_bytes
    return Cost(plan.constant_bytes, ram, tuple(ops))


def weight_bits(network: Network) -> int:
    """Binary weights of the whole network."""
    return sum(
        int(op.weights.size) for op in network.ops if isinstance(op, Dense | Conv | DepthwiseConv)
    )
