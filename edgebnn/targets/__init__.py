"""Targets: everything that the generator and the tools must know about a CPU, as plain values.

One file an architecture. A new target of a known one is a row in its file: what generates, builds
and runs code only reads it.
"""

from edgebnn.errors import EdgebnnError
from edgebnn.targets import arm, host
from edgebnn.targets.base import Target

__all__ = ["TARGETS", "Target", "get_target"]

TARGETS: dict[str, Target] = {target.name: target for target in (*host.TARGETS, *arm.TARGETS)}


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
