"""The column adder of Cortex-M, in assembly and in C: several compilers, one result.

:mod:`test_kernels` has it as gcc -O2 makes it; here are levels, compilers and languages in which
assembly inside of a function is known to break, and the C that it stands for.
"""

from dataclasses import replace
from pathlib import Path

import kernel_cases as enumeration
import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from kernel_cases import cases

from edgebnn.codegen.library import Library, source_path
from edgebnn.device import build, elf, qemu, toolchain, unicorn
from edgebnn.device.run import Run
from edgebnn.targets import Target, get_target

NUMBERS = [number for number, case in enumerate(cases()) if case.prefer == ("columns",)]


def wanted():
    everything = enumeration.expected()
    return everything.of(np.isin(everything.numbers, NUMBERS))


def program(target: Target, *, assembly: bool = True) -> Library:
    """All layers by columns, all in one translation unit."""
    libraries = {number: enumeration.case_library(number, target) for number in NUMBERS}
    library = enumeration.program(libraries, target.name)
    if assembly:
        return library
    path = source_path(library.name)
    off = "".join(f"#define K{number}_NO_ASSEMBLY\n" for number in NUMBERS)
    return replace(library, files={**library.files, path: off + library.files[path]})


def built(
    folder: Path, target: Target, kind: str, level: str, *, assembly: bool = True
) -> build.Image:
    (compiler, *_) = (one for one in toolchain.find_compilers(target) if one.kind == kind)
    library = program(target, assembly=assembly)
    return build.build_firmware(library, target, folder, optimize=level, compiler=compiler)


def run(image: build.Image) -> Run:
    assert elf.undefined_symbols(image.model_object) == ()
    result = unicorn.run(image, wanted().records, counted=100)
    assert enumeration.differing(result, wanted()) == []
    return result


@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4"])
@pytest.mark.parametrize(
    ("kind", "level"),
    [("gcc", "-O0"), ("gcc", "-Os"), ("gcc", "-O3"), ("zig", "-O0"), ("zig", "-O2")],
)
def test_assembly(kind: str, level: str, target_name: str, tmp_path: Path) -> None:
    """At -O0 a frame pointer takes a register; at -O3 what a function is called with is known."""
    run(built(tmp_path, get_target(target_name), kind, level))


@pytest.mark.parametrize("target_name", ["cortex-m3", "cortex-m7", "cortex-m33"])
def test_assembly_on_other_cores(target_name: str, tmp_path: Path) -> None:
    run(built(tmp_path, get_target(target_name), "gcc", "-O2"))


@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4"])
def test_the_c_that_it_stands_for(target_name: str, tmp_path: Path) -> None:
    """It takes more instructions and no less stack, or it would not be what was measured."""
    target = get_target(target_name)
    fast = run(built(tmp_path / "assembly", target, "gcc", "-O2"))
    plain = run(built(tmp_path / "c", target, "gcc", "-O2", assembly=False))
    assert sum(fast.instructions) < sum(plain.instructions)
    assert fast.stack_bytes <= plain.stack_bytes


@pytest.mark.parametrize("linked", ["-flto", "-ffixed-r9", "-fno-omit-frame-pointer"])
def test_assembly_among_other_flags(linked: str, tmp_path: Path) -> None:
    """Link-time optimization leaves no function for Unicorn to call: QEMU runs it all."""
    target = get_target("cortex-m4")
    flags = (*target.toolchain.gcc_flags, linked)
    image = built(
        tmp_path,
        replace(target, toolchain=replace(target.toolchain, gcc_flags=flags)),
        "gcc",
        "-O2",
    )
    assert enumeration.differing(qemu.run(image, wanted().records), wanted()) == []


def assembly_of(path: Path) -> bytes:
    """The code of the adder in an object, up to the nop behind it that gcc -O0 has.

    Names are longer in C++.
    """
    with path.open("rb") as file:
        read = ELFFile(file)
        (symbol,) = (
            one
            for one in read.get_section_by_name(".symtab").iter_symbols()
            if "add_columns" in one.name and one["st_info"]["type"] == "STT_FUNC"
        )
        start = symbol["st_value"] & ~1
        code = read.get_section(symbol["st_shndx"]).data()[start : start + symbol["st_size"]]
    return code.removesuffix(b"\x00\xbf").removesuffix(b"\xc0\x46")


@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("kind", ["gcc", "zig"])
def test_assembly_is_the_same_in_c_and_cpp(kind: str, target_name: str, tmp_path: Path) -> None:
    target = get_target(target_name)
    (compiler, *_) = (one for one in toolchain.find_compilers(target) if one.kind == kind)
    library = enumeration.case_library(NUMBERS[0], target)
    for name, text in library.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    source = tmp_path / source_path(library.name)
    cpp = [flag for flag in toolchain.WARNINGS if flag not in ("-std=c99", "-Wmissing-prototypes")]
    found = set()
    for flags in (toolchain.WARNINGS, ("-x", "c++", "-std=c++17", *cpp)):
        for level in ("-O0", "-Os", "-O2"):
            here = (*toolchain.target_flags(compiler, target), *toolchain.FREESTANDING, level)
            made = tmp_path / "net.o"
            arguments = [*here, *flags, "-c", str(source), "-o", str(made)]
            toolchain.run_compiler(compiler, arguments, doing="compiling")
            found.add(assembly_of(made))
    (code,) = found
    assert len(code) > 200
