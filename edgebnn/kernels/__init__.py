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
    "Kernel",
    "Table",
    "View",
    "candidates",
    "choose",
    "first_layer_ways",
]


def _found() -> tuple[Kernel, ...]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names if name != "base"]
    return tuple(module.KERNEL for module in modules)


KERNELS = _found()

#: What the first layer with weights can be told to use; ``auto`` leaves it to the kernels.
FIRST_LAYER: Mapping[str, tuple[str, ...]] = {
    "auto": (),
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


def choose(
    ops: tuple[Op, ...], inputs: Inputs, target: Target, prefer: tuple[str, ...] = ()
) -> tuple[Kernel, View]:
    """The kernel for the run ``ops``: one that goes a way to ``prefer``, else the best by rank.

    Args:
        inputs: the tensors that the first op reads.

    Raises:
        EdgebnnError: no kernel of the target takes these ops.
    """
    known = candidates(ops, inputs)
    for kernel in sorted(known, key=lambda one: (one.way not in prefer, one.rank, one.name)):
        view = kernel.fit(ops, inputs, target.cpu)
        if view is not None and (kernel.way in prefer or kernel.pays(view)):
            return kernel, view
    what = f"{' + '.join(type(op).__name__ for op in ops)} on {type(inputs[0]).__name__}"
    raise EdgebnnError(f"target '{target.name}' has no kernel for '{ops[0].name}' ({what})")


def candidates(ops: tuple[Op, ...], inputs: Inputs) -> tuple[Kernel, ...]:
    """The kernels for ops and tensors of these kinds; whether one fits, a CPU decides."""
    kinds = tuple(type(op) for op in ops)
    layouts = {layout(tensor) for tensor in inputs}
    return tuple(one for one in KERNELS if one.ops == kinds and layouts <= one.reads)


def takes(way: str) -> str:
    """The layers that kernels of this ``way`` compute: "Conv or Dense on integers"."""
    rows = [kernel for kernel in KERNELS if kernel.way == way]
    ops = dict.fromkeys(" + ".join(op.__name__ for op in kernel.ops) for kernel in rows)
    names = dict.fromkeys(one.value for kernel in rows for one in kernel.reads)
    return f"{' or '.join(ops)} on {' or '.join(sorted(names))}"
