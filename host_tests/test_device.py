"""The device tools on a tiny hand-written library that has the API of generated ones."""

import dataclasses
import os
import re
import shutil
import sys
from itertools import groupby
from pathlib import Path

import capstone
import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from numpy.typing import NDArray
from unicorn import UC_HOOK_CODE

from edgebnn.codegen.library import Library
from edgebnn.device import build, elf, host, qemu, simavr, toolchain, unicorn
from edgebnn.device.build import Image
from edgebnn.device.elf import Footprint
from edgebnn.device.emulator import emulator_of
from edgebnn.errors import EdgebnnError, TooLarge
from edgebnn.reference import Outputs
from edgebnn.targets import TARGETS
from edgebnn.targets.base import Machine, Qemu, Simavr, Unicorn

HEADER = """\
#ifndef TINY_H
#define TINY_H
#include <stdint.h>
#define TINY_INPUT_BYTES {input_bytes}u
#define TINY_NUM_CLASSES 3u
#define TINY_ARENA_BYTES 32u
#define TINY_MODEL_SHA256 "00"
#ifdef __cplusplus
extern "C" {{
#endif
int tiny_predict(const uint8_t input[TINY_INPUT_BYTES]);
void tiny_scores(const uint8_t input[TINY_INPUT_BYTES], int32_t scores[TINY_NUM_CLASSES]);
#ifdef __cplusplus
}}
#endif
#endif
"""
SOURCE = """\
#include "tiny.h"

static {constant} int16_t tiny_table[3][8] = {{
    {{1, -2, 3, -4, 5, -6, 7, -8}},
    {{-3, 1, 4, -1, 5, -9, 2, 6}},
    {{300, -200, 100, -50, 25, -12, 6, -3}},
}};
{extra_table}
static uint32_t tiny_arena[8];

/*
 * Not inlined, or clang would fold the table and the arena away. Products are made of sums: not
 * every CPU multiplies.
 */
__attribute__((noinline)) static int32_t dot({constant} int16_t *weights, const uint32_t *values)
{{
    int32_t sum = 0;
    for (uint32_t i = 0; i < 8u; i++) {{
        int32_t weight = weights[i];
        for (uint32_t left = values[i]; left != 0u; left >>= 1) {{
            sum += ((left & 1u) != 0u) ? weight : 0;
            weight += weight;
        }}
    }}
    return sum;
}}

void tiny_scores(const uint8_t input[TINY_INPUT_BYTES], int32_t scores[TINY_NUM_CLASSES])
{{
    for (uint32_t i = 0; i < 8u; i++) {{
        tiny_arena[i] = input[i {index}];
    }}
    for (uint32_t c = 0; c < 3u; c++) {{
        scores[c] = dot(tiny_table[c], tiny_arena);
    }}
}}

int tiny_predict(const uint8_t input[TINY_INPUT_BYTES])
{{
    int32_t scores[3];
    uint32_t best = 0;
    {before}
    tiny_scores(input, scores);
    for (uint32_t c = 1; c < 3u; c++) {{
        if (scores[c] > scores[best]) {{
            best = c;
        }}
    }}
    return (int)best;
}}
"""
TABLE = np.array(
    [
        [1, -2, 3, -4, 5, -6, 7, -8],
        [-3, 1, 4, -1, 5, -9, 2, 6],
        [300, -200, 100, -50, 25, -12, 6, -3],
    ],
    np.int32,
)
KINDS = ("gcc", "zig")
EMULATED = [name for name, target in TARGETS.items() if target.emulators]
MEASURED = [name for name in EMULATED if isinstance(TARGETS[name].emulators[0], Unicorn)]
IN_QEMU = [name for name in EMULATED if isinstance(TARGETS[name].emulators[-1], Qemu)]
IN_SIMAVR = [name for name in EMULATED if isinstance(TARGETS[name].emulators[0], Simavr)]
BY_ZIG = [name for name in EMULATED if TARGETS[name].toolchain.zig_flags]
# zig builds a runtime library for each CPU that something is linked for, so it links for few.
LINKED_BY_ZIG = ("cortex-m0", "cortex-m4", "cortex-m7", "rv32imc")


def built(names: list[str]) -> list[tuple[str, str]]:
    """Targets and kinds of compilers."""
    return [
        (name, kind) for name in names for kind in KINDS if kind == "gcc" or name in LINKED_BY_ZIG
    ]


def tiny(
    *,
    index: str = "",
    before: str = "",
    extra_table: str = "",
    input_bytes: int = 8,
    target: str = "host",
) -> Library:
    """The library, with C text put into the places that the tests want to break."""
    constant = TARGETS[target].cpu.constant
    source = SOURCE.format(index=index, before=before, extra_table=extra_table, constant=constant)
    return Library(
        name="tiny",
        target="host",
        files={
            "src/tiny.h": HEADER.format(input_bytes=input_bytes),
            "src/tiny.c": source,
            "library.json": "{}",
        },
        input_bytes=input_bytes,
        num_classes=3,
        constant_bytes=48,
        arena_bytes=32,
        layers=(),
    )


def records(count: int, input_bytes: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(7).integers(0, 256, (count, input_bytes), dtype=np.uint8)


def assert_right(outputs: Outputs, inputs: NDArray[np.uint8]) -> None:
    scores = inputs[:, :8].astype(np.int32) @ TABLE.T
    np.testing.assert_array_equal(outputs.scores, scores)
    np.testing.assert_array_equal(outputs.classes, scores.argmax(axis=1))
    assert outputs.scores.dtype == outputs.classes.dtype == np.int32


def resized(machine: Machine, region: str, size: int) -> Machine:
    """``machine`` with another ``size`` of a region, in bytes."""
    return dataclasses.replace(
        machine, **{region: dataclasses.replace(getattr(machine, region), size=size)}
    )


def with_inputs(image: Image, size: int) -> Image:
    """``image``, for a machine of QEMU that has so many bytes for inputs."""
    assert image.machine is not None
    machine = resized(image.machine, "inputs", size)
    (settings,) = [one for one in image.target.emulators if isinstance(one, Qemu)]
    only = dataclasses.replace(settings, machine=machine)
    target = dataclasses.replace(image.target, emulators=(only,))
    return dataclasses.replace(image, target=target, machine=machine)


def compiler_of(target: str, kind: str) -> toolchain.Compiler:
    return next(c for c in toolchain.find_compilers(TARGETS[target]) if c.kind == kind)


Images = dict[tuple[str, str, type], Image]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """The tiny library built once for each target and machine by each kind of compiler."""
    made: Images = {}
    for name, kind in built(EMULATED):
        target = TARGETS[name]
        by_machine: dict[str, Image] = {}
        for one in target.emulators:
            if (name, kind, type(one)) in made:
                continue
            if one.machine.name not in by_machine:
                by_machine[one.machine.name] = build.build_firmware(
                    tiny(target=name),
                    target,
                    tmp_path_factory.mktemp(f"{name}-{kind}"),
                    machine=one.machine,
                    compiler=compiler_of(name, kind),
                )
            made[name, kind, type(one)] = by_machine[one.machine.name]
    return made


def images_of(images: Images, target: str, kind: str) -> list[Image]:
    """Those of all emulators."""
    return [one for key, one in images.items() if key[:2] == (target, kind)]


def build_m4(library: Library, directory: Path) -> Image:
    target = TARGETS["cortex-m4"]
    return build.build_firmware(
        library, target, directory, compiler=compiler_of("cortex-m4", "gcc")
    )


# ---- this computer --------------------------------------------------------------------------


@pytest.mark.parametrize("sanitize", [False, True])
def test_host_program_equals_the_model(tmp_path: Path, sanitize: bool) -> None:
    inputs = records(100)
    program = build.build_host(tiny(), tmp_path, sanitize=sanitize)
    assert_right(host.run(program, inputs), inputs)


def test_sanitizer_finds_a_read_past_the_input(tmp_path: Path) -> None:
    program = build.build_host(tiny(index="+ 1u"), tmp_path, sanitize=True)
    with pytest.raises(EdgebnnError, match=r"AddressSanitizer|runtime error") as caught:
        host.run(program, records(2))
    assert "\n" not in str(caught.value)
    assert " in tiny_scores " in caught.value.__notes__[0]


def test_a_crash_is_named(tmp_path: Path) -> None:
    library = tiny(before="__builtin_trap();")
    with pytest.raises(EdgebnnError, match="ended by SIGILL"):
        host.run(build.build_host(library, tmp_path), records(1))


def test_records_of_another_size_are_refused(tmp_path: Path) -> None:
    program = build.build_host(tiny(), tmp_path)
    with pytest.raises(EdgebnnError, match="takes records of 8 bytes"):
        host.run(program, records(4, input_bytes=4))


@pytest.mark.parametrize(
    "inputs", [np.zeros((0, 8), np.uint8), np.zeros(8, np.uint8), np.zeros((2, 8), np.int32)]
)
def test_inputs_of_another_kind_are_refused(tmp_path: Path, inputs: NDArray[np.uint8]) -> None:
    with pytest.raises(EdgebnnError, match="pass uint8"):
        host.run(build.build_host(tiny(), tmp_path), inputs)


# ---- compilers ------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
def test_compilers_say_what_they_are(target: str) -> None:
    for compiler in toolchain.find_compilers(TARGETS[target]):
        assert re.fullmatch(
            r"([\w-]+-elf-|arm-none-eabi-|avr-)?(gcc|clang) \d+\.\d+\.\d+"
            r"|zig [\w.+-]+ \(clang [\d.]+\)",
            compiler.version,
        )


def test_gcc_comes_before_zig() -> None:
    kinds = [c.kind for c in toolchain.find_compilers(TARGETS["cortex-m4"])]
    assert kinds[0] == "gcc"
    assert kinds[-1] == "zig"


@pytest.mark.parametrize(
    ("target", "fix"),
    [
        ("host", "apt-get install gcc"),
        ("cortex-m4", r"pip install 'edgebnn\[sim\]'"),
        ("esp8266", "apt-get install gcc-xtensa-lx106$"),
        ("esp32", "put xtensa-esp32-elf-gcc on PATH$"),
    ],
)
def test_no_compiler_names_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, fix: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EdgebnnError, match=fix):
        toolchain.find_compiler(TARGETS[target])


def test_without_gcc_zig_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = toolchain.find_compiler(TARGETS["cortex-m0"])
    assert found.command == (sys.executable, "-m", "ziglang", "cc")


def test_cc_is_used_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "clang")
    assert toolchain.find_compiler(TARGETS["host"]).kind == "clang"
    monkeypatch.setenv("CC", "no-such-compiler -O2")
    with pytest.raises(EdgebnnError, match="CC is 'no-such-compiler'"):
        toolchain.find_compiler(TARGETS["host"])


def test_a_warning_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(EdgebnnError, match=r"compiling tiny\.c: .*error: .*unused") as caught:
        build.build_host(tiny(before="int unused = 0;"), tmp_path)
    assert "\n" not in str(caught.value)
    assert "int unused = 0;" in caught.value.__notes__[0]


# ---- emulated CPUs --------------------------------------------------------------------------


@pytest.mark.parametrize(("target", "kind"), built(MEASURED))
def test_unicorn_equals_the_model(images: Images, target: str, kind: str) -> None:
    inputs = records(20)
    done: list[int] = []
    firmware = images[target, kind, Unicorn]
    simulation = unicorn.run(firmware, inputs, counted=3, progress=done.append)
    assert_right(simulation, inputs)
    assert done == list(range(1, 21))
    assert len(simulation.instructions) == 3
    assert 0 < simulation.stack_bytes < 200


@pytest.mark.parametrize(("target", "kind"), built(IN_QEMU))
def test_qemu_equals_the_model(images: Images, target: str, kind: str) -> None:
    inputs = records(20)
    simulation = qemu.run(images[target, kind, Qemu], inputs, counted=3)
    assert_right(simulation, inputs)
    assert len(simulation.instructions) == 3
    if target in MEASURED:
        other = unicorn.run(images[target, kind, Unicorn], inputs, counted=3)
        assert simulation.instructions == other.instructions
        assert simulation.stack_bytes == other.stack_bytes
    else:
        assert 500 < min(simulation.instructions) <= max(simulation.instructions) < 2000
        assert 0 < simulation.stack_bytes < 200
    assert_right(qemu.run(images[target, kind, Qemu], inputs), inputs)  # and without counting


@pytest.mark.parametrize(("target", "kind"), built(MEASURED))
def test_instruction_counts_equal_a_hook_on_each_instruction(
    images: Images, target: str, kind: str
) -> None:
    """Unicorn's hook stays silent where an IT block skips; those are added from a disassembly."""
    firmware, inputs = images[target, kind, Unicorn], records(5)
    cpu = unicorn._Cpu(firmware, 60.0, count_blocks=False)
    thumb = capstone.Cs(capstone.CS_ARCH_ARM, capstone.CS_MODE_THUMB | capstone.CS_MODE_MCLASS)
    pcs: list[int] = []
    cpu._uc.hook_add(UC_HOOK_CODE, lambda _uc, pc, _size, _data: pcs.append(pc))
    expected = []
    for row in inputs:
        pcs.clear()
        cpu.call("tiny_predict", row)
        # A slot of an IT block that did not run still passes through the pipeline as a no-op.
        skipped = 0
        for index, pc in enumerate(pcs if firmware.target.cpu.arch == "arm" else ()):
            code = list(thumb.disasm(bytes(cpu._uc.mem_read(pc, 18)), pc))
            if code[0].mnemonic.startswith("it"):
                slots = code[1 : 1 + len(code[0].mnemonic) - 1]
                ran = pcs[index + 1 : index + 1 + len(slots)]
                skipped += sum(slot.address not in ran for slot in slots)
        expected.append(len(pcs) + skipped)
    counted = unicorn.run(firmware, inputs, counted=5).instructions
    assert counted == tuple(expected)


def traced(firmware: Image, inputs: NDArray[np.uint8], folder: Path) -> tuple[int, ...]:
    """Instructions of each call, as QEMU logs their addresses when it steps through them."""
    program = next(one.program for one in firmware.target.emulators if isinstance(one, Qemu))
    trace, wrapper = folder / "trace.txt", folder / program
    real = shutil.which(program)
    wrapper.write_text(f'#!/bin/sh\nexec {real} -singlestep -d exec,nochain -D {trace} "$@"\n')
    wrapper.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        assert_right(qemu.run(firmware, inputs), inputs)
    with firmware.path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(".model_text")
        assert section is not None
        model = range(section["sh_addr"], section["sh_addr"] + section["sh_size"])
    pcs = [int(pc, 16) for pc in re.findall(r"\[\w+/(\w+)/", trace.read_text())]
    # Each unbroken stay in the library's code is one call, named by its first instruction.
    calls = [list(stay) for inside, stay in groupby(pcs, lambda pc: pc in model) if inside]
    entry = elf.read_memory(firmware.path).symbols["tiny_predict"] & ~1
    return tuple(len(call) for call in calls if call[0] == entry)


@pytest.mark.parametrize(("target", "kind"), built(MEASURED))
def test_instruction_counts_equal_a_qemu_trace(
    images: Images, tmp_path: Path, target: str, kind: str
) -> None:
    """Against another emulator."""
    inputs = records(3)
    counted = unicorn.run(images[target, kind, Unicorn], inputs, counted=3).instructions
    assert counted == traced(images[target, kind, Qemu], inputs, tmp_path)


def test_instruction_counts_of_an_xtensa_equal_a_trace(images: Images, tmp_path: Path) -> None:
    """By its clock, also where that comes round to 0 within a call."""
    firmware, inputs = images["esp8266", "gcc", Qemu], records(3)
    expected = traced(firmware, inputs, tmp_path)
    assert qemu.run(firmware, inputs, counted=3).instructions == expected
    compiler = compiler_of("esp8266", "gcc")
    for ticks in range(4000, 40000, 4000):  # of which an instruction takes ten
        flag = f"-DCLOCK_START={2**32 - ticks}u"
        early = dataclasses.replace(compiler, command=(*compiler.command, flag))
        again = build.build_firmware(tiny(), TARGETS["esp8266"], tmp_path / flag, compiler=early)
        assert qemu.run(again, inputs, counted=3).instructions == expected


@pytest.mark.parametrize(("target", "kind"), built(EMULATED))
def test_footprint_is_the_librarys_own(images: Images, target: str, kind: str) -> None:
    (footprint, *others) = (elf.footprint(one.path) for one in images_of(images, target, kind))
    assert footprint == Footprint(footprint.code_bytes, constant_bytes=48, arena_bytes=32)
    assert 50 < footprint.code_bytes < 1000
    assert all(other == footprint for other in others)


@pytest.mark.parametrize("name", BY_ZIG)
def test_zig_compiles_for_every_cpu(name: str, tmp_path: Path) -> None:
    library, target = tiny(), TARGETS[name]
    for file, text in library.files.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    compiler, compiled = compiler_of(name, "zig"), tmp_path / "tiny.o"
    flags = (*toolchain.target_flags(compiler, target), *toolchain.FREESTANDING, "-O2")
    toolchain.compile_object(compiler, tmp_path / "src/tiny.c", compiled, flags)
    assert elf.undefined_symbols(compiled) == ()


def test_constants_are_sorted_by_alignment(tmp_path: Path) -> None:
    """The byte comes first in the source, but costs no padding in front of the word."""
    extra = "static const uint8_t tiny_byte = 1; static const uint32_t tiny_word = 77;"
    use = (
        "scores[0] = *(const volatile uint8_t *)&tiny_byte;"
        "scores[0] += (int32_t)*(const volatile uint32_t *)&tiny_word;"
    )
    firmware = build_m4(tiny(extra_table=extra, before=use), tmp_path)
    assert elf.footprint(firmware.path).constant_bytes == 48 + 4 + 1


@pytest.mark.parametrize("kind", KINDS)
def test_initialised_variables_are_set_up(tmp_path: Path, kind: str) -> None:
    use = "static volatile uint32_t set = 0x12345678u; if (set != 0x12345678u) { return 9; }"
    library, inputs = tiny(before=use), records(3)
    compiler = compiler_of("cortex-m4", kind)
    firmware = build.build_firmware(library, TARGETS["cortex-m4"], tmp_path, compiler=compiler)
    assert_right(unicorn.run(firmware, inputs), inputs)
    assert_right(qemu.run(firmware, inputs), inputs)


def test_stack_of_a_known_frame(tmp_path: Path) -> None:
    """80 bytes more of a local array are 80 bytes more of stack."""
    body = (
        "volatile uint32_t local[{n}];"
        "for (uint32_t i = 0; i < {n}u; i++) {{ local[i] = i; }} (void)local[0];"
    )
    depths = []
    for n in (30, 50):
        library = tiny(before=body.format(n=n))
        firmware = build_m4(library, tmp_path / str(n))
        depths.append(unicorn.run(firmware, records(1)).stack_bytes)
    assert depths[1] - depths[0] == 80
    assert 120 + 12 <= depths[0] <= 120 + 12 + 60  # the array, the scores, saved registers


def test_stack_of_an_assembly_function_is_exact(tmp_path: Path) -> None:
    source = """\
#include "tiny.h"
void tiny_scores(const uint8_t input[TINY_INPUT_BYTES], int32_t scores[TINY_NUM_CLASSES])
{
    scores[0] = scores[1] = scores[2] = input[0];
}
__attribute__((naked)) int tiny_predict(const uint8_t input[TINY_INPUT_BYTES])
{
    (void)input;
    __asm__("push {r4, r5, r6, lr}\\n sub sp, #100\\n str r0, [sp]\\n movs r0, #0\\n"
            "add sp, #100\\n pop {r4, r5, r6, pc}");
}
"""
    library = tiny()
    library = dataclasses.replace(library, files={**library.files, "src/tiny.c": source})
    firmware = build_m4(library, tmp_path)
    simulation = unicorn.run(firmware, records(2), counted=2)
    assert simulation.stack_bytes == 116
    assert simulation.instructions == (6, 6)


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (tiny(index="+ 1u"), r"tiny_\w+ in .*: invalid memory read of 0x21001000 at pc 0x0000"),
        (
            tiny(before="*(volatile uint8_t *)(uintptr_t)&tiny_table[0][0] = input[0];"),
            r"tiny_predict in .*: .*write.* at pc 0x",
        ),
        (
            tiny(before='__asm__ volatile("mov r9, #1" ::: "memory");'),
            r"returned with r9 = 0x00000001, which was 0x5a5a5a09",
        ),
        (tiny(before='__asm__ volatile("udf #0");'), r"tiny_predict in .* at pc 0x"),
    ],
    ids=["past-input", "write-flash", "callee-saved", "undefined"],
)
def test_unicorn_finds_what_hardware_would_forgive(
    tmp_path: Path, library: Library, message: str
) -> None:
    firmware = build_m4(library, tmp_path)
    with pytest.raises(EdgebnnError, match=message) as caught:
        unicorn.run(firmware, records(2))
    assert "\n" not in str(caught.value)


def test_an_endless_loop_ends(tmp_path: Path) -> None:
    library = tiny(before="while (*(const volatile uint8_t *)input != 0u) { }")
    firmware = build_m4(library, tmp_path)
    inputs = np.ones((1, 8), np.uint8)
    with pytest.raises(EdgebnnError, match=r"did not return within 0\.2 s; stopped at pc 0x"):
        unicorn.run(firmware, inputs, seconds=0.2)
    with pytest.raises(EdgebnnError, match=r"did not finish 1 inputs on mps2-an386 within 1 s"):
        qemu.run(firmware, inputs, seconds=1.0)


@pytest.mark.parametrize(
    ("target", "wrong"),
    [
        ("cortex-m4", '__asm__ volatile("udf #0");'),
        ("esp8266", '__asm__ volatile("ill");'),
        ("esp8266", "(void)*(const volatile uint32_t *)(0x20000000u);"),
    ],
)
def test_a_fault_ends_qemu(target: str, wrong: str, tmp_path: Path) -> None:
    chosen = TARGETS[target]
    machine = build.machine_of(chosen, Qemu)
    firmware = build.build_firmware(tiny(before=wrong), chosen, tmp_path, machine=machine)
    with pytest.raises(EdgebnnError, match="the CPU faulted after 0 of 2 inputs"):
        qemu.run(firmware, records(2))


def test_qemu_runs_in_batches(images: Images) -> None:
    firmware, inputs = images["cortex-m0", "gcc", Qemu], records(10)
    done: list[int] = []
    small = with_inputs(firmware, 8 + 3 * 8 + 5)
    simulation = qemu.run(small, inputs, counted=5, progress=done.append)
    assert_right(simulation, inputs)
    assert len(simulation.instructions) == 5
    assert done == [3, 6, 9, 10]
    none = with_inputs(firmware, 15)
    with pytest.raises(EdgebnnError, match="one input of 8 bytes does not fit the 15 bytes"):
        qemu.run(none, inputs)


def test_odd_record_sizes(tmp_path: Path) -> None:
    """Records of 9 bytes start at every alignment."""
    library, inputs = tiny(input_bytes=9), records(8, input_bytes=9)
    target = TARGETS["cortex-m0"]
    for emulator, settings in ((unicorn, Unicorn), (qemu, Qemu)):
        machine = build.machine_of(target, settings)
        firmware = build.build_firmware(library, target, tmp_path, machine=machine)
        assert_right(emulator.run(firmware, inputs), inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("region", "message"),
    [
        ("flash", "1024 bytes of flash are"),
        ("ram", "1024 bytes of RAM are"),
    ],
)
def test_too_little_memory_is_one_line(
    tmp_path: Path, kind: str, region: str, message: str
) -> None:
    target = TARGETS["cortex-m0"]
    machine = resized(build.machine_of(target), region, 1024)
    extra = f"static const uint16_t tiny_more[1500] = {{{', '.join(map(str, range(1, 1501)))}}};"
    use = "if (tiny_more[input[0]] == 0u) { return 1; }"
    with pytest.raises(EdgebnnError, match=message) as caught:
        build.build_firmware(
            tiny(extra_table=extra, before=use),
            target,
            tmp_path,
            machine=machine,
            compiler=compiler_of("cortex-m0", kind),
        )
    assert "\n" not in str(caught.value)
    found = re.search(r"are (\d+) too few", str(caught.value))
    assert found is not None
    excess = int(found.group(1))
    # RAM: the arena and the harness's scores beside the stack; flash: 3000 bytes and some code.
    assert excess == 32 + 16 if region == "ram" else 2000 < excess < 5000


def test_a_library_that_needs_libc_does_not_link(tmp_path: Path) -> None:
    """Not even by the copy of a large struct, which compilers turn into a call."""
    extra = "struct tiny_big { uint8_t byte[400]; }; static struct tiny_big tiny_from, tiny_to;"
    use = (
        "tiny_from.byte[input[0]] = input[1]; tiny_to = tiny_from;"
        "if (((volatile uint8_t *)tiny_to.byte)[input[0]] != input[1]) { return 1; }"
    )
    library = tiny(extra_table=extra, before=use)
    with pytest.raises(EdgebnnError, match=r"linking tiny_cortex-m4\.elf: .*undefined.*memcpy"):
        build_m4(library, tmp_path)
    # clang finds its own, so there the object has to be asked.
    compiler = compiler_of("cortex-m4", "zig")
    firmware = build.build_firmware(library, TARGETS["cortex-m4"], tmp_path, compiler=compiler)
    assert all("memcpy" in name for name in elf.undefined_symbols(firmware.model_object))
    assert elf.undefined_symbols(firmware.model_object)


@pytest.mark.parametrize(("target", "kind"), built(EMULATED))
def test_the_library_needs_nothing(images: Images, target: str, kind: str) -> None:
    for image in images_of(images, target, kind):
        assert elf.undefined_symbols(image.model_object) == ()


def test_a_target_without_a_machine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdgebnnError, match="host has no emulated machine; pick one of: cortex-m0"):
        build.build_firmware(tiny(), TARGETS["host"], tmp_path)


def test_a_target_without_an_emulator_is_not_this_computer() -> None:
    target = dataclasses.replace(TARGETS["cortex-m4"], emulators=())
    assert not target.is_host
    assert (
        toolchain.find_compiler(target).command != toolchain.find_compiler(TARGETS["host"]).command
    )
    with pytest.raises(EdgebnnError, match="'cortex-m4' has no emulator"):
        emulator_of(target)


def test_an_image_for_another_machine_is_refused(images: Images) -> None:
    """It would run, but read its inputs from where there is nothing."""
    with pytest.raises(EdgebnnError, match="not linked for Unicorn"):
        unicorn.run(images["cortex-m0", "gcc", Qemu], records(1))
    with pytest.raises(EdgebnnError, match="not linked for a machine of QEMU"):
        qemu.run(images["cortex-m0", "gcc", Unicorn], records(1))
    with pytest.raises(EdgebnnError, match="not linked for simavr"):
        simavr.run(images["cortex-m0", "gcc", Qemu], records(1))


def test_the_emulator_that_measures_most_is_used() -> None:
    target = TARGETS["cortex-m4"]
    assert emulator_of(target) is unicorn
    only = tuple(one for one in target.emulators if isinstance(one, Qemu))
    assert emulator_of(dataclasses.replace(target, emulators=only)) is qemu
    assert emulator_of(TARGETS["avr"]) is simavr


def test_missing_emulators_name_the_fix(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    firmware = images["cortex-m4", "gcc", Unicorn]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgebnnError, match="apt-get install qemu-system-arm"):
        qemu.run(firmware, records(1))
    monkeypatch.setitem(sys.modules, "unicorn", None)
    with pytest.raises(EdgebnnError, match=r"pip install 'edgebnn\[sim\]'"):
        unicorn.run(firmware, records(1))


# ---- a simulated AVR ------------------------------------------------------------------------


def build_avr(directory: Path, library: Library | None = None, **texts: str) -> Image:
    return build.build_firmware(
        library or tiny(target="avr", **texts), TARGETS["avr"], directory, compiler=None
    )


def in_assembly(*lines: str) -> Library:
    """A library whose predict is these instructions."""
    code = "".join(f'"{line}\\n"' for line in lines)
    source = f"""\
#include "tiny.h"
void tiny_scores(const uint8_t input[TINY_INPUT_BYTES], int32_t scores[TINY_NUM_CLASSES])
{{
    scores[0] = scores[1] = scores[2] = input[0];
}}
__attribute__((naked)) int tiny_predict(const uint8_t input[TINY_INPUT_BYTES])
{{
    (void)input;
    __asm__({code});
}}
"""
    return dataclasses.replace(tiny(), files={**tiny().files, "src/tiny.c": source})


@pytest.mark.parametrize("target", IN_SIMAVR)
def test_simavr_equals_the_model(images: Images, target: str) -> None:
    inputs = records(25)
    done: list[int] = []
    simulation = simavr.run(images[target, "gcc", Simavr], inputs, counted=3, progress=done.append)
    assert_right(simulation, inputs)
    assert done[-1] == 25
    assert len(simulation.cycles) == 3
    assert simulation.instructions == ()
    assert 0 < simulation.stack_bytes < 100


def test_cycles_and_stack_are_those_of_the_manual(tmp_path: Path) -> None:
    """AVR Instruction Set Manual, AVRe+: push and pop take 2 cycles, a taken branch 2, ret 4."""
    loop = ("ldi r24, 10", "1: dec r24", "brne 1b", "push r24", "push r24", "pop r24", "pop r24")
    image = build_avr(tmp_path, in_assembly(*loop, "clr r25", "lpm r0, Z", "ret"))
    simulation = simavr.run(image, records(2), counted=2)
    cycles = 1 + (10 * 1 + 9 * 2 + 1) + 2 * 2 + 2 * 2 + 1 + 3 + 4
    assert simulation.cycles == (cycles, cycles)
    assert simulation.stack_bytes == 2 + 2  # the return address, and what is pushed


def test_stack_of_a_frame_counts_only_when_it_is_set(tmp_path: Path) -> None:
    """Between its two bytes a stack pointer is none: here it would be 160 bytes too low."""
    frame = ("in r30, 0x3d", "in r31, 0x3e", "movw r26, r30", "subi r30, 96", "sbci r31, 0")
    set_it = ("out 0x3e, r31", "out 0x3d, r30", "push r1", "pop r1")
    image = build_avr(
        tmp_path, in_assembly(*frame, *set_it, "out 0x3e, r27", "out 0x3d, r26", "ret")
    )
    assert simavr.run(image, records(1)).stack_bytes == 2 + 96 + 1


@pytest.mark.parametrize(
    ("library", "message"),
    [
        (in_assembly("ldi r28, 1", "ret"), "did not leave the registers of its caller"),
        (in_assembly("ldi r24, 1", "mov r1, r24", "ret"), "did not leave the registers"),
        (in_assembly("1: push r1", "rjmp 1b"), "the stack overflows at pc 0x"),
        (in_assembly("cli", "sleep"), "the CPU stopped at pc 0x"),
    ],
    ids=["callee-saved", "zero", "stack", "sleep"],
)
def test_simavr_finds_what_goes_wrong(tmp_path: Path, library: Library, message: str) -> None:
    with pytest.raises(EdgebnnError, match=message) as caught:
        simavr.run(build_avr(tmp_path, library), records(2))
    assert "\n" not in str(caught.value)


def test_an_endless_loop_ends_in_simavr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = build_avr(tmp_path, in_assembly("1: rjmp 1b"))
    with pytest.raises(EdgebnnError, match=r"did not finish 1 inputs in simavr within 0\.2 s"):
        simavr.run(image, records(1), seconds=0.2)
    monkeypatch.setattr(simavr, "_MOST_CYCLES", 100_000)
    with pytest.raises(EdgebnnError, match="no end within the limit of cycles; stopped at pc 0x"):
        simavr.run(image, records(1))


def test_variables_of_an_avr_are_set_up(tmp_path: Path) -> None:
    use = "static volatile uint32_t set = 0x12345678u; if (set != 0x12345678u) { return 9; }"
    inputs = records(3)
    assert_right(simavr.run(build_avr(tmp_path, before=use), inputs), inputs)


def test_too_little_memory_of_an_avr_is_one_line(tmp_path: Path) -> None:
    more = f"static uint8_t tiny_more[{2 * 1024}];"
    use = "tiny_more[input[0]] = 1u; if (((volatile uint8_t *)tiny_more)[input[1]]) { return 1; }"
    with pytest.raises(
        TooLarge, match=r"does not fit avr \(atmega328p\): 2048 bytes of RAM are \d"
    ):
        build_avr(tmp_path, extra_table=more, before=use)


def test_missing_simavr_names_the_fix(
    images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec cc --version\n'
        'echo "simulator.c:1: fatal error: simavr/sim_avr.h: No such file" >&2; exit 1\n'
    )
    compiler.chmod(0o755)
    image = dataclasses.replace(images["avr", "gcc", Simavr], path=tmp_path / "tiny.elf")
    (tmp_path / "tiny.elf").write_bytes(images["avr", "gcc", Simavr].path.read_bytes())
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(
        EdgebnnError, match="simavr is not installed; apt-get install libsimavr-dev"
    ):
        simavr.run(image, records(1))
