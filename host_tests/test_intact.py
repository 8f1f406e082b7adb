"""<name>_intact() is 1, and 0 once any number of any table is another one, on every kind of CPU."""

import re
import shutil
import struct
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from elftools.elf.elffile import ELFFile
from test_cli import output_here
from test_contract import CROSS_TARGETS, check_compiles_clean, undefined
from test_golden import FIRST_LAYER, NETWORKS
from torch import nn

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api
from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.device import build, elf, host, simavr, unicorn
from edgebnn.device.build import Image
from edgebnn.errors import EdgebnnError
from edgebnn.targets import get_target

TABLE = re.compile(
    r"static const (?:__flash )?(u?int\d+_t) (n_\w+)((?:\[\d+\])+) = \{(.*?)\};", re.DOTALL
)
NUMBER = re.compile(r"-?(?:0x[0-9a-f]+|\d+)(?=u?[,\s])")
FORMS = {"uint8_t": "B", "int16_t": "h", "int32_t": "i", "uint32_t": "I"}


def shifts() -> nn.Module:
    """Scores by shifts, a table of bytes."""
    torch.manual_seed(3)
    hidden = (bnn.BinaryLinear(20, 12), bnn.ShiftBatchNorm(12), bnn.Sign())
    output = (bnn.BinaryLinear(12, 5), bnn.ShiftOutputNorm(5, bound=12))
    model = bnn.Sequential(bnn.Input((20,)), *hidden, *output)
    with torch.no_grad():
        output[1].weight.copy_(torch.tensor([1.0, -0.25, 3.0, 0.0, 8.0]))
    return model


MODELS = {**NETWORKS, "shifts": shifts}


def library_of(model: str, target: str, *, self_test: bool = True) -> Library:
    """The library ``n`` of one of :data:`MODELS`."""
    choice = "auto" if target == "avr" else FIRST_LAYER.get(model, "auto")
    return api.generate(
        MODELS[model](), target=target, name="n", first_layer=choice, self_test=self_test
    )


# --- tables in the text -------------------------------------------------------------------------


def tables(library: Library) -> list[re.Match[str]]:
    """The tables in the text of a library ``n``."""
    source = library.files[source_path("n")]
    found = list(TABLE.finditer(source))
    assert len(found) == len(re.findall(r"^static const .*= \{$", source, re.MULTILINE)) > 1
    return found


def numbers_of(table: re.Match[str]) -> list[int]:
    numbers = [int(text, 0) for text in NUMBER.findall(table.group(4))]
    assert len(numbers) == np.prod([int(size) for size in re.findall(r"\d+", table.group(3))])
    return numbers


def damaged(library: Library) -> list[Library]:
    """``library`` with another number in one place of a table: the first and the last of each."""
    path = source_path(library.name)
    source, copies = library.files[path], []
    for table in tables(library):
        numbers = list(NUMBER.finditer(source, *table.span(4)))
        for number in (numbers[0], numbers[-1]):
            digit, end = int(number.group()[-1], 16), number.end()
            text = f"{source[: end - 1]}{digit ^ 1:x}{source[end:]}"
            copies.append(replace(library, files={**library.files, path: text}))
    return copies


# --- programs that say what the check says ------------------------------------------------------


def renamed(library: Library, name: str) -> Library:
    """A library ``n`` that is called ``name``."""

    def change(text: str) -> str:
        return re.sub(r"\bN_", f"{name.upper()}_", re.sub(r"\bn(?=_|\.h)", name, text))

    paths = (header_path, source_path)
    files = {path(name): change(library.files[path("n")]) for path in paths}
    return replace(library, name=name, files=files)


def probe(libraries: Sequence[Library], target: str) -> Library:
    """A library whose class of the input i is what n_intact() of library i says."""
    named = [renamed(library, f"n{i}") for i, library in enumerate(libraries)]
    source = ['#include "probe.h"', *(f'#include "{one.name}.c"' for one in named)]
    source.append(_PROBE % ", ".join(f"{one.name}_intact" for one in named))
    files = {header_path("probe"): _HEADER, source_path("probe"): "\n".join(source)}
    for one in named:
        files |= one.files
    constants = sum(one.constant_bytes for one in libraries)
    return Library("probe", target, files, 1, 1, constants, 0, ())


_HEADER = """\
#ifndef PROBE_H
#define PROBE_H
#include <stdint.h>
#define PROBE_INPUT_BYTES 1u
#define PROBE_NUM_CLASSES 1u
void probe_scores(const uint8_t *input, int32_t *scores);
int probe_predict(const uint8_t *input);
#endif
"""
_PROBE = """
static int (*const intact[])(void) = { %s };

int probe_predict(const uint8_t *input)
{
    return intact[input[0]]();
}

void probe_scores(const uint8_t *input, int32_t *scores)
{
    scores[0] = probe_predict(input);
}
"""


def built(libraries: Sequence[Library], name: str, folder: Path, optimize: str = "-O2") -> Image:
    """A :func:`probe` for a target; where that has several machines, for the largest."""
    target, library = get_target(name), probe(libraries, name)
    if target.is_host:
        return build.build_host(library, folder, sanitize=True, optimize=optimize)
    machine = target.emulators[-1 if name == "avr" else 0].machine
    return build.build_firmware(library, target, folder, machine=machine, optimize=optimize)


def ask(image: Image, count: int = 1) -> list[int]:
    """What n_intact() of each of ``count`` libraries in a :func:`probe` says."""
    inputs = np.arange(count, dtype=np.uint8)[:, None]
    if image.target.is_host:
        return host.run(image, inputs).classes.tolist()
    emulator = simavr if image.target.name == "avr" else unicorn
    return emulator.run(image, inputs, counted=1).classes.tolist()


def names_and_bytes(library: Library) -> list[tuple[str, int]]:
    """The tables of a library ``n``, as in a :func:`probe` of it alone."""
    return [
        (f"n0{table.group(2)[1:]}", struct.calcsize(FORMS[table.group(1)]) * len(numbers_of(table)))
        for table in tables(library)
    ]


def flipped(program: Path, symbol: str, place: int, bit: int) -> bytes:
    """The ELF file ``program`` with another bit in byte ``place`` of a table."""
    with program.open("rb") as file:
        read = ELFFile(file)
        (found,) = read.get_section_by_name(".symtab").get_symbol_by_name(symbol)
        section = read.get_section(found["st_shndx"])
        begin = found["st_value"] - section["sh_addr"] + section["sh_offset"]
    content = bytearray(program.read_bytes())
    content[range(begin, begin + found["st_size"])[place]] ^= 1 << bit
    return bytes(content)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("target", ["host", "cortex-m0", "rv32imc", "avr"])
def test_another_number_in_any_table_is_found(target: str, model: str, tmp_path: Path) -> None:
    library = library_of(model, target)
    copies = damaged(library)
    image = built([library, *copies], target, tmp_path)
    assert ask(image, 1 + len(copies)) == [1] + [0] * len(copies)


@pytest.mark.parametrize("model", ["mlp", "shifts"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O3"])
def test_another_bit_in_any_byte_is_found(
    level: str, compiler: str, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the finished program: a compiler, which has seen the tables, must not answer itself."""
    monkeypatch.setenv("CC", compiler)
    library = library_of(model, "host")
    image = build.build_host(probe([library], "host"), tmp_path, optimize=level)
    assert ask(image) == [1]
    other = replace(image, path=tmp_path / "other")
    other.path.touch(0o755)
    for name, size in names_and_bytes(library):
        for place in range(size):
            other.path.write_bytes(flipped(image.path, name, place, place % 8))
            assert ask(other) == [0], (name, place)


@pytest.mark.parametrize("model", ["mlp", "shifts"])
@pytest.mark.parametrize("target", CROSS_TARGETS)
def test_another_bit_in_an_image_is_found(target: str, model: str, tmp_path: Path) -> None:
    library = library_of(model, target)
    image = built([library], target, tmp_path)
    assert ask(image) == [1]
    other = replace(image, path=tmp_path / "other.elf")
    for name, _ in names_and_bytes(library):
        for place, bit in ((0, 0), (-1, 7)):
            other.path.write_bytes(flipped(image.path, name, place, bit))
            assert ask(other) == [0], (name, place)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("target", ["cortex-m4", "avr"])
def test_crc_is_that_of_the_printed_numbers(target: str, model: str) -> None:
    """Each number's bytes least significant first, in the order of the text."""
    library, content = library_of(model, target), b""
    for table in tables(library):
        numbers = numbers_of(table)
        content += struct.pack(f"<{len(numbers)}{FORMS[table.group(1)]}", *numbers)
    assert len(content) == library.constant_bytes
    printed = f"#define N_TABLES_CRC32 0x{zlib.crc32(content):08X}u\n"
    assert printed in library.files[header_path("n")]


def test_all_types_of_tables_are_there() -> None:
    every = [table for model in MODELS for table in tables(library_of(model, "cortex-m4"))]
    assert {table.group(1) for table in every} == set(FORMS)
    assert {table.group(3).count("[") for table in every} >= {1, 2}


# --- the contract of the emitted C --------------------------------------------------------------


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("model", MODELS)
def test_compiles_clean_as_c99_and_cpp17(model: str, compiler: str, tmp_path: Path) -> None:
    api.write(library_of(model, "host"), tmp_path)
    check_compiles_clean(tmp_path / source_path("n"), compiler)


@pytest.mark.parametrize("level", ["-Os", "-O2", "-O3"])
@pytest.mark.parametrize("target", CROSS_TARGETS)
def test_needs_nothing_and_links_what_is_planned(target: str, level: str, tmp_path: Path) -> None:
    """Every table is there whole, which a small one may not be without the check; and no other."""
    for model in MODELS:
        library = library_of(model, target)
        image = built([library], target, tmp_path / model, level)
        assert elf.footprint(image.path).constant_bytes == library.constant_bytes
        with image.path.open("rb") as file:
            symbols = list(ELFFile(file).get_section_by_name(".symtab").iter_symbols())
        sizes = {symbol.name: symbol["st_size"] for symbol in symbols}
        planned = names_and_bytes(library)
        assert [(name, sizes[name]) for name, _ in planned] == planned
        assert sum(size for _, size in planned) == library.constant_bytes
        api.write(library, tmp_path / model / "alone")
        source = tmp_path / model / "alone" / source_path("n")
        assert undefined(source, target, level, "-ffreestanding") == ""


def test_only_one_name_more_is_public(tmp_path: Path) -> None:
    target = get_target("cortex-m4")
    image = build.build_firmware(library_of("mlp", target.name), target, tmp_path)
    with image.model_object.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab").iter_symbols()
        public = {s.name for s in symbols if s["st_info"]["bind"] == "STB_GLOBAL"}
    assert public == {"n_predict", "n_scores", "n_best", "n_intact"}


@pytest.mark.parametrize("model", MODELS)
def test_all_else_is_the_same_text(model: str) -> None:
    """But for the number that header and source share, so that they are not mixed."""
    plain, library = (library_of(model, "cortex-m4", self_test=one) for one in (False, True))
    assert (plain.self_test, library.self_test) == (False, True)
    for path in (header_path("n"), source_path("n")):
        assert not re.search("intact|crc", plain.files[path], re.IGNORECASE)
        texts = (one.files[path].split("\n") for one in (plain, library))
        less, more = ([re.sub("(INTERFACE.*)0x.*u", r"\1", t) for t in text] for text in texts)
        rest = iter(more)
        assert all(line in rest for line in less)
        assert len(more) > len(less)


def test_header_without_the_check_is_refused(tmp_path: Path) -> None:
    plain, library = (library_of("mlp", "host", self_test=one) for one in (False, True))
    path = header_path("n")
    mixed = replace(library, files={**library.files, path: plain.files[path]})
    with pytest.raises(EdgebnnError, match="copy both again"):
        build.build_host(mixed, tmp_path)


def test_command_adds_the_check_where_it_is_asked_for(tmp_path: Path) -> None:
    edgebnn.save(MODELS["mlp"](), tmp_path / "n.pt")
    library, project = ("-o", "out"), ("--project", "out")
    cases = [
        (library, (), False),
        (library, ("--self-test",), True),
        (project, (), True),
        (project, ("--self-test",), True),
        (project, ("--no-self-test",), False),
    ]
    for folder, option, there in cases:
        output_here(tmp_path, "generate", "n.pt", *folder, *option)
        (source,) = (tmp_path / "out").rglob("n.c")
        assert ("int n_intact(void)\n{" in source.read_text()) == there
        if folder == project:
            text = (tmp_path / "out" / "include" / "edgebnn_model.h").read_text()
            assert (".intact = n_intact," in text) == there
        shutil.rmtree(tmp_path / "out")
