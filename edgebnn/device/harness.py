"""Test programs around a generated library: one for this computer, one for a bare-metal CPU.

Both feed records to ``<name>_scores`` and ``<name>_predict`` and hand back what those return. The
bare-metal image keeps the library's code, constants and scratch memory in output sections of
their own, so that :func:`footprint` measures them in the image that actually runs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from numpy.typing import NDArray

from edgebnn.codegen.env import render
from edgebnn.codegen.library import Library
from edgebnn.device.toolchain import (
    WARNINGS,
    Compiler,
    find_compiler,
    run_compiler,
    target_flags,
)
from edgebnn.errors import EdgebnnError
from edgebnn.targets import TARGETS, Machine, Target

COUNT_BYTES = 4
"""The record count in front of the records in a machine's input region."""
FAULT_STATUS = 70
"""The exit status of the firmware after a CPU fault."""
STACK_BYTES = 1024
"""The least stack that a linked image must have room for."""

_MODEL_OBJECT = "edgebnn_model.o"  # the linker script tells the model from the harness by it
_SANITIZE = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-g",
)
_BARE_METAL = ("-ffreestanding", "-ffunction-sections", "-fdata-sections")
# Some versions of gcc turn the start-up loops into calls of memcpy and memset unless told not to.
# The model goes without the flag: its users compile without it.
_GCC_STARTUP = ("-fno-tree-loop-distribute-patterns",)


@dataclass(frozen=True, slots=True)
class Firmware:
    """A linked bare-metal image and what it was built with."""

    elf: Path
    model_object: Path  # the library alone, before linking
    target: Target
    machine: Machine
    compiler: Compiler
    flags: tuple[str, ...]  # the CPU and optimization flags, for reports


@dataclass(frozen=True, slots=True)
class Footprint:
    """What the library occupies in a linked image, in bytes; the harness is not counted."""

    code_bytes: int
    constant_bytes: int
    arena_bytes: int


def check_inputs(inputs: NDArray[np.uint8], input_bytes: int | None = None) -> None:
    """Check that ``inputs`` is uint8 of shape (N, input_bytes) with N at least 1.

    Raises:
        EdgebnnError: it is not; the message has both shapes.
    """
    width = "input_bytes" if input_bytes is None else str(input_bytes)
    fits = inputs.ndim == 2 and inputs.size > 0 and input_bytes in (None, inputs.shape[1])
    if inputs.dtype != np.uint8 or not fits:
        raise EdgebnnError(
            f"inputs are {inputs.dtype} {inputs.shape}; pass uint8 (N, {width}) with N > 0"
        )


def build_host(
    library: Library,
    directory: Path,
    *,
    sanitize: bool = False,
    optimize: str = "-O2",
    compiler: Compiler | None = None,
) -> Path:
    """Build ``library`` into a program for this computer and return its path.

    The program reads records of ``input_bytes`` from standard input until it ends and writes, per
    record, the class and then the scores as little-endian int32 (see :func:`host.run`).
    ``sanitize`` builds it with the address and undefined-behaviour sanitizers, either of which
    then ends the program. All files go into ``directory``, which is created.

    Raises:
        EdgebnnError: no compiler, or the library does not compile clean under ``WARNINGS``.
    """
    compiler = compiler or find_compiler(TARGETS["host"])
    flags = (optimize, *(_SANITIZE if sanitize else ()))
    model = _write_library(library, directory)
    main = directory / "host_main.c"
    main.write_text(
        render("harness/host_main.c.j2", name=library.name, macro=library.name.upper()),
        encoding="utf-8",
    )
    objects = [directory / _MODEL_OBJECT, directory / "host_main.o"]
    for source, built in zip((model, main), objects, strict=True):
        _compile(compiler, source, built, (*flags, f"-I{model.parent}"))
    program = directory / f"{library.name}_host"
    run_compiler(
        compiler,
        [*flags, *map(str, objects), "-o", str(program)],
        doing=f"linking {program.name}",
    )
    return program


def build_firmware(
    library: Library,
    target: Target,
    directory: Path,
    *,
    optimize: str = "-O2",
    compiler: Compiler | None = None,
) -> Firmware:
    """Build ``library`` into a bare-metal image for the emulated machine of ``target``.

    The image runs under QEMU by itself (see ``templates/harness/cortexm_main.c.j2``); Unicorn
    calls the library's functions in it. With gcc it is linked without any library at all, so a
    model that needs libc or libgcc fails to link; clang brings its own runtime along, so ask
    :func:`undefined_symbols`. All files go into ``directory``, which is created.

    Raises:
        EdgebnnError: no compiler, the library does not compile clean under ``WARNINGS``, or it
            does not fit the machine's flash or RAM (the message says by how many bytes).
    """
    machine = target.machine
    if machine is None:
        known = ", ".join(t.name for t in TARGETS.values() if t.machine is not None)
        raise EdgebnnError(f"{target.name} has no emulated machine; pick one of: {known}")
    compiler = compiler or find_compiler(target)
    cpu_flags = target_flags(compiler, target)
    model = _write_library(library, directory)
    flags = (*cpu_flags, optimize, *_BARE_METAL, f"-I{model.parent}")
    startup = _GCC_STARTUP if compiler.kind == "gcc" else ()
    main = directory / "cortexm_main.c"
    main.write_text(_render_main(library, machine), encoding="utf-8")
    script = directory / "cortexm.ld"
    script.write_text(_render_script(machine), encoding="utf-8")

    objects = [directory / _MODEL_OBJECT, directory / "cortexm_main.o"]
    _compile(compiler, model, objects[0], flags)
    _compile(compiler, main, objects[1], (*flags, *startup))
    elf = directory / f"{library.name}_{target.name}.elf"
    # clang's own runtime has to stay: on small cores it calls helpers for plain loops.
    no_libraries = () if compiler.kind == "zig" else ("-nostdlib",)
    link = (
        *cpu_flags,
        optimize,
        "-g",  # zig strips the symbols that the simulator looks up unless it is told otherwise
        *no_libraries,
        f"-Wl,-T,{script}",
        "-Wl,-e,Reset_Handler",
        "-Wl,--gc-sections",
    )
    try:
        run_compiler(
            compiler, [*link, *map(str, objects), "-o", str(elf)], doing=f"linking {elf.name}"
        )
    except EdgebnnError as error:
        log = "\n".join(getattr(error, "__notes__", ()))
        too_small = _overflow(library, target, machine, log)
        if too_small is None:
            raise
        raise too_small from None
    return Firmware(elf, objects[0], target, machine, compiler, (*cpu_flags, optimize))


def footprint(firmware: Firmware) -> Footprint:
    """The sizes of the library's own sections in the linked image, in bytes."""
    with firmware.elf.open("rb") as file:
        sizes = {section.name: section["sh_size"] for section in ELFFile(file).iter_sections()}
    return Footprint(
        code_bytes=sizes.get(".model_text", 0),
        constant_bytes=sizes.get(".model_rodata", 0),
        arena_bytes=sizes.get(".model_bss", 0),
    )


def undefined_symbols(firmware: Firmware) -> tuple[str, ...]:
    """What the library's object asks others for, sorted, like ``nm -u``; it should be nothing."""
    names: set[str] = set()
    with firmware.model_object.open("rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, SymbolTableSection):
                for symbol in section.iter_symbols():
                    if symbol.name and symbol["st_shndx"] == "SHN_UNDEF":
                        names.add(symbol.name)
    return tuple(sorted(names))


def _write_library(library: Library, directory: Path) -> Path:
    """Write the C files of ``library`` below ``directory``; returns the path of the model's."""
    for name, text in library.files.items():
        path = directory / name
        if path.suffix in (".c", ".h"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return directory / "src" / f"{library.name}.c"


def _compile(compiler: Compiler, source: Path, built: Path, flags: tuple[str, ...]) -> None:
    run_compiler(
        compiler,
        [*flags, *WARNINGS, "-c", str(source), "-o", str(built)],
        doing=f"compiling {source.name}",
    )


def _render_main(library: Library, machine: Machine) -> str:
    return render(
        "harness/cortexm_main.c.j2",
        name=library.name,
        macro=library.name.upper(),
        qemu=machine.qemu,
        uart=machine.uart,
        uart_base=f"0x{machine.uart_base:08X}",
        input_address=f"0x{machine.input_address:08X}",
        records_address=f"0x{machine.input_address + COUNT_BYTES:08X}",
        fault_status=FAULT_STATUS,
    )


def _render_script(machine: Machine) -> str:
    return render(
        "harness/cortexm.ld.j2",
        qemu=machine.qemu,
        flash=f"0x{machine.flash:08X}",
        flash_bytes=f"0x{machine.flash_bytes:X}",
        ram=f"0x{machine.ram:08X}",
        ram_bytes=f"0x{machine.ram_bytes:X}",
        stack_bytes=STACK_BYTES,
        model_object=_MODEL_OBJECT,
    )


def _overflow(library: Library, target: Target, machine: Machine, log: str) -> EdgebnnError | None:
    """The error for a linker log that says a memory is too small; None if it says no such thing.

    GNU ld writes "region `FLASH' overflowed by 12 bytes", lld "... will not fit in region 'FLASH':
    overflowed by 12 bytes", once for each section that sticks out, so the largest number counts.
    """
    excess: dict[str, int] = {}
    for region, count in re.findall(r"region [`']?(\w+)'?:? overflowed by (\d+)", log):
        excess[region] = max(excess.get(region, 0), int(count))
    if not excess:
        return None
    limits = {"FLASH": ("flash", machine.flash_bytes), "RAM": ("RAM", machine.ram_bytes)}
    parts = [
        f"{limits[region][1]} bytes of {limits[region][0]} are {count} too few"
        for region, count in sorted(excess.items())
    ]
    error = EdgebnnError(
        f"{library.name} does not fit {target.name} ({machine.qemu}): {' and '.join(parts)}; "
        "make the network smaller or pick a larger target"
    )
    error.add_note(log)
    return error
