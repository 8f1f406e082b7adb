"""Words of outputs that go abreast, in vectors of a Cortex-M55: half of the cases that have them.

QEMU runs what several compilers make of them, with Helium and without; this computer looks for what
is read beyond a table.
"""

import functools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import batches
import kernel_cases as enumeration
import pytest
from kernel_cases import cases

from edgebnn.codegen.library import Library, source_path
from edgebnn.device import build, elf, host, qemu, toolchain
from edgebnn.ir import Conv, Dense
from edgebnn.kernels.columns import LANES, Abreast
from edgebnn.plan import Step
from edgebnn.targets import Target, get_target

M55 = get_target("cortex-m55")
#: This computer, as one whose compiler makes vectors of four words.
HERE = replace(
    enumeration.PLAIN, cpu=replace(enumeration.PLAIN.cpu, features=frozenset({"mul", "helium"}))
)


def layer(number: int, target: Target) -> Step:
    steps = enumeration.planned(cases()[number], target).steps
    return next(step for step in steps if step.op.name == "layer")


def outputs(number: int) -> int:
    (op,) = (op for op in cases()[number].network.ops if op.name == "layer")
    assert isinstance(op, Dense | Conv)
    return len(op.weights)


def abreast(step: Step) -> Abreast:
    view = step.view
    return view.abreast if step.kernel.name == "dense_columns" else view.strips.abreast


@functools.cache
def numbers() -> tuple[int, ...]:
    """Every second of the cases whose layer has vectors, and all with several groups of them."""
    by_columns = [n for n, case in enumerate(cases()) if case.prefer == ("columns",)]
    layers = {n: layer(n, M55) for n in by_columns if outputs(n) > LANES}
    wide = {
        number: abreast(step)
        for number, step in layers.items()
        if step.kernel.name in ("conv_delta", "conv_direct", "dense_columns") and abreast(step).wide
    }
    return tuple(n for i, n in enumerate(wide) if i % 2 == 0 or wide[n].groups > 1)


def program(target: Target, some: tuple[int, ...]) -> Library:
    return batches.program({n: enumeration.case_library(n, target) for n in some}, target.name)


def check(image: build.Image, some: tuple[int, ...]) -> None:
    wanted = enumeration.expected(some)
    run = host.run if image.machine is None else qemu.run
    assert enumeration.differing(run(image, wanted.records), wanted) == []


def test_what_the_cases_meet() -> None:
    """Two to four words, of which the last one has a tail, in one group and in several."""
    met: Counter[tuple[str, int, bool]] = Counter()
    for number in numbers():
        step = layer(number, M55)
        met[step.kernel.name, abreast(step).words, abreast(step).groups > 1] += 1
    several = {("conv_delta", 3), ("conv_delta", 4), ("conv_direct", 3), ("conv_direct", 4)}
    several.add(("dense_columns", 4))
    names = ("conv_delta", "conv_direct", "dense_columns")
    wanted = {(name, words, False) for name in names for words in (2, 3, 4)}
    assert wanted | {(*one, True) for one in several} == set(met)


def test_on_a_cortex_m55(tmp_path: Path) -> None:
    image = build.build_firmware(program(M55, numbers()), M55, tmp_path)
    assert elf.undefined_symbols(image.model_object) == ()
    check(image, numbers())


@pytest.mark.parametrize(("kind", "flag"), [("gcc", "-mfloat-abi=soft"), ("zig", "")])
def test_other_compilers(kind: str, flag: str, tmp_path: Path) -> None:
    """Without Helium gcc makes words of vectors; and clang."""
    some = numbers()[::4]
    (compiler,) = (one for one in toolchain.find_compilers(M55) if one.kind == kind)
    target = M55
    if flag:
        flags = (*M55.toolchain.gcc_flags[:-1], flag)
        target = replace(M55, toolchain=replace(M55.toolchain, gcc_flags=flags))
    image = build.build_firmware(program(target, some), target, tmp_path, compiler=compiler)
    assert elf.undefined_symbols(image.model_object) == ()
    check(image, some)


def test_nothing_is_read_beyond_tables(tmp_path: Path) -> None:
    """A vector has words behind the columns of two and of three."""
    some = tuple(n for n in numbers() if abreast(layer(n, M55)).words < 4)[::2]
    check(build.build_host(program(HERE, some), tmp_path, sanitize=True), some)


def test_compiles_as_cpp(tmp_path: Path) -> None:
    (compiler, *_) = toolchain.find_compilers(M55)
    cpp = [flag for flag in toolchain.WARNINGS if flag not in ("-std=c99", "-Wmissing-prototypes")]
    flags = (*toolchain.target_flags(compiler, M55), *toolchain.FREESTANDING, *cpp, "-O2")
    some = {layer(number, M55).kernel.name: number for number in numbers()}
    for number in some.values():
        library = enumeration.case_library(number, M55)
        build.write_library(library, tmp_path)
        source = str(tmp_path / source_path(library.name))
        arguments = [*flags, "-x", "c++", "-std=c++17", "-c", source, "-o", str(tmp_path / "o")]
        toolchain.run_compiler(compiler, arguments, doing="compiling")
