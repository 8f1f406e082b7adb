"""Which kernels a network gets: for each run of ops the options, and the best ones that fit.

Where a target has prices, or one alike has, and there are sample inputs, the best is what takes the
fewest instructions on them. Else the rules of :mod:`edgebnn.kernels` decide: an option costs its
place among them.
"""

import heapq
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgebnn import kernels, reference
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network, Op, Tensor, sources
from edgebnn.kernels.base import Values
from edgebnn.prices import Counted, prices_of
from edgebnn.targets import Target
from edgebnn.wishes import Wishes

_MOST = 4000  # plans that are laid out in search of one that fits
_ALTERNATIVES = 50  # as fast as each other, of which the one of the least RAM is taken
_ALIKE = 1.01  # times the instructions of the best: predictions are no finer
_SLOWER = 1.5  # times as many by one word after the other, on a CPU without prices of its own


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """A kernel for ``ops``, the first ones of a ``run``; the less ``cost`` the better.

    ``instructions`` are those predicted, one an input; None where nobody can. ``counted``: whether
    the cost is one in instructions, of this target or of one alike.
    """

    run: tuple[Op, ...]
    inputs: tuple[Tensor, ...]
    ops: tuple[Op, ...]
    kernel: kernels.Kernel
    view: kernels.View
    instructions: Counted | None
    cost: float
    counted: bool


Path = tuple[Option, ...]
"""An option after the other, for all ops."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What a path takes, in bytes; ``flash`` are constants, and code where layers are code."""

    ram: int
    flash: int

    def within(self, wishes: Wishes) -> tuple[bool, bool]:
        return (
            wishes.ram is None or self.ram <= wishes.ram,
            wishes.flash is None or self.flash <= wishes.flash,
        )


def options(
    network: Network,
    shapes: Mapping[str, Tensor],
    target: Target,
    prefer: tuple[str, ...],
    wishes: Wishes,
    samples: NDArray[np.uint8] | None,
) -> Mapping[int, tuple[Option, ...]]:
    """For the op at each place those that begin with it; ``samples`` are (N, input bytes).

    Raises:
        EdgebnnError: an op has none.
    """
    own = prices_of(target.name)
    prices = (own or prices_of(target.alike)) if samples is not None and len(samples) else None
    values: Mapping[str, Values] = {}
    if prices is not None and samples is not None:
        values = reference.trace(network, reference.check_inputs(network, samples))
    found: dict[int, tuple[Option, ...]] = {}
    places = {0}
    while places:
        place = places.pop()
        if place in found or place == len(network.ops):
            continue
        run = _run(network, place)
        names = sources(run[0])
        inputs = tuple(shapes[name] for name in names)
        there: list[Option] = []
        fitting = kernels.fitting(run, inputs, target, prefer, wishes.constant_time)
        if wishes.ram is not None:
            fitting = [one for each in fitting for one in _in_less_ram(each, inputs, target)]
        for rank, (ops, kernel, view) in enumerate(fitting):
            counted = None
            if prices is not None:
                read = tuple(values[name] for name in names)
                counted = prices.layer(kernel, view, read, target.cpu)
            cost = float(rank)
            if wishes.optimize == "size":
                cost = _flash(kernel, view) + rank / 1000
            elif counted is not None:
                cost = float(counted.mean())
                if own is None and there and (there[-1].ops, there[-1].kernel) == (ops, kernel):
                    cost = max(cost, _SLOWER * there[-1].cost)  # the same in less RAM
            known = wishes.optimize != "size" and counted is not None
            predicted = None if own is None else counted
            there.append(Option(run, inputs, ops, kernel, view, predicted, cost, known))
        unknown = not all(one.counted for one in there)
        if prices is not None and unknown and wishes.optimize != "size":
            del there[1:]  # ranks are no instructions
        found[place] = tuple(there)
        places |= {place + len(one.ops) for one in there}
    return found


def _in_less_ram(
    one: kernels.Fitting, inputs: tuple[Tensor, ...], target: Target
) -> tuple[kernels.Fitting, ...]:
    """A kernel, and behind it the same one by one word of outputs, if it takes less RAM so."""
    ops, kernel, view = one
    slim = kernel.fit(ops, inputs, target.cpu.one_by_one)
    if slim is None or slim.scratch_words >= view.scratch_words:
        return (one,)
    return one, (ops, kernel, slim)


def best(
    network: Network,
    there: Mapping[int, tuple[Option, ...]],
    wishes: Wishes,
    memory: Callable[[Path], int],
    constants_in_ram: bool,
) -> Path:
    """The best path within the budgets; of those that are about as fast that of the least RAM.

    ``memory`` says how many bytes of RAM a path takes.

    Raises:
        EdgebnnError: there is none; says what it takes at least.
    """
    seen: list[Memory] = []
    fitting: list[tuple[int, Path]] = []  # those about as fast as the first one, and their RAM
    most = 0.0
    for path in itertools.islice(paths(network, there), _MOST):
        cost = sum(one.cost for one in path)
        if fitting and (cost > most or len(fitting) == _ALTERNATIVES):
            break
        flash = sum(_flash(one.kernel, one.view) for one in path)
        constants = sum(table.bytes for one in path for table in one.view.tables)
        one = Memory(memory(path) + constants * constants_in_ram, flash)
        seen.append(one)
        if all(one.within(wishes)):
            fitting.append((one.ram, path))
            if not all(one.counted for one in path):
                break
            most = most or cost * _ALIKE
    if fitting:
        return min(fitting, key=lambda one: one[0])[1]
    ram = min((one.ram for one in seen if one.within(wishes)[1]), default=None)
    flash_of = min((one.flash for one in seen if one.within(wishes)[0]), default=None)
    needed = [f"--ram {ram}" if ram is not None else "", f"--flash {flash_of}"]
    least = " or ".join(needed[:1] * (ram is not None) + needed[1:] * (flash_of is not None))
    if not least:
        small = min(seen, key=lambda one: one.ram)
        least = f"--ram {small.ram} with --flash {small.flash}"
    raise EdgebnnError(f"no plan of the network fits; it takes at least {least}")


def reason(option: Option, others: tuple[Option, ...]) -> str:
    """Why an option: its instructions, and those of the best of another way; "" if none are known.

    ``others`` are all that compute the same ops.
    """
    if option.instructions is None:
        return ""
    own = float(option.instructions.mean())
    same = [one for one in others if one.ops == option.ops and one.kernel is not option.kernel]
    rivals = sorted(
        (float(one.instructions.mean()), one.kernel.way)
        for one in same
        if one.instructions is not None and one.kernel.way != option.kernel.way
    )
    text = f"{_rounded(own)} instructions on sample inputs"
    return text + (f", {_rounded(rivals[0][0])} by {rivals[0][1]}" if rivals else "")


def _rounded(count: float) -> str:
    """With three digits, as what is predicted; a compiler of another version takes others."""
    digits = 10 ** max(len(str(int(count))) - 3, 0)
    return f"{int(count / digits + 0.5) * digits:_}".replace("_", " ")


def _flash(kernel: kernels.Kernel, view: kernels.View) -> int:
    return sum(table.bytes for table in view.tables) + kernel.code(view)


def paths(network: Network, there: Mapping[int, tuple[Option, ...]]) -> Iterator[Path]:
    """All paths, the best one first; ``there`` is what :func:`options` found."""
    end = len(network.ops)
    rest = {end: 0.0}  # the least cost from a place on
    for place in sorted(there, reverse=True):
        rest[place] = min(one.cost + rest[place + len(one.ops)] for one in there[place])
    number = itertools.count()  # of equal ones the first
    heap: list[tuple[float, int, float, int, Path]] = [(rest[0], next(number), 0.0, 0, ())]
    while heap:
        _, _, spent, place, path = heapq.heappop(heap)
        if place == end:
            yield path
            continue
        for one in there[place]:
            cost, behind = spent + one.cost, place + len(one.ops)
            heapq.heappush(heap, (cost + rest[behind], next(number), cost, behind, (*path, one)))


def _run(network: Network, place: int) -> tuple[Op, ...]:
    """The op at ``place`` and those behind it: each reads what only it reads, and nothing else."""
    end = place + 1
    while end < len(network.ops):
        made = network.ops[end - 1].name
        readers = [op for op in network.ops for name in sources(op) if name == made]
        if len(readers) != 1 or sources(network.ops[end]) != (made,):
            break
        end += 1
    return network.ops[place:end]
