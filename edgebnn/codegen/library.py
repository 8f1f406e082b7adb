"""The generated library as a value: texts, and the figures that they are checked against."""

from collections.abc import Mapping
from dataclasses import dataclass

ARENAS = ("static", "caller")
"""Whose the scratch memory of a network is; a caller gives it to each call."""


@dataclass(frozen=True, slots=True)
class Library:
    """One network as C source text for one target; nothing in it has touched the disk.

    ``name`` is the C prefix: ``<name>_predict`` and ``<name>_scores`` are declared in
    :func:`header_path` and defined in :func:`source_path`, which are in ``files`` whatever package
    the library is in. ``constant_bytes`` and ``arena_bytes`` are what the plan says the linked
    constants and the static scratch memory come to. ``layers`` are the C functions of the plan's
    steps, in order. ``instructions`` are the mean of those predicted for sample inputs,
    ``most_instructions`` what no input exceeds, and ``code_and_stack`` bytes of code for an
    inference, about, and of stack, at most; None where nobody can say it. With ``prepare``
    there is ``<name>_prepare``, with ``self_test`` ``<name>_intact``, too; with ``columns`` the
    macro ``<NAME>_COLUMNS``; with ``caller_arena`` the caller gives the scratch memory.
    """

    name: str
    target: str
    files: Mapping[str, str]  # relative path -> text, such as "src/digits.c"
    input_bytes: int
    num_classes: int
    constant_bytes: int
    arena_bytes: int
    layers: tuple[str, ...]
    prepare: bool = False
    columns: bool = False
    self_test: bool = False
    caller_arena: bool = False
    instructions: float | None = None
    most_instructions: float | None = None
    code_and_stack: tuple[float, float] | None = None


def header_path(name: str) -> str:
    """Where the header of library ``name`` is: PlatformIO and Arduino look into ``src``."""
    return f"src/{name}.h"


def source_path(name: str, suffix: str = "c") -> str:
    """Where its one C file is, beside the header, or its .cu file."""
    return f"src/{name}.{suffix}"
