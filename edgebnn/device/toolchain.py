"""C compilers: which one builds for a target, what version it is, and how it compiles and links.

GCC and clang take nearly the same words; where ``zig cc`` or one of them wants others, this module
knows. A compiler that is missing, or that rejects its input, ends
as an :class:`EdgebnnError` of one line; the whole compiler log travels along as an exception note.
"""

import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgebnn.errors import EdgebnnError
from edgebnn.targets import Target
from edgebnn.targets.base import Cross, Native

WARNINGS = (
    "-std=c99",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Wshadow",
    "-Wundef",
    "-Wcast-qual",
    "-Wmissing-prototypes",
    "-Wdouble-promotion",
    "-Werror",
)
"""The contract of the emitted C: it compiles clean with exactly these flags."""

FREESTANDING = ("-ffreestanding", "-ffunction-sections", "-fdata-sections")
"""What code for a machine without an operating system is compiled with."""

# zig turns on trapping sanitizers and unwind tables by itself; both would end up in the image.
_ZIG_FLAGS = (
    "-fno-sanitize=undefined",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
)
_COMPILE_SECONDS = 600.0  # zig builds its runtime library on first use, which takes a while

Kind = Literal["gcc", "clang", "zig"]


@dataclass(frozen=True, slots=True)
class Compiler:
    """A C compiler that was found and answered when asked for its version."""

    command: tuple[str, ...]  # the words to start it with, such as ("/usr/bin/cc",)
    kind: Kind
    version: str  # one line for humans, such as "gcc 12.2.0"


def find_compilers(target: Target) -> tuple[Compiler, ...]:
    """Every installed compiler for ``target``, the preferred one first; empty if there is none.

    Raises:
        EdgebnnError: ``$CC`` names something that is not a program, or a compiler does not run.
    """
    return tuple(_identify(command) for command in _commands(target))


def find_compiler(target: Target) -> Compiler:
    """The compiler to use for ``target``.

    This computer: ``$CC``, else the first of the toolchain's programs, else clang from
    ``ziglang``. Others: the GNU cross
    compiler on PATH, else the one in a wheel, else clang from ``ziglang``.

    Raises:
        EdgebnnError: no compiler is installed; the message says what to install.
    """
    for command in _commands(target):
        return _identify(command)
    match target.toolchain:
        case Native():
            raise EdgebnnError(
                "no C compiler found; apt-get install gcc or pip install 'edgebnn[sim]', or set $CC"
            )
        case Cross(gcc_package=package, zig_flags=zig_flags):
            if not package:
                gcc = target.toolchain.gcc
                raise EdgebnnError(f"no C compiler for {target.name} found; put {gcc} on PATH")
            wheels = " or pip install 'edgebnn[sim]'" if zig_flags else ""
            raise EdgebnnError(
                f"no C compiler for {target.name} found; apt-get install {package}{wheels}"
            )


def target_flags(compiler: Compiler, target: Target) -> tuple[str, ...]:
    """The flags that make ``compiler`` generate code for ``target``."""
    match target.toolchain:
        case Native():
            return _ZIG_FLAGS if compiler.kind == "zig" else ()
        case Cross(gcc_flags=gcc_flags, zig_flags=zig_flags):
            return (*zig_flags, *_ZIG_FLAGS) if compiler.kind == "zig" else gcc_flags


def runtimes(compiler: Compiler, target: Target) -> tuple[Path, ...]:
    """What gcc calls for what a CPU cannot, such as float; zig links its own by itself.

    On an AVR most of that is in the C library's libm, elsewhere all of it in libgcc.

    Raises:
        EdgebnnError: gcc does not say where they are.
    """
    if compiler.kind == "zig" or not isinstance(target.toolchain, Cross):
        return ()
    flags = target.toolchain.runtime_flags or target.toolchain.gcc_flags
    asked = ("-print-file-name=libm.a", "-print-libgcc-file-name")
    found = [Path(_output((*compiler.command, *flags, one), compiler.kind)) for one in asked]
    return tuple(path for path in found if path.is_absolute())


def startup_flags(compiler: Compiler) -> tuple[str, ...]:
    """The flags that keep ``compiler`` from using libc in code that runs before it is set up."""
    # Some versions of gcc turn the start-up loops into calls of memcpy and memset.
    return ("-fno-tree-loop-distribute-patterns",) if compiler.kind == "gcc" else ()


def compile_object(
    compiler: Compiler,
    source: Path,
    built: Path,
    flags: Sequence[str],
    *,
    dialect: Sequence[str] = (),
) -> None:
    """Compile the C file ``source`` into the object ``built``, under :data:`WARNINGS`.

    ``dialect`` are flags that follow them.

    Raises:
        EdgebnnError: as :func:`run_compiler`.
    """
    run_compiler(
        compiler,
        [*flags, *WARNINGS, *dialect, "-c", str(source), "-o", str(built)],
        doing=f"compiling {source.name}",
    )


def link(
    compiler: Compiler,
    objects: Sequence[Path],
    program: Path,
    flags: Sequence[str],
    *,
    script: Path | None = None,
    entry: str = "",
) -> None:
    """Link ``objects``.

    ``script`` is the linker script of a machine without an operating system, ``entry`` the
    function that it starts.

    Raises:
        EdgebnnError: as :func:`run_compiler`.
    """
    bare: list[str] = []
    if script is not None:
        # zig strips the symbols that an emulator looks up, and ignores the script's ENTRY, unless
        # it is told otherwise; its runtime has to stay: on small cores clang calls helpers for
        # plain loops.
        no_libraries = () if compiler.kind == "zig" else ("-nostdlib",)
        bare = ["-g", *no_libraries, f"-Wl,-T,{script}", f"-Wl,-e,{entry}", "-Wl,--gc-sections"]
    run_compiler(
        compiler,
        [*flags, *bare, *map(str, objects), "-o", str(program)],
        doing=f"linking {program.name}",
    )


def run_compiler(compiler: Compiler, arguments: Sequence[str], *, doing: str) -> None:
    """Run ``compiler`` with ``arguments``; ``doing`` opens the message if that fails.

    Raises:
        EdgebnnError: ``doing``, the first error line and the compiler's version in one line; the
            full log is the exception's note.
    """
    try:
        result = subprocess.run(
            [*compiler.command, *arguments],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=_environment(compiler.kind),
            timeout=_COMPILE_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise EdgebnnError(
            f"{doing}: {compiler.version} was stopped after {_COMPILE_SECONDS:.0f} s"
        ) from None
    if result.returncode != 0:
        log = (result.stderr + result.stdout).strip()
        error = EdgebnnError(f"{doing}: {_first_error(log)} ({compiler.version})")
        error.add_note(log)
        raise error


def _commands(target: Target) -> Iterator[tuple[str, ...]]:
    match target.toolchain:
        case Native():
            return _native_commands(target.toolchain)
        case Cross():
            return _cross_commands(target.toolchain)


def _native_commands(toolchain: Native) -> Iterator[tuple[str, ...]]:
    chosen = shlex.split(os.environ.get("CC", ""))
    if chosen:
        if shutil.which(chosen[0]) is None:
            raise EdgebnnError(f"CC is '{chosen[0]}', which is not a program; unset CC or fix it")
        yield tuple(chosen)
        return
    for name in toolchain.programs:
        path = shutil.which(name)
        if path is not None:
            yield (path,)
    yield from _zig()


def _zig() -> Iterator[tuple[str, ...]]:
    if importlib.util.find_spec("ziglang") is not None:
        yield (sys.executable, "-m", "ziglang", "cc")


def _cross_commands(toolchain: Cross) -> Iterator[tuple[str, ...]]:
    path = shutil.which(toolchain.gcc)
    if path is not None:
        yield (path,)
    if toolchain.gcc_wheel is not None:
        wheel = importlib.util.find_spec(toolchain.gcc_wheel)
        if wheel is not None and wheel.origin is not None:
            gcc = Path(wheel.origin).parent / "toolchain" / "bin" / toolchain.gcc
            if gcc.is_file():
                yield (str(gcc),)
    if toolchain.zig_flags:
        yield from _zig()


@functools.cache
def _identify(command: tuple[str, ...]) -> Compiler:
    """Ask the compiler what it is: ``cc`` and ``$CC`` say nothing about that."""
    if command[-1] == "cc" and any("zig" in word for word in command[:-1]):
        zig = _output((*command[:-1], "version"), "zig")
        clang = _number(_output((*command, "--version"), "zig"))
        return Compiler(command, "zig", f"zig {zig} (clang {clang})")
    banner = _output((*command, "--version"), "gcc")
    kind: Kind = "clang" if "clang" in banner else "gcc"
    program = Path(command[0]).name
    name = program if program.endswith(f"-{kind}") else kind
    return Compiler(command, kind, f"{name} {_number(banner)}")


def _output(command: tuple[str, ...], kind: Kind) -> str:
    """The first line that ``command`` prints."""
    problem: str
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=_environment(kind),
            timeout=60.0,
        )
        if result.returncode == 0 and result.stdout.strip():
            return result.stdout.splitlines()[0].strip()
        problem = f"exit status {result.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    raise EdgebnnError(f"'{shlex.join(command)}' does not run: {problem}; reinstall that compiler")


def _number(banner: str) -> str:
    # Distributions put a package version in parentheses before the compiler's own.
    match = re.search(r"\d+(\.\d+)+", re.sub(r"\([^)]*\)", "", banner))
    return match.group() if match else "of unknown version"


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    marks = ("error:", "undefined reference", "undefined symbol", "overflowed by")
    for line in lines:
        if any(mark in line for mark in marks):
            return line
    return lines[0] if lines else "no message"


def _environment(kind: Kind) -> dict[str, str] | None:
    """zig writes a cache on each run and must be told of a folder where it may."""
    if kind != "zig":
        return None
    cache = _cache_folder()
    preset = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    return preset | dict(os.environ)  # what the user has set wins


@functools.cache
def _cache_folder() -> str:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    folder = Path(base) / "edgebnn" / "zig"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return str(folder)
    except OSError:
        pass
    return tempfile.mkdtemp(prefix="edgebnn-zig-")
