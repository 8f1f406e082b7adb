"""The headers beside a library: a test vector that devices pass, and class names as C has them."""

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_regressions.file_regression import FileRegressionFixture
from test_cli import mistake, output_here
from test_contract import CROSS_TARGETS
from test_golden import GOLDEN, by_formula, mlp
from torch import nn

import edgebnn
import edgebnn.nn as bnn
from edgebnn import api
from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.codegen.vector import class_names_path, vector_path
from edgebnn.data.transforms import apply_to_image
from edgebnn.device import build, host, simavr, toolchain, unicorn
from edgebnn.errors import EdgebnnError
from edgebnn.targets import get_target

NAMES = ("zero", 'a "b" \\ ??= */ %s', "café 5")


def prepared() -> nn.Module:
    """Images of 4x4 pixels of 4 bits, 3 classes."""
    output = (bnn.BinaryLinear(16, 3), bnn.OutputNorm(3, bound=240))
    return by_formula(bnn.Input((1, 4, 4), bits=4), bnn.Flatten(), *output)


def save_prepared(folder: Path) -> Path:
    path = folder / "prepared.pt"
    steps = ("resize 4", "gcn")
    edgebnn.save(
        prepared(), path, preprocessing=steps, right_shift=4, image=(1, 6, 7), class_names=NAMES
    )
    return path


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    return save_prepared(tmp_path)


def numbers(text: str, name: str) -> list[int]:
    (table,) = re.findall(rf"{name}\[\d+\][^=]*= \{{(.*?)\}};", text, re.DOTALL)
    return [int(number) for number in re.findall(r"-?\d+", table)]


# --- golden files -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [source_path, header_path, vector_path, class_names_path],
    ids=lambda path: path.__name__,
)
def test_emitted_files_are_the_reviewed_ones(
    path: object, model_file: Path, file_regression: FileRegressionFixture
) -> None:
    library = api.generate(model_file, target="cortex-m4", test_vector=True, class_names=True)
    place = path("prepared")  # type: ignore[operator]
    text = library.files[place]
    assert text.count("\n") < 360, "too long to read in review"
    assert max(map(len, text.splitlines())) <= 100
    file_regression.check(
        text,
        encoding="utf-8",
        newline="",
        fullpath=GOLDEN / Path(place).name,
        extension=Path(place).suffix,
    )


# --- what a vector holds ------------------------------------------------------------------------


def test_vector_is_what_torch_gives(model_file: Path) -> None:
    library = api.generate(model_file, test_vector=True)
    text = library.files[vector_path("prepared")]
    image = np.array(numbers(text, "vector_image"), np.uint8).reshape(1, 1, 6, 7)
    made = apply_to_image(image, ("resize 4", "gcn")) >> 4
    assert numbers(text, "vector_input") == made.ravel().tolist()
    model = edgebnn.load(model_file)
    with torch.no_grad():
        logits = model(torch.from_numpy(made)).double()
    bits = int(re.findall(r"FRACTION_BITS (\d+)u", library.files[header_path("prepared")])[0])
    assert numbers(text, "vector_scores") == (logits * 2**bits).long()[0].tolist()
    assert f"#define PREPARED_VECTOR_CLASS {int(logits.argmax())}\n" in text


def test_vector_of_a_network_alone() -> None:
    """No image without steps, and the same text again; it is no part of a library by itself."""
    library = api.generate(mlp(), name="net", test_vector=True)
    text = library.files[vector_path("net")]
    assert "vector_image" not in text
    assert text == api.generate(mlp(), name="net", test_vector=True).files[vector_path("net")]
    plain = api.generate(mlp(), name="net")
    assert library.files.keys() - plain.files.keys() == {vector_path("net")}
    assert all(library.files[path] == plain.files[path] for path in plain.files)
    assert (
        "net_scores(net_vector_input, scores, arena) makes"
        in (
            api.generate(mlp(), name="net", arena="caller", test_vector=True).files[
                vector_path("net")
            ]
        )
    )


# --- on devices ---------------------------------------------------------------------------------


def probe(library: Library) -> Library:
    """Its class is 1 where the device passes the vector of ``library`` and has its names."""
    byte = "pgm_read_byte(&(%s))" if library.target == "avr" else "(%s)"
    source = _PROBE.replace("AVR", "1" if library.target == "avr" else "0")
    spelled = re.sub(r"BYTE\((.*?)\)", lambda match: byte % match[1], source)
    names = [text.encode().hex() for text in NAMES]
    wanted = ", ".join('"{}"'.format(re.sub("(..)", r"\\x\1", name)) for name in names)
    files = {
        **library.files,
        header_path("probe"): _HEADER,
        source_path("probe"): spelled.replace("NAMES", wanted),
    }
    constants = library.constant_bytes
    return Library("probe", library.target, files, 1, 1, constants, library.arena_bytes, ())


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
#include "probe.h"
#include "prepared.c"
#include "prepared_vector.h"
#include "prepared_class_names.h"
#if AVR
#include <avr/pgmspace.h>
#endif

static const char *const wanted[] = { NAMES };

int probe_predict(const uint8_t *input)
{
    uint8_t image[PREPARED_IMAGE_BYTES], made[PREPARED_INPUT_BYTES];
    int32_t scores[PREPARED_NUM_CLASSES];
    const uint8_t *values = (const uint8_t *)prepared_vector_scores;

    (void)input;
    for (unsigned i = 0u; i < PREPARED_IMAGE_BYTES; i++) {
        image[i] = BYTE(prepared_vector_image[i]);
    }
    prepared_prepare(image, made);
    for (unsigned i = 0u; i < PREPARED_INPUT_BYTES; i++) {
        if (made[i] != BYTE(prepared_vector_input[i])) {
            return 2;
        }
    }
    prepared_scores(made, scores);
    for (unsigned i = 0u; i < sizeof scores; i++) {
        if (((const uint8_t *)scores)[i] != BYTE(values[i])) {
            return 3;
        }
    }
    for (unsigned i = 0u; i < 3u; i++) {
        unsigned j = 0u;
        do {
            if ((uint8_t)BYTE(prepared_class_names[i][j]) != (uint8_t)wanted[i][j]) {
                return 4;
            }
        } while (wanted[i][j++] != 0);
    }
    return prepared_best(scores) == PREPARED_VECTOR_CLASS;
}

void probe_scores(const uint8_t *input, int32_t *scores)
{
    scores[0] = probe_predict(input);
}
"""


def ask(library: Library, folder: Path) -> int:
    target, record = get_target(library.target), np.zeros((1, 1), np.uint8)
    if target.is_host:
        image = build.build_host(library, folder, sanitize=True)
        return int(host.run(image, record).classes[0])
    machine = target.emulators[-1 if library.target == "avr" else 0].machine
    image = build.build_firmware(library, target, folder, machine=machine)
    emulator = simavr if library.target == "avr" else unicorn
    return int(emulator.run(image, record, counted=1).classes[0])


@pytest.mark.parametrize("target", ["host", *CROSS_TARGETS])
def test_devices_pass(target: str, model_file: Path, tmp_path: Path) -> None:
    library = api.generate(model_file, target=target, test_vector=True, class_names=True)
    assert ask(probe(library), tmp_path / "probe") == 1


@pytest.mark.parametrize(
    ("old", "new", "answer"),
    [
        (r"(image\[42\] = \{\n    )\d+", r"\g<1>7", 2),
        (r"(input\[16\] = \{\n    )\d+", r"\g<1>99", 2),
        (r"(scores\[3\] = \{\n    )-?\d+", r"\g<1>7", 3),
        (r"CLASS \d", "CLASS 9", 0),
    ],
)
def test_another_vector_is_not_passed(
    old: str, new: str, answer: int, model_file: Path, tmp_path: Path
) -> None:
    library = api.generate(model_file, target="host", test_vector=True, class_names=True)
    vector = vector_path("prepared")
    changed, count = re.subn(old, new, library.files[vector])
    assert count == 1
    files = {**library.files, vector: changed}
    assert ask(probe(replace(library, files=files)), tmp_path) == answer


@pytest.mark.parametrize("target", ["host", "avr"])
@pytest.mark.parametrize("language", ["c", "c++"])
def test_headers_compile_clean(
    language: str, target: str, model_file: Path, tmp_path: Path
) -> None:
    """Also where nothing of them is used, in C and in C++, which has no __flash."""
    api.write(
        api.generate(model_file, target=target, test_vector=True, class_names=True),
        tmp_path / "out",
    )
    headers = ("prepared_vector.h", "prepared_class_names.h")
    main = tmp_path / "main.c"
    main.write_text("".join(f'#include "{name}"\n#include "{name}"\n' for name in headers))
    flags = [flag for flag in toolchain.WARNINGS if flag != "-std=c99"]
    if language == "c++":
        flags = [flag for flag in flags if flag != "-Wmissing-prototypes"]
    compiler = ["avr-gcc", "-mmcu=atmega328p"] if target == "avr" else ["gcc"]
    standard = {"c": "-std=gnu99", "c++": "-std=gnu++17" if target == "host" else "-std=gnu++11"}
    command = [*compiler, "-x", language, standard[language], *flags, "-fsyntax-only"]
    done = subprocess.run(
        [*command, f"-I{tmp_path / 'out' / 'src'}", str(main)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_vector_refuses_the_header_of_another_run(model_file: Path, tmp_path: Path) -> None:
    library = api.generate(model_file, target="host", test_vector=True, class_names=True)
    other = api.generate(model_file, target="host", self_test=True, test_vector=True)
    vector = vector_path("prepared")
    files = {**library.files, vector: other.files[vector]}
    with pytest.raises(EdgebnnError, match="not of one run of edgebnn generate; copy both"):
        ask(probe(replace(library, files=files)), tmp_path)


# --- on request ---------------------------------------------------------------------------------


def test_command_adds_what_is_asked_for(model_file: Path, tmp_path: Path) -> None:
    cases = [((), 0), (("--test-vector",), 1), (("--test-vector", "--class-names"), 2)]
    for place, (options, count) in enumerate(cases):
        output_here(tmp_path, "generate", model_file, "-o", f"out{place}", *options)
        written = {path.name for path in (tmp_path / f"out{place}" / "src").iterdir()}
        more = ["prepared_vector.h", "prepared_class_names.h"][:count]
        assert written == {"prepared.c", "prepared.h", *more}
    arguments = ("--project", "project", "-t", "native", "--test-vector")
    output_here(tmp_path, "generate", model_file, *arguments)
    library = tmp_path / "project" / "lib" / "prepared" / "src"
    assert (library / "prepared_vector.h").exists()


def test_names_that_a_model_does_not_have(tmp_path: Path) -> None:
    edgebnn.save(mlp(), tmp_path / "n.pt")
    text = mistake(tmp_path, "generate", "n.pt", "-o", "out", "--class-names")
    assert "has no names of its 3 classes" in text
    assert not (tmp_path / "out").exists()
