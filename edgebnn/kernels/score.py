"""The scores of sums that are stored."""

from dataclasses import dataclass

from edgebnn.bits import Layout, sum_bits
from edgebnn.ir import Op, Score, Sums
from edgebnn.kernels.base import Inputs, Kernel, ScoresHead, Table, load, scores_head
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class ScoreView:
    """What ``score.c.j2`` prints; ``load`` is the function that reads a sum, "" for a word."""

    bits: int  # of a sum
    load: str
    head: ScoresHead
    parameters: str
    arguments: str = "in"
    scratch_words: int = 0

    @property
    def helpers(self) -> tuple[str, ...]:
        return (*((self.load,) if self.load else ()), *self.head.helpers)

    @property
    def tables(self) -> tuple[Table, ...]:
        return self.head.tables


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> ScoreView | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Score) or not isinstance(source, Sums):
        return None
    head = scores_head(op.head, cpu)
    return ScoreView(sum_bits(source), load(source, cpu), head, f"const {cpu.word} *in")


KERNEL = Kernel("score", "direct", ((Score,),), frozenset({Layout.SUMS16, Layout.SUMS32}), fit)
