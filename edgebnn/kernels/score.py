"""The scores of sums that are stored."""

from dataclasses import dataclass

from edgebnn.bits import Layout, sum_bits
from edgebnn.ir import Op, Score, Sums
from edgebnn.kernels.base import Inputs, Kernel, ScoresHead, Table, scores_head
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class ScoreView:
    """What ``score.c.j2`` prints."""

    bits: int  # of a sum
    head: ScoresHead
    scratch_words: int = 0
    parameters: str = "const uint32_t *in"
    arguments: str = "in"

    @property
    def helpers(self) -> tuple[str, ...]:
        return ("sum16",) if self.bits == 16 else ()

    @property
    def tables(self) -> tuple[Table, ...]:
        return self.head.tables


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ScoreView | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Score) or not isinstance(source, Sums) or cpu.word_bits != 32:
        return None
    return ScoreView(sum_bits(source), scores_head(op.head))


KERNEL = Kernel("score", "direct", (Score,), frozenset({Layout.SUMS16, Layout.SUMS32}), fit)
