"""What a network costs on a target, known before any compiler runs."""

from dataclasses import dataclass

from edgebnn.ir import Conv, Dense, DepthwiseConv, Network, ScoreVector, fan_in, infer, tensors
from edgebnn.plan import Plan


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
    """Constants in flash and static RAM, both exact; code and stack come on top.

    ``instructions`` and ``most`` are those of ops, and those of all ops with what calls them.
    """

    constant_bytes: int
    ram_bytes: int  # the arena, and the constants where a CPU has them in RAM
    ops: tuple[OpCost, ...]
    instructions: float | None = None
    most: float | None = None


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
    return Cost(plan.constant_bytes, ram, tuple(ops), mean, plan.most)


def weight_bits(network: Network) -> int:
    """Binary weights of the whole network."""
    return sum(
        int(op.weights.size) for op in network.ops if isinstance(op, Dense | Conv | DepthwiseConv)
    )
