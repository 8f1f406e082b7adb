"""What is promised of the emitted C: warnings, linkage, sizes, reproducibility; and of imports."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import jinja2
import pytest
import torch
from elftools.elf.elffile import ELFFile
from networks import random_model

import edgebnn.nn as bnn
from edgebnn import api, kernels
from edgebnn.codegen import c
from edgebnn.codegen.env import resource_dir
from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.device import build, elf, toolchain
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target

CROSS_TARGETS = (
    "cortex-m0",
    "cortex-m4",
    "rv32imc",
    "rv32ec",
    "avr",
)  # test_emulated has all of them
PACKAGE = Path(build.__file__).resolve().parent.parent


def library_of(seed: int, target: str, name: str = "net"):
    """Odd seeds compute a first layer by bit planes where there is one, and words for it."""
    network, chosen = lower(random_model(seed)), get_target(target)
    prefer = kernels.first_layer_ways("bit-planes") if seed % 2 else ()
    first = kernels.choose((network.ops[0],), (network.input,), chosen, prefer)[1].way
    return c.generate(plan(network, chosen, prefer if first in prefer else ()), name)


def shift_library(classes: int, scales: tuple[float, ...], target: str, name: str = "net"):
    """A network whose scores take shifts; the scales of its output norm repeat."""
    torch.manual_seed(classes)
    hidden = (bnn.BinaryLinear(40, 64), bnn.ShiftBatchNorm(64), bnn.Sign(num_features=64))
    output = (bnn.BinaryLinear(64, classes), bnn.ShiftOutputNorm(classes, bound=64))
    model = bnn.Sequential(bnn.Input((40,)), *hidden, *output)
    with torch.no_grad():
        output[1].weight.copy_(torch.tensor((scales * classes)[:classes]))
        output[1].bias.normal_()
    return c.generate(plan(lower(model), get_target(target)), name)


SCALES = ((1.0, -0.25, 3.0), (1.0, 0.0, -8.0, 0.5), (-2.0,), (0.0,))


def sources(library, folder: Path) -> Path:
    api.write(library, folder)
    return folder / "src" / "net.c"


def in_one(libraries: Sequence[Library], folder: Path) -> Path:
    """A file with the code of all of them, which have names of their own."""
    for library in libraries:
        api.write(library, folder, force=True)
    source = folder / source_path("all")
    source.write_text("".join(f'#include "{library.name}.c"\n' for library in libraries))
    return source


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compiles_clean_as_c99_and_cpp17(compiler: str, tmp_path: Path) -> None:
    libraries = [library_of(seed, "host", f"n{seed}") for seed in range(2000, 2012)]
    for number, scales in enumerate(SCALES):
        libraries.append(shift_library(10, scales, "host", f"n{number}"))
    check_compiles_clean(in_one(libraries, tmp_path), compiler)


def check_compiles_clean(source: Path, compiler: str) -> None:
    # -Wmissing-prototypes is for C alone: C++ cannot do without prototypes.
    cpp = [flag for flag in toolchain.WARNINGS if flag not in ("-std=c99", "-Wmissing-prototypes")]
    for flags in (toolchain.WARNINGS, ("-x", "c++", "-std=c++17", *cpp)):
        for level in ("-O0", "-O2"):
            built = ("-o", str(source.with_suffix(".o")))
            command = [compiler, *flags, level, "-c", str(source), *built]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr


def undefined(source: Path, target: str, *flags: str) -> str:
    """What ``nm -u`` says of ``source`` compiled for ``target``."""
    built = source.with_suffix(".o")
    cross = get_target(target).toolchain
    command = [cross.gcc, *cross.gcc_flags, "-std=c99", *cross.dialect, *flags]
    subprocess.run([*command, "-c", str(source), "-o", str(built)], check=True)
    listed = [cross.gcc.removesuffix("gcc") + "nm", "-u", str(built)]
    listing = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    # Where variables begin as zeros, avr-gcc asks start-up code for that by name.
    return listing.replace("         U __do_clear_bss\n", "") if target == "avr" else listing


@pytest.mark.parametrize("target", CROSS_TARGETS)
@pytest.mark.parametrize("level", ["-Os", "-O2", "-O3"])
def test_needs_nothing_from_outside(level: str, target: str, tmp_path: Path) -> None:
    libraries = [library_of(seed, target, f"n{seed}") for seed in range(2000, 2030)]
    assert undefined(in_one(libraries, tmp_path), target, level, "-ffreestanding") == ""


BUILDS = [("auto", "-Os"), ("auto", "-O2"), ("auto", "-O3"), ("bit-planes", "-O2")]


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4", "cortex-m7"])
@pytest.mark.parametrize(("first_layer", "level"), BUILDS)
def test_examples_need_nothing_even_where_there_is_a_libc(
    level: str, first_layer: str, target: str, example_model: Path, tmp_path: Path
) -> None:
    library = api.generate(example_model, target=target, name="net", first_layer=first_layer)
    source = sources(library, tmp_path / "lib")
    assert undefined(source, target, level) == ""


@pytest.mark.parametrize("target_name", [*CROSS_TARGETS, "esp8266"])
@pytest.mark.parametrize(("first_layer", "level"), BUILDS)
def test_plan_equals_linked_sections(
    level: str, first_layer: str, target_name: str, example_model: Path, tmp_path: Path
) -> None:
    if target_name == "avr" and first_layer == "bit-planes":
        with pytest.raises(
            EdgebnnError, match="bit_planes takes no layer of this network on target"
        ):
            api.generate(example_model, target="avr", first_layer=first_layer)
        return
    library = api.generate(example_model, target=target_name, name="net", first_layer=first_layer)
    target = get_target(target_name)
    machine = max((one.machine for one in target.emulators), key=lambda one: one.ram.size)
    firmware = build.build_firmware(library, target, tmp_path, machine=machine, optimize=level)
    linked = elf.footprint(firmware.path)
    if target_name == "avr" and level == "-O3":  # which turns a small table into code
        assert linked.constant_bytes + 64 >= library.constant_bytes >= linked.constant_bytes
    else:
        assert linked.constant_bytes == library.constant_bytes
    assert linked.arena_bytes == library.arena_bytes


@pytest.mark.parametrize("level", ["-Os", "-O2"])
@pytest.mark.parametrize("classes", [9, 12])
@pytest.mark.parametrize("scales", SCALES)
def test_plan_is_the_linked_sections_with_shifts(
    scales: tuple[float, ...], classes: int, level: str, tmp_path: Path
) -> None:
    library = shift_library(classes, scales, "cortex-m4")
    firmware = build.build_firmware(library, get_target("cortex-m4"), tmp_path, optimize=level)
    assert elf.footprint(firmware.path).constant_bytes == library.constant_bytes
    assert undefined(sources(library, tmp_path / "lib"), "cortex-m4", level) == ""


@pytest.mark.parametrize("seed", range(2000, 2020))
def test_plan_bounds_linked_sections(seed: int, tmp_path: Path) -> None:
    """Never more than planned; a compiler may turn a table of a few entries into code."""
    library = library_of(seed, "cortex-m4")
    firmware = build.build_firmware(library, get_target("cortex-m4"), tmp_path)
    linked = elf.footprint(firmware.path)
    assert linked.constant_bytes <= library.constant_bytes
    assert linked.arena_bytes == library.arena_bytes


@pytest.mark.parametrize("seed", range(2000, 2008))
def test_an_esp32_has_the_c_of_an_esp8266(seed: int, tmp_path: Path) -> None:
    """And gcc makes assembly of it for the windowed ABI, which no assembler at hand knows."""
    library, other = library_of(seed, "esp32"), library_of(seed, "esp8266")
    differing = [
        ours
        for path in other.files
        for ours, its in zip(
            library.files[path].splitlines(), other.files[path].splitlines(), strict=True
        )
        if ours != its
    ]
    assert len(differing) == 3
    assert differing[0].startswith("#define NET_INTERFACE ")
    assert differing[1].startswith(" * target    esp32; ")
    assert differing[2].startswith("#if NET_INTERFACE != ")
    source = sources(library, tmp_path)
    compiler = toolchain.find_compiler(get_target("esp8266"))
    windowed = ("-mabi=windowed", *get_target("esp32").toolchain.gcc_flags)
    assembly = source.with_suffix(".s")
    for level in ("-Os", "-O2"):
        flags = (*windowed, level, *toolchain.FREESTANDING, *toolchain.WARNINGS)
        arguments = [*flags, "-S", str(source), "-o", str(assembly)]
        toolchain.run_compiler(compiler, arguments, doing="compiling")
        text = assembly.read_text()
        assert "\tentry\tsp, " in text
        called = set(re.findall(r"\tcall\d+\t(\w+)", text))
        assert called <= set(re.findall(r"^(\w+):$", text, re.MULTILINE))


@pytest.mark.parametrize("level", ["-Os", "-O2"])
def test_an_avr_has_its_constants_in_flash_alone(level: str, tmp_path: Path) -> None:
    """Nothing but the arena is in RAM: an object's other sections are code and tables."""
    target = get_target("avr")
    machine = target.emulators[-1].machine
    for seed in range(2000, 2020):
        library = library_of(seed, "avr")
        folder = tmp_path / str(seed)
        firmware = build.build_firmware(library, target, folder, machine=machine, optimize=level)
        with firmware.model_object.open("rb") as file:
            sections = list(ELFFile(file).iter_sections())
        sizes = {s.name: s["sh_size"] for s in sections if s["sh_flags"] & 2 and s["sh_size"]}
        ram = {name for name in sizes if not name.startswith((".text", ".progmem"))}
        assert ram <= {f".bss.{library.name}_arena"}
        linked = elf.footprint(firmware.path)
        assert linked.constant_bytes <= library.constant_bytes
        assert linked.arena_bytes == library.arena_bytes


def test_only_the_promised_names_are_public(tmp_path: Path) -> None:
    library = library_of(2001, "cortex-m4")
    firmware = build.build_firmware(library, get_target("cortex-m4"), tmp_path)
    with firmware.model_object.open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".symtab").iter_symbols()
        public = {s.name for s in symbols if s["st_info"]["bind"] == "STB_GLOBAL"}
    assert public == {"net_predict", "net_scores", "net_best"}


def test_source_refuses_the_header_of_another_run(tmp_path: Path) -> None:
    header, source = header_path("net"), source_path("net")
    ours, other = library_of(2001, "cortex-m4"), library_of(2001, "cortex-m0")
    mixed = replace(ours, files={header: other.files[header], source: ours.files[source]})
    with pytest.raises(EdgebnnError, match="copy both again"):
        build.build_host(mixed, tmp_path)


def test_same_model_same_bytes(example_model: Path, tmp_path: Path) -> None:
    """In two processes, folders and hash seeds; nothing in the files tells them apart."""
    written = []
    for seed, folder in (("1", tmp_path / "here"), ("2", tmp_path / "there")):
        folder.mkdir()
        command = ("generate", str(example_model), "-t", "cortex-m4", "--name", "net", "-o", "out")
        subprocess.run(
            [sys.executable, "-m", "edgebnn", *command],
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
        )
        files = (path for path in sorted((folder / "out").rglob("*")) if path.is_file())
        written.append({str(path.relative_to(folder)): path.read_text() for path in files})
    assert {"out/src/net.c", "out/library.json"} <= set(written[0])
    assert written[0] == written[1]
    for text in written[0].values():
        assert str(example_model.parent) not in text
        assert str(tmp_path) not in text


BLOCKED = """
import sys
for name in ("torch", "unicorn", "ziglang", "serial", "cobs"):
    sys.modules[name] = None
import edgebnn, edgebnn.ir, edgebnn.reference, edgebnn.plan, edgebnn.cost, edgebnn.kernels
import edgebnn.filters, edgebnn.data, edgebnn.data.transforms, edgebnn.files
import edgebnn.packages.platformio, edgebnn.importers
import edgebnn.codegen.c, edgebnn.codegen.cuda, edgebnn.device.host, edgebnn.device.emulator
import edgebnn.device.wire, edgebnn.device.serial, edgebnn.device.ports
import edgebnn.bench.measured, edgebnn.bench.results
"""


def test_nothing_below_lower_imports_torch() -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], check=True)


def test_command_line_imports_torch_when_a_command_needs_it() -> None:
    check = "import sys, edgebnn.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)


def imports_of(path: Path) -> set[str]:
    """Dotted names of all modules, and of what is taken from them, in ``path``."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("room", "closed"),
    [
        ("data", ("nn", "train", "study", "checkpoint", "lower", "plan", "targets", "cli")),
        ("train", ("lower", "plan", "targets", "codegen", "study", "report", "cli")),
        ("codegen", ("checkpoint", "lower", "nn", "packages", "device", "api", "cli")),
        ("packages", ("checkpoint", "lower", "nn", "device", "api", "cli")),
        ("study", ("codegen.c", "device", "measure", "cli")),
        ("bench", ("nn", "train", "checkpoint", "lower", "measure", "report", "packages", "cli")),
        ("targets", ("device", "kernels", "plan", "codegen", "lower", "nn", "cli")),
        ("device", ("nn", "train", "study", "checkpoint", "lower", "measure", "report", "cli")),
    ],
)
def test_imports_run_one_way(room: str, closed: tuple[str, ...]) -> None:
    files = list((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        for name in imports_of(path):
            for other in closed:
                assert not f"{name}.".startswith(f"edgebnn.{other}."), f"{path}: {name}"


def test_no_module_is_longer_than_one_reads_at_once() -> None:
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text().splitlines())) > 450
    }
    assert not long, "split them by what a reader looks for"


def test_templates_only_print() -> None:
    """They set and divide nothing, and filter nothing but a length: a view has what they print."""
    language = jinja2.Environment()
    nodes = jinja2.nodes
    for path in sorted(resource_dir("templates").rglob("*.j2")):
        tree = language.parse(path.read_text())
        computing = (nodes.Assign, nodes.AssignBlock, nodes.Div, nodes.FloorDiv, nodes.Pow)
        assert not list(tree.find_all(computing)), path
        assert {each.name for each in tree.find_all(nodes.Filter)} <= {"length"}, path


def test_nothing_below_the_command_line_prints() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "cli":
            text = path.read_text()
            assert not re.search(r"(?<![\w.])print\(", text), path
            assert "sys.stdout" not in text, path


def test_a_wrong_weight_is_found(example_model: Path) -> None:
    """The comparisons can fail: one flipped weight changes some output."""
    import numpy as np

    from edgebnn import reference
    from edgebnn.checkpoint import load
    from edgebnn.ir import Network

    network = lower(load(example_model))
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (64, network.input_bytes)).astype(np.uint8)
    first = network.ops[-1]
    weights = first.weights.copy()
    weights.reshape(-1)[0] ^= True
    broken = Network(
        network.input,
        (*network.ops[:-1], type(first)(first.name, first.source, weights, first.head)),
    )
    assert (reference.run(broken, x).scores != reference.run(network, x).scores).any()
