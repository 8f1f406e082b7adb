"""Code and stack of a compiled network, part by part: what prices of sizes are fitted on.

Functions are sections of their own in the object file. Their frames, and who calls whom, gcc
writes into a file beside it, for all but what is assembly.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from edgebnn.cost import printed_parts
from edgebnn.device.build import Image
from edgebnn.kernels.base import Trips
from edgebnn.plan import Plan

FRAMES = "-fcallgraph-info=su"
"""gcc's option for that file."""
_SECTION = ".text."
_PUSHED = {
    "add_columns": 36,
    "add_lists": 48,
    "add_half_lists": 48,
    "join_pairs": 20,
    "masked_columns": 44,
}
"""Bytes that helpers in assembly put on the stack; gcc knows of no frame."""


@dataclass(frozen=True, slots=True)
class Part:
    """A layer, or what is beside all layers: bytes of code and of stack, and what is printed.

    The stack of a layer is that of all that it calls, and of the rest what is below the deepest
    layer.
    """

    what: str
    code_parts: Trips
    stack_parts: Trips
    code: int
    stack: int


def parts(scheduled: Plan, image: Image) -> list[Part]:
    """Those of a network that was compiled with :data:`FRAMES`; none where some are not known."""
    code = _functions(image.model_object)
    prefix = f"{image.library.name}_"
    frames, calls = _graph(image.model_object.with_suffix(".ci"))
    if scheduled.target.cpu.features & {"thumb1", "thumb2"}:
        frames |= {f"{prefix}{name}": size for name, size in _PUSHED.items()}

    def depth(function: str) -> int:
        below = (depth(one) for one in calls.get(function, ()))
        return frames.get(function, 0) + max(below, default=0)

    there = printed_parts(scheduled)
    if there is None:
        return []
    found, deepest = [], 0
    rest = sum(code.values()) - code.get(f"{prefix}best", 0)  # nobody calls it here
    for name, one in zip(image.library.layers, there[:-1], strict=True):
        size = sum(code[part] for part in code if f"{part}_".startswith(f"{name}_"))
        stack = depth(name)
        rest, deepest = rest - size, max(deepest, stack)
        found.append(Part(one.kernel, one.code, one.stack, size, stack))
    below = depth(f"{prefix}predict") - deepest
    return [*found, Part("network", there[-1].code, there[-1].stack, rest, below)]


def _functions(built: Path) -> dict[str, int]:
    """Bytes of the functions of an object file."""
    with built.open("rb") as file:
        sections = {one.name: int(one["sh_size"]) for one in ELFFile(file).iter_sections()}
    return {
        name.removeprefix(_SECTION): size
        for name, size in sections.items()
        if name.startswith(_SECTION)
    }


def _graph(file: Path) -> tuple[dict[str, int], Mapping[str, list[str]]]:
    """Frames in bytes, and what functions call, of a file that gcc writes.

    A name is that of a file and of a function in it if it is static.
    """
    text = file.read_text(encoding="utf-8")
    nodes = re.findall(r'node: \{ title: "([^"]+)" label: "[^"]*?(\d+) bytes', text)
    frames = {title.rpartition(":")[2]: int(size) for title, size in nodes}
    calls: dict[str, list[str]] = {}
    for caller, called in re.findall(r'sourcename: "([^"]+)" targetname: "([^"]+)"', text):
        calls.setdefault(caller.rpartition(":")[2], []).append(called.rpartition(":")[2])
    return frames, calls
