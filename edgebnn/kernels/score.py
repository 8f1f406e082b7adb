"""The scores of sums that are stored."""

from dataclasses import dataclass

from edgebnn.bits import Layout, sum_bits
from edgebnn.ir import Op, Score, Sums
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, ScoresHead, Table, Trips, Values, load, scores_head
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


def trips(view: ScoreView, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    return parts.total(
        {"score": 1, f"score.value{view.bits}": view.head.outputs}, parts.head(view.head)
    )


KERNEL = Kernel(
    "score", "direct", ((Score,),), frozenset({Layout.SUMS16, Layout.SUMS32}), fit, trips=trips
)
