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
    "OPTIMIZE",
    "Kernel",
    "Table",
    "View",
    "candidates",
    "choose",
    "constant_time",
    "first_layer_ways",
]


_SHARED = {"base", "columns", "filter_tree"}  # no kernels, but what kernels are made of


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


#: What for kernels are chosen: "constant-time" leaves out those that take longer for some inputs.
OPTIMIZE = ("speed", "constant-time")


def constant_time(optimize: str) -> bool:
    """What ``optimize``, one of :data:`OPTIMIZE`, means for the kernels.

    Raises:
        EdgebnnError: no such choice; the message lists those there are.
    """
    if optimize not in OPTIMIZE:
        known = ", ".join(OPTIMIZE)
        raise EdgebnnError(f"unknown optimization '{optimize}'; pick one of: {known}")
    return optimize == "constant-time"


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


def choose(
    run: tuple[Op, ...],
    inputs: Inputs,
    target: Target,
    prefer: tuple[str, ...] = (),
    constant_time: bool = False,
) -> tuple[tuple[Op, ...], Kernel, View]:
    """The kernel for the first ops of ``run``: one that goes a way to ``prefer``, else the best.

    One for more ops is better than one for less, then the rank decides.

    Args:
        run: ops of which each reads what the one before makes, and nothing else does.
        inputs: the tensors that the first op reads.
        constant_time: none whose time depends on what it computes with.

    Returns:
        The ops that it computes, the kernel, and its view of them.

    Raises:
        EdgebnnError: no kernel of the target takes the first op.
    """

    def order(candidate: tuple[tuple[Op, ...], Kernel]) -> tuple[bool, int, int, str]:
        ops, kernel = candidate
        return kernel.way not in prefer, -len(ops), kernel.rank, kernel.name

    for ops, kernel in sorted(candidates(run, inputs), key=order):
        if constant_time and not kernel.constant_time:
            continue
        view = kernel.fit(ops, inputs, target.cpu)
        if view is not None and (kernel.way in prefer or kernel.pays(view)):
            return ops, kernel, view
    what = f"{type(run[0]).__name__} on {type(inputs[0]).__name__}"
    raise EdgebnnError(f"target '{target.name}' has no kernel for '{run[0].name}' ({what})")


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
