"""Test programs around a generated library: one for this computer, one for a bare-metal CPU.

Both feed records to ``<name>_scores`` and ``<name>_predict`` and hand back what those return. The
bare-metal image keeps the library's code, constants and scratch memory in output sections of
their own, so that :func:`elf.footprint` measures them in the image that actually runs.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from edgebnn.codegen.env import render
from edgebnn.codegen.library import Library, source_path
from edgebnn.device import toolchain
from edgebnn.device.toolchain import Compiler, find_compiler
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.targets import TARGETS, Target
from edgebnn.targets.base import Cross, Emulated, Machine

HEAD_BYTES = 8
"""Two counts in front of the records in a machine's input region."""
FAULT_STATUS = 70
"""The exit status of a bare-metal image after a CPU fault."""

_ENTRY = "reset"  # the function of the harness that a machine starts
_MODEL_OBJECT = "edgebnn_model.o"  # the linker script tells the model from the harness by it
_SANITIZE = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
)


@dataclass(frozen=True, slots=True)
class Image:
    """A linked test program and what it was built from."""

    path: Path
    model_object: Path  # the library alone, before linking
    library: Library
    target: Target
    machine: Machine | None  # None: this computer
    compiler: Compiler
    flags: tuple[str, ...]  # those of the CPU and of optimization, for reports


def machine_of(target: Target, emulator: type[Emulated] | None = None) -> Machine:
    """The machine of the first emulator of ``target``, or of the first one of a kind.

    Raises:
        EdgebnnError: it has none; the message lists the targets that have one.
    """
    for one in target.emulators:
        if emulator is None or isinstance(one, emulator):
            return one.machine
    known = ", ".join(t.name for t in TARGETS.values() if t.emulators)
    raise EdgebnnError(f"{target.name} has no emulated machine; pick one of: {known}")


def build_host(
    library: Library,
    directory: Path,
    *,
    sanitize: bool = False,
    optimize: str | None = None,
    compiler: Compiler | None = None,
) -> Image:
    """Build ``library`` into a program for this computer.

    The program reads records of ``input_bytes`` from standard input until it ends and writes, per
    record, the class and then the scores as little-endian int32 (see :func:`host.run`).
    ``sanitize`` builds it with the address and undefined-behaviour sanitizers, either of which
    then ends the program and names the function; as written, and by clang where there is one: gcc
    takes twice as long to compile it, and to name lines takes half as long again. Else it is
    optimized. ``compiler`` is the first one found unless given. All files go into ``directory``,
    which is created.

    Raises:
        EdgebnnError: no compiler, or the library does not compile clean under
            :data:`toolchain.WARNINGS`.
    """
    target = TARGETS["host"]
    if compiler is None:
        found = toolchain.find_compilers(target) if sanitize else ()
        compiler = next((one for one in found if one.kind == "clang"), None) or find_compiler(
            target
        )
    optimize = optimize or ("-O0" if sanitize else "-O2")
    flags = (optimize, *toolchain.target_flags(compiler, target), *(_SANITIZE if sanitize else ()))
    model, main = _write_sources(library, target, directory)
    objects = (directory / _MODEL_OBJECT, directory / "main.o")
    for source, built in zip((model, main), objects, strict=True):
        toolchain.compile_object(compiler, source, built, (*flags, f"-I{model.parent}"))
    program = directory / f"{library.name}_host"
    toolchain.link(compiler, objects, program, flags)
    return Image(program, objects[0], library, target, None, compiler, flags)


def build_firmware(
    library: Library,
    target: Target,
    directory: Path,
    *,
    machine: Machine | None = None,
    optimize: str = "-O2",
    compiler: Compiler | None = None,
    runtime: bool = False,
    extra: tuple[str, ...] = (),
) -> Image:
    """Build ``library`` into a bare-metal image for ``machine``, that of the first emulator.

    The image runs on a whole machine by itself (see ``main.c.j2`` of its architecture in
    ``templates/harness``); Unicorn calls the library's functions in it. With gcc it is linked
    without any library at all, so a model that needs libc or libgcc fails to link; clang brings
    its own runtime along, so ask :func:`elf.undefined_symbols`. With ``runtime`` libgcc is linked,
    for code that is not a model. ``extra`` are flags for the library alone. All files go into
    ``directory``, which is created.

    Raises:
        EdgebnnError: no machine, no compiler, or the library does not compile clean under
            :data:`toolchain.WARNINGS`.
        TooLarge: it does not fit the machine's flash or RAM; the message says by how many bytes.
    """
    machine = machine or machine_of(target)
    compiler = compiler or find_compiler(target)
    flags = (*toolchain.target_flags(compiler, target), optimize)
    model, main = _write_sources(
        library,
        target,
        directory,
        machine=machine.name,
        uart=machine.uart,
        uart_base=f"0x{machine.uart_base:08X}",
        input_address=f"0x{machine.inputs.start:08X}",
        records_address=f"0x{machine.inputs.start + HEAD_BYTES:08X}",
        fault_status=FAULT_STATUS,
        entry=_ENTRY,
    )
    script = directory / "link.ld"
    script.write_text(_render_script(target, machine), encoding="utf-8")

    objects = (directory / _MODEL_OBJECT, directory / "main.o")
    including = (*flags, *toolchain.FREESTANDING, f"-I{model.parent}")
    dialect = target.toolchain.dialect if isinstance(target.toolchain, Cross) else ()
    toolchain.compile_object(compiler, model, objects[0], (*including, *extra), dialect=dialect)
    # The model goes without the start-up flags: its users compile without them.
    startup = toolchain.startup_flags(compiler)
    including = (*including, *startup)
    toolchain.compile_object(compiler, main, objects[1], including, dialect=dialect)
    elf = directory / f"{library.name}_{target.name}.elf"
    try:
        runtimes = toolchain.runtimes(compiler, target) if runtime else ()
        toolchain.link(compiler, (*objects, *runtimes), elf, flags, script=script, entry=_ENTRY)
    except EdgebnnError as error:
        log = "\n".join(getattr(error, "__notes__", ()))
        too_small = _overflow(library, target, machine, log)
        if too_small is None:
            raise
        raise too_small from None
    return Image(elf, objects[0], library, target, machine, compiler, flags)


def _write_sources(
    library: Library, target: Target, directory: Path, **values: object
) -> tuple[Path, Path]:
    """Write the C files of ``library`` and the harness below ``directory``.

    Returns the paths of the model's and of the harness's C file.
    """
    model = write_library(library, directory)
    template = f"harness/{target.cpu.arch}/main.c.j2"
    main = directory / "main.c"
    main.write_text(
        render(template, name=library.name, macro=library.name.upper(), **values),
        encoding="utf-8",
    )
    return model, main


def write_library(library: Library, directory: Path) -> Path:
    """Write the C files of ``library`` below ``directory``; returns the path of the model's."""
    for name, text in library.files.items():
        path = directory / name
        if path.suffix in (".c", ".h"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return directory / source_path(library.name)


def _render_script(target: Target, machine: Machine) -> str:
    return render(
        f"harness/{target.cpu.arch}/link.ld.j2",
        machine=machine.name,
        flash=f"0x{machine.flash.start:08X}",
        flash_bytes=f"0x{machine.flash.size:X}",
        ram=f"0x{machine.ram.start:08X}",
        ram_bytes=f"0x{machine.ram.size:X}",
        stack_bytes=machine.stack,
        entry=_ENTRY,
        model_object=_MODEL_OBJECT,
    )


def _overflow(library: Library, target: Target, machine: Machine, log: str) -> TooLarge | None:
    """The error for a linker log that says a memory is too small; None if it says no such thing.

    GNU ld writes "region `FLASH' overflowed by 12 bytes", lld "... will not fit in region 'FLASH':
    overflowed by 12 bytes", once for each section that sticks out, so the largest number counts.
    """
    excess: dict[str, int] = {}
    for region, count in re.findall(r"region [`']?(\w+)'?:? overflowed by (\d+)", log):
        excess[region] = max(excess.get(region, 0), int(count))
    if not excess:
        return None
    limits = {"FLASH": ("flash", machine.flash.size), "RAM": ("RAM", machine.ram.size)}
    parts = [
        f"{limits[region][1]} bytes of {limits[region][0]} are {count} too few"
        for region, count in sorted(excess.items())
    ]
    error = TooLarge(
        f"{library.name} does not fit {target.name} ({machine.name}): {' and '.join(parts)}; "
        "make the network smaller or pick a larger target"
    )
    error.add_note(log)
    return error
