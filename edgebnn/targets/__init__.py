"""Targets: everything that the generator and the tools must know about a CPU, as plain values.

One file an architecture, found by itself. A new target of a known one is a row in its file: what
generates, builds and runs code only reads it.
"""

import importlib
import pkgutil

from edgebnn.errors import EdgebnnError
from edgebnn.targets.base import Target

__all__ = ["TARGETS", "Target", "get_target"]


def _found() -> dict[str, Target]:
    """This computer first, then architecture by architecture."""
    names = {module.name for module in pkgutil.iter_modules(__path__)} - {"base", "host"}
    modules = [importlib.import_module(f"{__name__}.{name}") for name in ("host", *sorted(names))]
    return {target.name: target for module in modules for target in module.TARGETS}


TARGETS = _found()


def get_target(name: str) -> Target:
    """The target called ``name``.

    Raises:
        EdgebnnError: no such target; the message lists those there are.
    """
    try:
        return TARGETS[name]
    except KeyError:
        known = ", ".join(TARGETS)
        raise EdgebnnError(f"unknown target '{name}'; pick one of: {known}") from None
