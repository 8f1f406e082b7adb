"""Scratch memory in each of its forms: static, placed, of the caller; and models side by side."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from elftools.elf.elffile import ELFFile
from kernel_cases import dense_by_digits
from networks import random_inputs, random_model
from numpy.typing import NDArray
from test_cli import mistake
from test_equality import device_inputs
from test_model_files import mlp

from edgebnn import api, reference
from edgebnn.codegen import c
from edgebnn.codegen.library import Library
from edgebnn.device.toolchain import WARNINGS
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target

SEEDS = range(16)
INPUTS = 8
SANITIZE = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")

# Each call gets memory of its own, of exactly the size that is asked for and with anything in it.
CALLER = r"""
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

#define RECORDS %d

static uint8_t inputs[RECORDS][NET_INPUT_BYTES];
static int32_t scores[2][RECORDS][NET_NUM_CLASSES];
static int classes[2][RECORDS];

static void *run(void *which)
{
    const size_t number = (size_t)which;

    for (size_t i = 0u; i < RECORDS; i++) {
        uint32_t *arena = malloc(NET_ARENA_WORDS * sizeof *arena);
        memset(arena, 0xA5, NET_ARENA_WORDS * sizeof *arena);
        net_scores(inputs[i], scores[number][i], arena);
        memset(arena, 0x5A, NET_ARENA_WORDS * sizeof *arena);
        classes[number][i] = net_predict(inputs[i], arena);
        free(arena);
    }
    return NULL;
}

int main(void)
{
    pthread_t other;

    if (fread(inputs, 1u, sizeof inputs, stdin) != sizeof inputs) {
        return 2;
    }
    if (pthread_create(&other, NULL, run, (void *)1) != 0) {
        return 3;
    }
    run((void *)0);
    pthread_join(other, NULL);
    for (size_t thread = 0u; thread < 2u; thread++) {
        for (size_t i = 0u; i < RECORDS; i++) {
            printf("%%d", classes[thread][i]);
            for (size_t o = 0u; o < NET_NUM_CLASSES; o++) {
                printf(" %%ld", (long)scores[thread][i][o]);
            }
            printf("\n");
        }
    }
    return 0;
}
"""


def library_of(seed: int, target: str, *, caller_arena: bool = True, name: str = "net") -> Library:
    network = lower(random_model(seed))
    return c.generate(plan(network, get_target(target)), name, caller_arena=caller_arena)


def compile_with(*command: str | Path) -> str:
    """Compile, which has to work or to fail with one kind of message; what was said."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def answers(folder: Path, inputs: NDArray[np.uint8], *sanitize: str) -> list[list[int]]:
    """Class and scores of each call by the ``CALLER`` that is in ``folder``, beside the library."""
    files = (folder / "main.c", folder / "src" / "net.c", "-o", folder / "net")
    flags = ("-std=gnu99", "-O1", *sanitize, "-pthread", "-I", folder / "src")
    assert compile_with("clang", *flags, *files) == ""
    done = subprocess.run(
        [folder / "net"], input=inputs.tobytes(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [[int(word) for word in line.split()] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("start", range(0, len(SEEDS), 8))
def test_calls_with_arenas_of_their_own_run_at_once(start: int, tmp_path: Path) -> None:
    """Two threads compute all inputs; one build looks at memory, the other at races."""
    for seed in SEEDS[start : start + 8]:
        folder = tmp_path / str(seed)
        api.write(library_of(seed, "host"), folder)
        (folder / "main.c").write_text(CALLER % INPUTS)
        model = random_model(seed)
        inputs = device_inputs(random_inputs(model, INPUTS, seed))
        wanted = reference.run(lower(model), inputs)
        rows = np.concatenate([wanted.classes[:, None], wanted.scores], axis=1).tolist()
        for sanitize in (SANITIZE, ("-fsanitize=thread",)):
            got = answers(folder, inputs, *sanitize)
            assert got == [*rows, *rows]


@pytest.mark.parametrize("number", [0, 2, 26, 28])
def test_columns_of_digits_begin_with_any_memory(number: int, tmp_path: Path) -> None:
    """Sums and planes of zeros are made anew in each call; few words and many of both."""
    case = list(dense_by_digits())[number]
    planned = plan(case.network, get_target("host"), case.prefer)
    api.write(c.generate(planned, "net", caller_arena=True), tmp_path)
    inputs = case.inputs[-INPUTS:]
    (tmp_path / "main.c").write_text(CALLER % INPUTS)
    wanted = reference.run(case.network, inputs)
    rows = np.concatenate([wanted.classes[:, None], wanted.scores], axis=1).tolist()
    assert answers(tmp_path, inputs, *SANITIZE) == [*rows, *rows]


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "rv32ec", "avr"])
def test_callers_arena_leaves_nothing_static(target: str, tmp_path: Path) -> None:
    cross = get_target(target).toolchain
    for seed in SEEDS[:10]:
        source = tmp_path / str(seed) / "src" / "net.c"
        api.write(library_of(seed, target), tmp_path / str(seed))
        flags = (*cross.gcc_flags, *WARNINGS, *cross.dialect, "-O2", "-ffreestanding")
        assert compile_with(cross.gcc, *flags, "-c", source, "-o", source.with_suffix(".o")) == ""
        with source.with_suffix(".o").open("rb") as file:
            sections = {one.name: one["sh_size"] for one in ELFFile(file).iter_sections()}
        assert sections[".bss"] == sections[".data"] == 0


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_callers_arena_compiles_clean_in_cpp(compiler: str, tmp_path: Path) -> None:
    api.write(library_of(3, "host"), tmp_path)
    cpp = [flag for flag in WARNINGS if flag not in ("-std=c99", "-Wmissing-prototypes")]
    flags = (*cpp, "-x", "c++", "-std=c++17")
    source = tmp_path / "src" / "net.c"
    assert compile_with(compiler, *flags, "-c", source, "-o", tmp_path / "net.o") == ""


def test_static_arena_goes_where_the_attribute_says(tmp_path: Path) -> None:
    library = library_of(3, "cortex-m4", caller_arena=False)
    api.write(library, tmp_path)
    cross = get_target("cortex-m4").toolchain
    place = '-DNET_ARENA_ATTRIBUTE=__attribute__((section(".fast")))'
    source, built = tmp_path / "src" / "net.c", tmp_path / "net.o"
    command = (cross.gcc, *cross.gcc_flags, *WARNINGS, place, "-c", source, "-o", built)
    assert compile_with(*command) == ""
    with built.open("rb") as file:
        elf = ELFFile(file)
        assert elf.get_section_by_name(".fast")["sh_size"] == library.arena_bytes > 0
        assert elf.get_section_by_name(".bss")["sh_size"] == 0


@pytest.mark.parametrize("caller_arena", [False, True])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_two_models_stand_in_one_translation_unit(
    compiler: str, caller_arena: bool, tmp_path: Path
) -> None:
    """Each pair shares helpers; a name without its model's prefix would be there twice."""
    for seed in SEEDS[:10]:
        folder, text = tmp_path / str(seed), ""
        for name, one in (("left", seed), ("right", seed + 1)):
            library = library_of(one, "host", caller_arena=caller_arena, name=name)
            api.write(library, folder / name)
            text += f'#include "{name}/src/{name}.c"\n'
        (folder / "both.c").write_text(text)
        built = ("-c", folder / "both.c", "-o", folder / "both.o")
        assert compile_with(compiler, *WARNINGS, *built) == ""


def test_headers_say_whether_calls_may_run_at_once() -> None:
    header = library_of(3, "host").files["src/net.h"]
    assert " * Re-entrant: calls with an arena each may run at the same time.\n" in header
    assert "uint32_t arena[NET_ARENA_WORDS]);" in header
    header = library_of(3, "host", caller_arena=False).files["src/net.h"]
    assert " * Not re-entrant: calls share static scratch memory.\n" in header
    assert "ARENA_WORDS" not in header


def test_code_refuses_a_cpu_of_another_width(tmp_path: Path) -> None:
    for target, other, fix in (
        ("cortex-m0", "avr", "generate it for an AVR with --target avr"),
        ("avr", "cortex-m0", "generate it for another CPU with --target"),
    ):
        api.write(library_of(3, target), tmp_path / target)
        cross = get_target(other).toolchain
        source = tmp_path / target / "src" / "net.c"
        command = (cross.gcc, *cross.gcc_flags, "-std=gnu99", "-fsyntax-only", source)
        assert fix in compile_with(*command)


def test_arenas_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(EdgebnnError, match="unknown arena 'heap'; pick one of: static, caller"):
        api.generate(mlp(), arena="heap")
    with pytest.raises(EdgebnnError, match="a project has a static arena; leave out --arena"):
        api.generate(mlp(), target="native", project=True, arena="caller")
    api.save(mlp(), tmp_path / "net.pt")
    text = mistake(tmp_path, "generate", "net.pt", "--arena", "heap", "-o", "out")
    assert "unknown arena 'heap'" in text
    assert not (tmp_path / "out").exists()
