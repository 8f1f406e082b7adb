"""Dense layers on bits by masked columns: 32 outputs at once, and all inputs take the same time."""

from dataclasses import dataclass

from edgebnn.bits import Layout
from edgebnn.ir import Bits, Dense, Op, Threshold, fan_in
from edgebnn.kernels import masked
from edgebnn.kernels import trips as parts
from edgebnn.kernels.base import Inputs, Kernel, Reading, Table, Trips, Values, mismatch_limits
from edgebnn.targets.base import Cpu


@dataclass(frozen=True, slots=True)
class DenseMasked:
    """What ``dense_masked.c.j2`` prints."""

    outputs: int
    sums: masked.Masked

    @property
    def helpers(self) -> tuple[str, ...]:
        return masked.HELPERS

    @property
    def tables(self) -> tuple[Table, ...]:
        return self.sums.tables

    @property
    def scratch_words(self) -> int:
        return self.sums.scratch_words


def fit(ops: tuple[Op, ...], inputs: Inputs, cpu: Cpu) -> DenseMasked | None:
    (op,) = ops
    source = inputs[0]
    if not isinstance(op, Dense) or not isinstance(source, Bits):
        return None
    limits = mismatch_limits(op.head, fan_in(op)) if isinstance(op.head, Threshold) else None
    sums = None if limits is None else masked.masked(op.weights, limits, source, cpu)
    return None if sums is None else DenseMasked(len(op.weights), sums)


def pays(view: DenseMasked) -> bool:
    return masked.pays(view.sums, view.outputs)


def trips(view: DenseMasked, values: tuple[Values, ...], cpu: Cpu) -> Trips:
    several = view.sums.out_words * (view.sums.out_words > 1)
    here = {"dense_masked": 1, "dense_masked.word": several}
    return parts.total(here, masked.trips(view.sums, 1))


KERNEL = Kernel(
    "dense_masked",
    "masks",
    ((Dense,),),
    frozenset({Layout.ROWS}),
    fit,
    rank=-1,  # behind dense_columns
    pays=pays,
    trips=trips,
    reading=Reading.ROW,
)
