"""The column adders of Cortex-M, in assembly and in C: several compilers, one result.

:mod:`test_kernels` has it as gcc -O2 makes it; here are levels, compilers and languages in which
assembly inside of a function is known to break, and the C that it stands for.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import batches
import kernel_cases as enumeration
import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from kernel_cases import cases

from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.device import build, elf, qemu, toolchain, unicorn
from edgebnn.device.run import Run
from edgebnn.targets import Target, get_target

NUMBERS = [  # dense layers, and some of the convolutions and of the layers by digits
    number
    for number, case in enumerate(cases())
    if (case.prefer == ("columns",) and number % (2 if "dense" in case.label else 24) == 0)
    or (case.prefer == ("digit_columns",) and number % 8 == 0)
    or (case.prefer == ("masks",) and number % 4 == 0)
]


def number_of(kernel: str, target: Target) -> int:
    """The first of these whose layer has such a kernel, on words of 32 lanes."""
    return next(
        number
        for number in NUMBERS
        for step in enumeration.planned(cases()[number], target).steps
        if step.kernel.name == kernel and "wide" not in step.view.helpers
    )


def wanted():
    return enumeration.expected(NUMBERS)


def program(target: Target, *, assembly: bool = True) -> Library:
    """All layers by columns, all in one translation unit."""
    libraries = {number: enumeration.case_library(number, target) for number in NUMBERS}
    library = batches.program(libraries, target.name)
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


@pytest.mark.parametrize(("target_name", "part"), [("rv32imc", 0), ("rv32imc-zbb", 1)])
def test_two_words_at_once(target_name: str, part: int, tmp_path: Path) -> None:
    """Where there are registers for the counters of both, an even number of words is added so."""
    target = get_target(target_name)
    planned = {
        number: enumeration.planned(case, target)
        for number, case in enumerate(cases())
        if case.prefer in (("columns",), ("digit_columns",))
    }
    numbers = [
        number
        for number, plan in planned.items()
        if any("two_words" in step.view.helpers for step in plan.steps)
    ][part::3]
    libraries = {number: enumeration.case_library(number, target) for number in numbers}
    library, wanted = batches.program(libraries, target.name), enumeration.expected(numbers)
    image = build.build_firmware(library, target, tmp_path)
    assert elf.undefined_symbols(image.model_object) == ()
    assert enumeration.differing(qemu.run(image, wanted.records), wanted) == []


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


# --- the adder alone ------------------------------------------------------------------------------

_MOST_DIGITS = 12
_MOST_BLOCKS = 9
_HEADER = """\
#include <stdint.h>
#define ADDER_INPUT_BYTES %du
#define ADDER_NUM_CLASSES %du
void adder_scores(const uint8_t *input, int32_t *scores);
int adder_predict(const uint8_t *input);
"""
_SOURCE = """\
#include "adder.h"
%s
#include "k%d.c"

static const uint32_t columns[] = { %s };
static const uint32_t numbers[] = { %s };
static uint32_t list[%d];
static uint32_t sums[64];

void adder_scores(const uint8_t *input, int32_t *scores)
{
    const uint32_t digits = input[0];
    const uint32_t *start = numbers;

    for (uint32_t i = 0u; i < 64u; i++) {
        sums[i] = 0x5a0f33c1u;
    }
    if (input[1] != 0u) {
        for (uint32_t i = 0u; i < digits; i++) {
            sums[i] = numbers[i];
        }
        start = sums;
    }
    for (uint32_t i = 0u; i < 8u * input[2]; i++) {
        list[i] = 4u * input[3u + i];
    }
    k%d_add_columns(columns, list, &list[8u * input[2]], start, sums,
        (struct k%d_pair *)&sums[digits]);
    for (uint32_t i = 0u; i < ADDER_NUM_CLASSES; i++) {
        scores[i] = (i < digits) ? (int32_t)sums[i] : 0;
    }
}

int adder_predict(const uint8_t *input)
{
    int32_t scores[ADDER_NUM_CLASSES];

    adder_scores(input, scores);
    return (int)(scores[0] & 1);
}
"""


@pytest.mark.parametrize("assembly", [True, False])
@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4", "rv32ec"])
def test_the_adder_alone(target_name: str, assembly: bool, tmp_path: Path) -> None:
    """Sums of any list, also an empty one, modulo any number of digits, beside and over a start."""
    rng = np.random.default_rng(0)
    columns, numbers = rng.integers(0, 2**32, 100), rng.integers(0, 2**32, _MOST_DIGITS)
    columns[:2] = 0, 2**32 - 1
    records, wanted_sums = [], []
    for digits in range(3, _MOST_DIGITS + 1):
        for in_place in (0, 1):
            for blocks in range(_MOST_BLOCKS + 1):
                places = rng.integers(0, len(columns), 8 * _MOST_BLOCKS)
                if rng.random() < 0.25:
                    places[:] = rng.integers(0, 2)
                records.append([digits, in_place, blocks, *places])
                listed = columns[places[: 8 * blocks]]
                lanes = np.arange(32)
                value = ((listed[:, None] >> lanes) & 1).sum(axis=0)
                for digit in range(digits):
                    value = value + (((numbers[digit] >> lanes) & 1) << digit)
                bits = (value >> np.arange(_MOST_DIGITS)[:, None]) & 1
                sums = (bits << lanes).sum(axis=1)
                sums[digits:] = 0
                wanted_sums.append(sums.astype(np.uint32).view(np.int32))
    target = get_target(target_name)
    number = number_of("dense_columns", target)
    off = "" if assembly else f"#define K{number}_NO_ASSEMBLY"
    words = [", ".join(f"{word:#x}u" for word in table) for table in (columns, numbers)]
    size = 8 * _MOST_BLOCKS
    files = {
        header_path("adder"): _HEADER % (3 + size, _MOST_DIGITS),
        source_path("adder"): _SOURCE % (off, number, *words, size, number, number),
    }
    library = replace(
        enumeration.case_library(number, target),
        name="adder",
        files=enumeration.case_library(number, target).files | files,
        input_bytes=3 + size,
        num_classes=_MOST_DIGITS,
        layers=(),
    )
    image = build.build_firmware(library, target, tmp_path)
    result = unicorn.run(image, np.array(records, np.uint8), counted=0)
    np.testing.assert_array_equal(result.scores, np.array(wanted_sums))


# --- the adder of two lists -----------------------------------------------------------------------

_MOST_FOURS = 13  # in either list
_MOST_PAIRS = 2 * (_MOST_FOURS // 4 + 1)
_LISTS_HEADER = """\
#include <stdint.h>
#define LISTS_INPUT_BYTES %du
#define LISTS_NUM_CLASSES %du
void lists_scores(const uint8_t *input, int32_t *scores);
int lists_predict(const uint8_t *input);
"""
_LISTS_SOURCE = """\
#include "lists.h"
%s
#include "k%d.c"

static const uint32_t columns[] = { %s };
static uint32_t digits[16];
static uint32_t carries[%d];
static %s both[%d];

void lists_scores(const uint8_t *input, int32_t *scores)
{
    const uint32_t step = input[0];
    const uint32_t added = input[1];
    const uint32_t taken = input[2];
    struct k%d_%slists lists;

    for (uint32_t i = 0u; i < 16u; i++) {
        digits[i] = 0x5a0f33c1u * (i + 1u);
    }
    for (uint32_t i = 0u; i < sizeof carries / 4u; i++) {
        carries[i] = 0u;
    }
    for (uint32_t i = 0u; i < sizeof both / sizeof both[0]; i++) {
        both[i] = (%s)(4u * input[3u + i]);
    }
    lists.added = both;
    lists.added_end = &both[added];
    lists.taken = &both[sizeof both / sizeof both[0] - taken];
    lists.taken_end = &both[sizeof both / sizeof both[0]];
    lists.carries = (struct k%d_pair *)carries;
    k%d_end_%slists(&lists, 0u);
    const struct k%d_pair *const end = k%d_add_%slists(columns, &lists, digits, step);
    for (uint32_t i = 0u; i < 16u; i++) {
        *scores++ = (int32_t)digits[i];
    }
    *scores++ = (int32_t)(lists.borrows - lists.carries);
    *scores++ = (int32_t)(end - lists.borrows);
    for (uint32_t i = 0u; i < sizeof carries / 4u; i++) {
        *scores++ = (int32_t)carries[i];
    }
}

int lists_predict(const uint8_t *input)
{
    int32_t scores[LISTS_NUM_CLASSES];

    lists_scores(input, scores);
    return (int)(scores[0] & 1);
}
"""


@pytest.mark.parametrize("assembly", [True, False])
@pytest.mark.parametrize(
    ("kernel", "kind", "entry"),
    [("conv_delta", "", "uint32_t"), ("dense_planes", "half_", "k%d_half")],
)
@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4", "rv32ec"])
def test_the_adder_of_lists_alone(
    target_name: str, kernel: str, kind: str, entry: str, assembly: bool, tmp_path: Path
) -> None:
    """Digits and pairs of carries and of borrows: lists of any two lengths, digits side by side."""
    rng = np.random.default_rng(0)
    columns = rng.integers(0, 2**32, 100)
    columns[:2] = 0, 2**32 - 1
    most = 2 * 4 * _MOST_FOURS
    records = []
    for added in range(4 * _MOST_FOURS - 2):
        taken = int(rng.integers(0, 4 * _MOST_FOURS - 2)) if added % 3 else 0
        for one, other in ((added, taken), (taken, added)):
            places = rng.integers(0, len(columns), most)
            if rng.random() < 0.25:
                places[:] = rng.integers(0, 2)
            records.append([1 + added % 3, one, other, *places])
    target = get_target(target_name)
    number = number_of(kernel, target)
    off = "" if assembly else f"#define K{number}_NO_ASSEMBLY"
    entry = entry % number if "%" in entry else entry
    words = ", ".join(f"{word:#x}u" for word in columns)
    pairs = 2 * _MOST_PAIRS
    files = {
        header_path("lists"): _LISTS_HEADER % (3 + most, 18 + pairs),
        source_path("lists"): _LISTS_SOURCE
        % (
            *(off, number, words, pairs, entry, most, number, kind, entry, number),
            *(number, kind, number, number, kind),
        ),
    }
    case = enumeration.case_library(number, target)
    library = replace(
        case,
        name="lists",
        files=case.files | files,
        input_bytes=3 + most,
        num_classes=18 + pairs,
        layers=(),
    )
    image = build.build_firmware(library, target, tmp_path)
    result = unicorn.run(image, np.array(records, np.uint8), counted=0)
    lanes = np.arange(32)
    begun = (0x5A0F33C1 * np.arange(1, 17)) % 2**32
    for (step, added, taken, *places), scores in zip(records, result.scores, strict=True):
        digits = scores[:16].astype(np.int64) % 2**32
        carries, borrows = scores[16:18]
        assert (carries, borrows) == (-(-added // 16), -(-taken // 16))
        changed = [0, step, 2 * step]
        np.testing.assert_array_equal(np.delete(digits, changed), np.delete(begun, changed))

        def value(words: Any) -> Any:
            return (np.asarray(words)[:, None] >> lanes) & 1

        weights = np.array([[1], [2], [4]])
        differ, bit = scores[18:].reshape(-1, 2).T
        both = (2 * value(bit) + value(differ) * (1 - 2 * value(bit))).cumsum(axis=0)
        both = np.concatenate([np.zeros((1, 32), int), both])
        got = (weights * value(digits[changed])).sum(axis=0)
        got = got + 8 * (2 * both[carries] - both[carries + borrows])
        wanted = (weights * value(begun[changed])).sum(axis=0)
        wanted = wanted + value(columns[places[:added]]).sum(axis=0)
        wanted = wanted - value(columns[places[most - taken :]]).sum(axis=0)
        np.testing.assert_array_equal(got, wanted)


# --- in every language ----------------------------------------------------------------------------


def assembly_of(path: Path, adder: str) -> bytes:
    """The code of an adder in an object, up to what compilers have behind it at -O0.

    That is a nop and a move of the result to r0, or a trap. Names are longer in C++.
    """
    with path.open("rb") as file:
        read = ELFFile(file)
        (symbol,) = (
            one
            for one in read.get_section_by_name(".symtab").iter_symbols()
            if adder in one.name and one["st_info"]["type"] == "STT_FUNC"
        )
        start = symbol["st_value"] & ~1
        code = read.get_section(symbol["st_shndx"]).data()[start : start + symbol["st_size"]]
    for end in (b"\xfe\xde", b"\x18\x00", b"\x18\x46", b"\x00\xbf", b"\xc0\x46"):
        code = code.removesuffix(end)
    return code


@pytest.mark.parametrize("target_name", ["cortex-m0", "cortex-m4", "cortex-m55"])
@pytest.mark.parametrize("kind", ["gcc", "zig"])
@pytest.mark.parametrize(
    ("kernel", "adder"),
    [
        ("dense_columns", "add_columns"),
        ("conv_delta", "add_lists"),
        ("dense_planes", "add_half_lists"),
        ("dense_masked", "masked_columns"),
    ],
)
def test_assembly_is_the_same_in_c_and_cpp(
    kernel: str, adder: str, kind: str, target_name: str, tmp_path: Path
) -> None:
    target = get_target(target_name)
    (compiler, *_) = (one for one in toolchain.find_compilers(target) if one.kind == kind)
    library = enumeration.case_library(number_of(kernel, target), target)
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
            found.add(assembly_of(made, adder))
    (code,) = found
    assert len(code) > 200
