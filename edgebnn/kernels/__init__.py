"""The kernels: for each run of ops the ways to compute it.

To add one, write ``kernels/<name>.py`` with a ``KERNEL`` and ``templates/c/kernels/<name>.c.j2``:
files are found by themselves.
"""

import importlib
import pkgutil
from collections.abc import Mapping

from edgebnn.bits import layout
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Op
from edgebnn.kernels.base import Inputs, Kernel, Table, View
from edgebnn.targets import Target

__all__ = [
    "FIRST_LAYER",
    "KERNELS",
    "Fitting",
    "Kernel",
    "Table",
    "View",
    "candidates",
    "choose",
    "first_layer_ways",
    "fitting",
]


_SHARED = {
    "base",
    "columns",
    "differences",
    "filter_tree",
    "lane_heads",
    "masked",
    "pixels",
    "trips",
    "tree_digits",
    "tree_strip",
    "tree_trips",
    "window_lists",
}  # no kernels, but what kernels are made of


def _found() -> tuple[Kernel, ...]:
    names = sorted({module.name for module in pkgutil.iter_modules(__path__)} - _SHARED)
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return tuple(module.KERNEL for module in modules)


KERNELS = _found()

#: What the first layer with weights can be told to use; ``auto`` leaves it to the kernels.
FIRST_LAYER: Mapping[str, tuple[str, ...]] = {
    "auto": (),
    "tree": ("tree",),
    "columns": ("digit_columns",),
    "subset-sums": ("subset_sums",),
    "bit-planes": ("bit_planes",),
}


def first_layer_ways(choice: str) -> tuple[str, ...]:
    """The ways to prefer for a ``choice`` out of :data:`FIRST_LAYER`.

    Raises:
        EdgebnnError: no such choice; the message lists those there are.
    """
    try:
        return FIRST_LAYER[choice]
    except KeyError:
        known = ", ".join(FIRST_LAYER)
        raise EdgebnnError(f"unknown first layer '{choice}'; pick one of: {known}") from None


Fitting = tuple[tuple[Op, ...], Kernel, View]
"""A kernel for the first ops of a run, and its view of them."""


def fitting(
    run: tuple[Op, ...],
    inputs: Inputs,
    target: Target,
    prefer: tuple[str, ...] = (),
    constant_time: bool = False,
) -> list[Fitting]:
    """Kernels for the first ops of ``run``, by the rules: the best first, that they pay or not.

    One for more ops is better than one for less, then the rank decides; those that do not pay are
    behind the others. Where some go a way to ``prefer``, the first of these is alone.

    Args:
        run: ops of which each reads what the one before makes, and nothing else does.
        inputs: the tensors that the first op reads.
        constant_time: none whose time depends on what it computes with.

    Returns:
        The ops that each computes, the kernel, and its view of them.

    Raises:
        EdgebnnError: no kernel of the target takes the first op.
    """

    def order(candidate: tuple[tuple[Op, ...], Kernel]) -> tuple[bool, int, int, str]:
        ops, kernel = candidate
        return kernel.way not in prefer, -len(ops), kernel.rank, kernel.name

    pay: list[Fitting] = []
    rest: list[Fitting] = []
    for ops, kernel in sorted(candidates(run, inputs), key=order):
        if constant_time and not kernel.constant_time:
            continue
        view = kernel.fit(ops, inputs, target.cpu)
        if view is None:
            continue
        if kernel.way in prefer:
            return [(ops, kernel, view)]
        (pay if kernel.pays(view) else rest).append((ops, kernel, view))
    if not pay:
        what = f"{type(run[0]).__name__} on {type(inputs[0]).__name__}"
        raise EdgebnnError(f"target '{target.name}' has no kernel for '{run[0].name}' ({what})")
    return pay + rest


def choose(
    run: tuple[Op, ...], inputs: Inputs, target: Target, prefer: tuple[str, ...] = ()
) -> tuple[tuple[Op, ...], Kernel, View]:
    """The first of :func:`fitting`: what is taken where nothing is counted."""
    return fitting(run, inputs, target, prefer)[0]


def candidates(run: tuple[Op, ...], inputs: Inputs) -> tuple[tuple[tuple[Op, ...], Kernel], ...]:
    """Kernels for ops that ``run`` begins with and tensors of these kinds; the CPU may refuse."""
    kinds = tuple(type(op) for op in run)
    layouts = {layout(tensor) for tensor in inputs}
    return tuple(
        (run[: len(begin)], kernel)
        for kernel in KERNELS
        for begin in kernel.runs
        if begin == kinds[: len(begin)] and layouts <= kernel.reads
    )


def takes(way: str) -> str:
    """The layers that kernels of this ``way`` compute: "Conv or Dense on integers"."""
    rows = [kernel for kernel in KERNELS if kernel.way == way]
    kinds = (run for kernel in rows for run in kernel.runs)
    ops = dict.fromkeys(" + ".join(op.__name__ for op in run) for run in kinds)
    names = dict.fromkeys(one.value for kernel in rows for one in kernel.reads)
    return f"{' or '.join(ops)} on {' or '.join(sorted(names))}"
