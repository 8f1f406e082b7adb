"""The generated folder is what each build system wants: each of them builds or reads it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import kconfiglib
import numpy as np
import pytest
import torch
import yaml
from networks import random_model

import edgebnn.nn as bnn
from edgebnn import api, reference
from edgebnn.codegen import c
from edgebnn.codegen.library import Library
from edgebnn.codegen.prepare import Prepare
from edgebnn.data.columns import Column
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.measure import noise, to_device_layout
from edgebnn.packages import FORMATS, arduino
from edgebnn.plan import plan
from edgebnn.targets import get_target

SEED = 5
CMAKE = str(Path(sys.executable).with_name("cmake"))  # of the wheel


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of a random network with everything around it, called net."""
    to = tmp_path_factory.mktemp("library") / "net"
    api.write(generated("all"), to)
    return to


def generated(form: str) -> Library:
    return api.generate(random_model(SEED), target="host", name="net", form=form)


def cmake(folder: Path, *arguments: str) -> str:
    """What CMake prints of a project that is a CMakeLists.txt in ``folder``."""
    command = [CMAKE, "-S", str(folder), "-B", str(folder / "build"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


FILES = {
    "c": set(),
    "platformio": {"library.json"},
    "arduino": {
        "library.properties",
        "examples/net_once_a_second/net_once_a_second.ino",
    },
    "cmake": {"CMakeLists.txt"},
    "espidf": {"CMakeLists.txt", "idf_component.yml"},
    "zephyr": {"zephyr/module.yml", "zephyr/CMakeLists.txt", "zephyr/Kconfig"},
}


def test_formats_are_those_of_the_command() -> None:
    assert set(FORMATS) == {*FILES, "all"}


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_adds_its_files_and_changes_none(form: str) -> None:
    plain, library = generated("c"), generated(form)
    wanted = set().union(*FILES.values()) if form == "all" else FILES[form]
    assert set(plain.files) == {"src/net.h", "src/net.c"}
    assert set(library.files) == set(plain.files) | wanted
    assert {path: library.files[path] for path in plain.files} == plain.files


def test_the_sketch_says_how_an_input_is_made() -> None:
    """Of numbers by the macro of the columns, of pixels by the function that prepares them."""
    path = "examples/net_once_a_second/net_once_a_second.ino"
    torch.manual_seed(0)
    flat = bnn.Sequential(bnn.Input((4,)), bnn.BinaryLinear(4, 2), bnn.OutputNorm(2)).eval()
    plain = flat, {}
    table = flat, {"columns": tuple(Column("", 0, 0, 255) for _ in range(4))}
    photo = flat, {"input_steps": ("gcn",), "prepare": Prepare(("gcn",), 0, (1, 2, 2))}
    sketches = []
    for model, options in (plain, table, photo):
        library = c.generate(plan(lower(model), get_target("host")), "net", **options)
        sketches.append(arduino.wrap(library).files[path])
    found = [[word in one for word in ("_COLUMNS", "_prepare(", "values")] for one in sketches]
    assert found == [[False, False, True], [True, False, False], [False, True, False]]


def test_another_format_is_refused() -> None:
    with pytest.raises(EdgebnnError, match="unknown format 'bazel'; pick one of: c, platformio"):
        generated("bazel")


def test_a_project_keeps_its_own_names() -> None:
    for name in ("edgebnn_net", "edgebnn_unity"):
        with pytest.raises(EdgebnnError, match=f"names that begin with .*; try --name m_{name}"):
            api.generate(random_model(SEED), target="native", name=name, project=True)


def test_cmake_builds_a_program_that_gives_the_oracles_classes(
    folder: Path, tmp_path: Path
) -> None:
    network = lower(random_model(SEED))
    inputs = to_device_layout(noise(network, 20))
    (tmp_path / "main.c").write_text(
        """
        #include <stdio.h>
        #include "net.h"
        int main(void)
        {
            static uint8_t input[NET_INPUT_BYTES];
            while (fread(input, sizeof input, 1, stdin) == 1) {
                printf("%d\\n", net_predict(input));
            }
            return 0;
        }
        """
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.13)\nproject(app C)\n"
        f'add_subdirectory("{folder}" net)\n'
        "add_executable(app main.c)\ntarget_link_libraries(app PRIVATE edgebnn::net)\n"
    )
    cmake(tmp_path)
    subprocess.run([CMAKE, "--build", str(tmp_path / "build")], check=True, capture_output=True)
    done = subprocess.run(
        [tmp_path / "build" / "app"], input=inputs.tobytes(), capture_output=True, check=True
    )
    classes = [int(line) for line in done.stdout.split()]
    np.testing.assert_array_equal(classes, reference.run(network, inputs).classes)


def test_esp_idf_registers_a_component(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.16)\nproject(app NONE)\nset(ESP_PLATFORM 1)\n"
        "function(idf_component_register)\n"
        '  cmake_parse_arguments(ARG "" "" "SRCS;INCLUDE_DIRS" ${ARGN})\n'
        "  foreach(path ${ARG_SRCS} ${ARG_INCLUDE_DIRS})\n"
        '    if(NOT EXISTS "${CMAKE_CURRENT_SOURCE_DIR}/${path}")\n'
        '      message(FATAL_ERROR "no ${path}")\n'
        "    endif()\n  endforeach()\n"
        '  message("sources ${ARG_SRCS} left ${ARG_UNPARSED_ARGUMENTS}")\n'
        "endfunction()\n"
        f'add_subdirectory("{folder}" net)\n'
    )
    assert "sources src/net.c left \n" in cmake(tmp_path)
    manifest = yaml.safe_load((folder / "idf_component.yml").read_text())
    assert set(manifest) == {"version", "description"}


def test_zephyr_finds_a_module(folder: Path, tmp_path: Path) -> None:
    """The keys are those of Zephyr's schema of modules; CMake runs with Zephyr's functions named.

    Zephyr itself is not run.
    """
    module = yaml.safe_load((folder / "zephyr/module.yml").read_text())
    assert set(module) <= {"name", "build", "tests", "samples", "boards", "blobs", "security"}
    assert module["name"] == "net"
    assert module["build"] == {"cmake": "zephyr", "kconfig": "zephyr/Kconfig"}
    assert (folder / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    symbols = kconfiglib.Kconfig(str(folder / "zephyr/Kconfig"), warn=True).syms
    assert symbols["EDGEBNN_NET"].type == kconfiglib.BOOL

    stubs = "".join(
        f'function({name})\n  message("{name} ${{ARGN}}")\nendfunction()\n'
        for name in ("zephyr_library_named", "zephyr_library_sources", "zephyr_include_directories")
    )
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(app NONE)\n"
        f'{stubs}option(CONFIG_EDGEBNN_NET "" OFF)\nadd_subdirectory("{folder}/zephyr" net)\n'
    )
    assert "zephyr_library" not in cmake(tmp_path)
    on = cmake(tmp_path, "-DCONFIG_EDGEBNN_NET=ON")
    for line in (
        "zephyr_library_named net",
        "zephyr_library_sources ../src/net.c",
        "zephyr_include_directories ../src",
    ):
        assert f"{line}\n" in on


def test_platformio_packs_it_without_a_network(folder: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "platformio", "pkg", "pack", str(folder), "-o", str(tmp_path)],
        env={
            **os.environ,
            "PLATFORMIO_CORE_DIR": str(tmp_path / "core"),
            "PLATFORMIO_SETTING_ENABLE_TELEMETRY": "no",
            "PLATFORMIO_DISABLE_UPGRADE_CHECK": "true",
            "HTTP_PROXY": "http://127.0.0.1:9",
            "HTTPS_PROXY": "http://127.0.0.1:9",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(tmp_path.glob("net-*.tar.gz"))) == 1
    manifest = json.loads((folder / "library.json").read_text())
    assert manifest["headers"] == "net.h"


def test_arduino_finds_a_library(folder: Path) -> None:
    """The format's rules: keys once each, one line each, and a header that there is."""
    lines = (folder / "library.properties").read_text().splitlines()
    properties = dict(line.split("=", 1) for line in lines)
    assert len(properties) == len(lines)
    required = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category"}
    assert required | {"url", "architectures"} <= set(properties)
    assert (folder / "src" / properties["includes"]).is_file()


def test_an_archive_holds_the_folder(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.zip"
    assert api.write(generated("all"), path) == [path]
    files = [file for file in folder.rglob("*") if file.is_file()]
    with zipfile.ZipFile(path) as archive:
        there = {name: archive.read(name) for name in archive.namelist()}
    assert there == {f"net/{f.relative_to(folder).as_posix()}": f.read_bytes() for f in files}
    before = path.read_bytes()
    with pytest.raises(EdgebnnError, match="exists; add --force"):
        api.write(generated("all"), path)
    api.write(generated("all"), path, force=True)
    assert path.read_bytes() == before
