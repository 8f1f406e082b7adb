"""Targets: everything that the generator and the tools must know about a CPU, as plain values.

One file an architecture, found by itself. A new target of a known one is a row in its file: what
generates, builds and runs code only reads it.
"""

import importlib
import pkgutil
from dataclasses import replace

from edgebnn.errors import EdgebnnError
from edgebnn.targets.base import Target
from edgebnn.targets.boards import BOARDS, Board
from edgebnn.targets.cuda import CUDA

__all__ = ["BOARDS", "TARGETS", "Board", "Target", "board_of", "get_target"]


def _found() -> dict[str, Target]:
    """This computer first, then architecture by architecture."""
    names = {module.name for module in pkgutil.iter_modules(__path__)} - {
        "base",
        "boards",
        "cuda",
        "host",
    }
    modules = [importlib.import_module(f"{__name__}.{name}") for name in ("host", *sorted(names))]
    return {target.name: target for module in modules for target in module.TARGETS}


TARGETS = _found()


def get_target(name: str) -> Target:
    """The target called ``name``, or the one of the board called so, with its flash and RAM.

    Raises:
        EdgebnnError: no such target, or a GPU; the message lists those there are.
    """
    if name == CUDA.name:
        raise EdgebnnError(
            f"'{name}' is no CPU: edgebnn generate writes code for it, and edgebnn verify runs it; "
            f"pick one of: {', '.join(TARGETS)}, or a board: {', '.join(BOARDS)}"
        )
    if name in TARGETS:
        return TARGETS[name]
    if name in BOARDS:
        board = BOARDS[name]
        target = TARGETS[board.target]
        return replace(target, title=board.title, flash=board.flash, ram=board.ram)
    raise EdgebnnError(
        f"unknown target '{name}'; pick one of: {', '.join(TARGETS)}, "
        f"or a board: {', '.join(BOARDS)}"
    )


def board_of(name: str) -> Board:
    """The board called ``name``, or the emulated one that has the CPU called so.

    Raises:
        EdgebnnError: there is none; the message lists those there are.
    """
    get_target(name)
    for board in BOARDS.values():
        if board.name == name or (board.emulated and board.target == name):
            return board
    raise EdgebnnError(
        f"no emulated board has a '{name}'; name a board as the target, one of: {', '.join(BOARDS)}"
    )
