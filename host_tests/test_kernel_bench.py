"""``edgebnn bench kernels``: what it counts, against what is right and what is known otherwise."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from edgebnn.bench import counting, measured, programs, results, shapes, twins
from edgebnn.cli import app
from edgebnn.codegen import c
from edgebnn.device import build, unicorn
from edgebnn.errors import EdgebnnError, NoTwin
from edgebnn.ir import (
    INPUT,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Ints,
    MaxPool,
    Scores,
    Threshold,
    tensors,
)
from edgebnn.kernels import KERNELS
from edgebnn.lower import lower
from edgebnn.plan import plan
from edgebnn.targets import get_target
from edgebnn.targets.base import Qemu
from edgebnn.train import networks

SMALL = (
    "dense-40-8",
    "dense-12x8-5",
    "conv-5x4x3-6",
    "conv-6x6x5x8-4-pool",
    "conv-4x6x32-10-pool",
    "depthwise-5x5x6",
    "depthwise-4x4x8x3",
)
CPUS = ("cortex-m0", "cortex-m3", "cortex-m4", "rv32imc", "rv32ec", "avr")


def run(*arguments: object) -> tuple[str, str]:
    """What a command prints, and the message of its error, "" if there is none."""
    found = CliRunner().invoke(app, ["bench", "kernels", *map(str, arguments)])
    if found.exception is not None and not isinstance(found.exception, EdgebnnError | SystemExit):
        raise found.exception
    return found.stdout, str(found.exception or "")


# --- twins ----------------------------------------------------------------------------------------


def plain(layers, image, *, narrow: bool):
    """The same by loops, in Python's integers."""
    for layer in layers:
        height, width, outputs = layer.out_shape
        result = np.zeros(layer.out_shape, np.int64)
        for y, x, o in np.ndindex(height, width, outputs):
            total, most = int(layer.bias[o]) if layer.kind != "pool" else 0, -(2**31)
            for ky, kx in np.ndindex(*layer.kernel):
                iy = y * layer.stride[0] + ky - layer.padding[0]
                ix = x * layer.stride[1] + kx - layer.padding[2]
                if not (0 <= iy < layer.shape[0] and 0 <= ix < layer.shape[1]):
                    continue
                pixel = image[iy, ix]
                if layer.kind == "pool":
                    most = max(most, int(pixel[o]))
                elif layer.kind == "depthwise":
                    total += int(pixel[o]) * int(layer.weights[ky, kx, o])
                else:
                    total += int((pixel * layer.weights[o, ky, kx]).sum())
            if layer.kind == "pool":
                total = most
            elif narrow and not layer.scores:
                total = min(max(total >> layer.shift, -128), 127)
            result[y, x, o] = total
        image = result
    return image


@pytest.mark.parametrize("name", SMALL)
def test_numpy_is_what_loops_give(name: str) -> None:
    shape = shapes.shape_of(name)
    layers = twins.twins(shape.ops(INPUT, np.random.default_rng(1)), shape.source, 2)
    image = np.random.default_rng(3).integers(-128, 128, layers[0].shape)
    assert np.array_equal(twins.values(layers, image), plain(layers, image, narrow=True))
    assert np.array_equal(twins.float_values(layers, image), plain(layers, image, narrow=False))
    values = twins.values(layers, image)
    assert len(np.unique(values)) > 3  # shifted neither too far nor too little
    assert (np.abs(values) < 127).mean() > 0.3


def test_integer_heads_have_twins() -> None:
    """The pool and the dense layer that read sums are those of int8."""
    style = networks.Style(levels=3, head="integer")
    network = lower(networks.build("3C3V-4C3-MP2", (1, 6, 6), 5, style).eval())
    layers = twins.twins(network.ops, network.input, 0)
    assert [layer.kind for layer in layers] == ["conv", "conv", "pool", "dense"]
    assert [layer.shape for layer in layers] == [(6, 6, 1), (4, 4, 3), (4, 4, 4), (2, 2, 4)]
    image = np.random.default_rng(3).integers(0, 128, layers[0].shape)
    assert np.array_equal(twins.values(layers, image), plain(layers, image, narrow=True))


@pytest.mark.parametrize("target_name", [*CPUS, "cortex-m55", "rv32imc-zbb"])
def test_twins_equal_numpy(target_name: str, tmp_path: Path) -> None:
    """:func:`counting.count` compares every byte."""
    target = get_target(target_name)
    for number, name in enumerate(SMALL):
        shape = shapes.shape_of(name)
        layers = twins.twins(shape.ops(INPUT, np.random.default_rng(1)), shape.source, 2)
        for kind, make in (("int8", programs.int8_program), ("float", programs.float_program)):
            program = make(layers, target.name, target.cpu, number)
            spent = counting.count(program, target, tmp_path / name / kind, name)
            assert spent.mean > shape.products / 4
            assert spent.unit == ("cycles" if target_name == "avr" else "instructions")


def test_a_part_of_a_twin_has_its_share(tmp_path: Path) -> None:
    """Half of the outputs take about half as long, and are the first ones."""
    target = get_target("cortex-m4")
    for name in ("dense-64-32", "conv-6x6x16-16-pool", "depthwise-6x6x32"):
        shape = shapes.shape_of(name)
        whole = twins.twins(shape.ops(INPUT, np.random.default_rng(1)), shape.source, 2)
        half = tuple(layer.first_outputs(layer.out_shape[2] // 2) for layer in whole)
        image = np.random.default_rng(0).integers(-128, 128, whole[0].shape)
        own = image[..., : half[0].shape[2]]
        count = half[-1].out_shape[2]
        assert np.array_equal(twins.values(half, own), twins.values(whole, image)[..., :count])
        spent = [
            counting.count(
                programs.int8_program(layers, target.name, target.cpu, 0), target, tmp_path, name
            ).mean
            for layers in (whole, half)
        ]
        assert 0.45 < spent[1] / spent[0] < 0.65


def test_float_that_is_not_exact_is_refused() -> None:
    shape = shapes.shape_of("dense-40-8")
    (layer,) = twins.twins(shape.ops(INPUT, np.random.default_rng(1)), shape.source, 2)
    image = np.full(layer.shape, 2**20)
    with pytest.raises(EdgebnnError, match="too large to be exact in float"):
        twins.float_values((layer,), image)


def test_a_wrong_result_is_an_error(tmp_path: Path) -> None:
    target = get_target("cortex-m4")
    shape = shapes.shape_of("conv-5x4x3-6")
    layers = twins.twins(shape.ops(INPUT, np.random.default_rng(1)), shape.source, 2)
    program = programs.int8_program(layers, target.name, target.cpu, 0)
    result = program.result.copy()
    result[0, -1] ^= 1
    with pytest.raises(EdgebnnError, match="x on cortex-m4: 1 of 120 bytes of the result differ"):
        counting.count(replace(program, result=result), target, tmp_path, "x")


# --- kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dense-64-40", "conv-6x5x33-9"])
def test_counts_are_those_of_the_layer_in_a_model(name: str, tmp_path: Path) -> None:
    """Unicorn counts layers of a model by themselves; ours have the arguments of the call, too."""
    target = get_target("cortex-m4")
    shape = shapes.shape_of(name)
    subject = shape.subject(shape.statistics[0], 5, 1)
    for way in measured.ways(subject, target):
        scheduled = plan(subject.network, target, (way,))
        program = programs.kernel_program(scheduled, subject.names, subject.source, subject.result)
        (spent,) = counting.count(program, target, tmp_path / way, way).counts
        model = build.build_firmware(c.generate(scheduled, "net"), target, tmp_path / f"{way}-net")
        rows = (subject.source > 0).astype(np.uint8).reshape(1, -1)
        found = unicorn.run(model, rows, counted=1)
        own = dict(zip(model.library.layers, found.layer_instructions, strict=True))["net_layer"]
        assert own < spent <= own + 8
        library = replace(program.library, layers=("bench_run",))
        image = build.build_firmware(library, target, tmp_path / f"{way}-run")
        record = np.zeros((1, library.input_bytes), np.uint8)
        record[0, 0] = 1
        record[0, programs.HEAD_BYTES :][: program.source.shape[1]] = program.source[0]
        assert unicorn.run(image, record, counted=1).layer_instructions == (spent,)


def test_emulators_count_the_same(tmp_path: Path) -> None:
    """QEMU, which counts whole calls, and Unicorn."""
    for name in ("cortex-m4", "cortex-m33", "rv32imc", "rv32ec"):
        target = get_target(name)
        assert isinstance(target.emulators[1], Qemu)
        shape = shapes.shape_of("conv-5x4x3-6")
        layers = twins.twins(shape.ops(INPUT, np.random.default_rng(1)), shape.source, 2)
        program = programs.int8_program(layers, target.name, target.cpu, 0)
        by = [
            counting.count(program, target, tmp_path / f"{name}{slow}", name, slow=slow)
            for slow in (False, True)
        ]
        assert [one.emulator.split()[0] for one in by] == ["Unicorn", "QEMU"]
        assert by[0].counts == by[1].counts


@pytest.mark.parametrize("target_name", CPUS)
def test_every_way_is_there(target_name: str) -> None:
    """Of every kernel for layers with weights that the target has, over the shapes of the table."""
    target = get_target(target_name)
    found: set[str] = set()
    for name in shapes.SHAPES:
        shape = shapes.shape_of(name)
        subject = shape.subject(shape.statistics[0], 0, 1)
        ways = measured.ways(subject, target)
        assert measured.chosen_way(subject, target) in ways
        for way in ways:
            steps = plan(subject.network, target, (way,)).steps
            assert way == next(s.kernel.way for s in steps if s.op.name == "layer")
        found |= set(ways)
    weighted = {
        kernel.way
        for kernel in KERNELS
        if any(run[0] in (Dense, Conv, DepthwiseConv) for run in kernel.runs)
    }
    if target_name == "avr":
        assert found >= {"rows", "subset_sums", "bit_sliced"}
    else:  # lanes are a host's; no shape has levels, or the sums that an integer head reads
        assert weighted - found <= {"direct", "lanes", "level_rows", "level_taps", "adds"}


@pytest.mark.parametrize("name", [*SMALL, *shapes.SHAPES])
def test_subjects_are_what_their_names_say(name: str) -> None:
    shape = shapes.shape_of(name)
    for statistics in shape.statistics:
        subject = shape.subject(statistics, 7, 2)
        ops = {op.name: op for op in subject.network.ops}
        layer = ops["layer"]
        assert isinstance(layer, Dense | Conv | DepthwiseConv)
        assert isinstance(layer.head, Threshold)
        kinds = {"dense": Dense, "conv": Conv, "depthwise": DepthwiseConv}
        assert type(layer) is kinds[name.split("-")[0]]
        assert [type(ops[one]) for one in subject.names[1:]] == [MaxPool] * name.endswith("pool")
        known = tensors(subject.network)
        assert isinstance(known[layer.source], Bits if layer.source != INPUT else Ints)
        size = known[subject.names[-1]]
        assert subject.result.shape == (2, size.height, size.width, size.channels)
        assert set(np.unique(subject.result)) <= {-1, 1}
        again = shape.subject(statistics, 7, 2)
        assert np.array_equal(again.source, subject.source)
        other = shape.subject(statistics, 8, 2)
        assert not np.array_equal(other.source, subject.source)


def test_statistics_are_met() -> None:
    shape = shapes.shape_of("conv-32x32x64-1")
    for statistics in shape.statistics:
        bits = shape.subject(statistics, 0, 1).source[0] > 0
        changes = (bits[1:] != bits[:-1]).mean()
        wanted = statistics.change or 2 * statistics.density * (1 - statistics.density)
        assert bits.mean() == pytest.approx(statistics.density, abs=0.02)
        assert changes == pytest.approx(wanted, abs=0.02)


# --- the command ----------------------------------------------------------------------------------


def test_whole_command(tmp_path: Path) -> None:
    small = [part for name in ("dense-40-24", "conv-5x4x3-6") for part in ("--shape", name)]
    files = ("--json", tmp_path / "own.json", "--plot", tmp_path / "own.png")
    options = ("-t", "cortex-m4", "-t", "avr", *small, "-o", tmp_path / "out", *files)
    text, message = run(*options, "--seed", "3")
    assert message == ""
    assert "seed 3; the mean of 3 random inputs" in text
    assert "cortex-m4: instructions: exact, by QEMU" in text
    assert "arm-none-eabi-gcc" in text
    assert "avr: cycles: simulated, by simavr" in text
    assert (
        "| cortex-m4 | inputs | way | instructions | per 32 products | x float | x int8 |" in text
    )
    assert "| avr | inputs | way | cycles |" in text
    assert "| dense-40-24 | independent, .5 set | **columns** |" in text
    assert "| conv-5x4x3-6 | .15 differ from the row above | **" in text
    for name in ("out/kernels.png", "own.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (tmp_path / "out" / "kernels.md").read_text() in text
    record = json.loads((tmp_path / "own.json").read_text())
    assert record == json.loads((tmp_path / "out" / "kernels.json").read_text())
    assert set(record) == {"edgebnn", "seed", "inputs", "tools", "rows"}
    assert {tool["target"] for tool in record["tools"]} == {"cortex-m4", "avr"}
    for tool in record["tools"]:
        assert set(tool) == {"target", "compiler", "emulator", "unit"}
    ways = [row["way"] for row in record["rows"] if row["target"] == "cortex-m4"]
    assert ways[:3] == ["float", "int8", "columns"]
    for row in record["rows"]:
        assert set(row) == {
            *("target", "shape", "statistics", "way", "chosen", "products", "unit", "counts"),
            *("count", "part", "per_32", "ratio_float", "ratio_int8", "note"),
        }
        twin = row["way"] in ("float", "int8")
        assert len(row["counts"]) == (1 if twin else 3)
        mean = sum(row["counts"]) / len(row["counts"]) / row["part"]
        assert row["count"] == pytest.approx(mean)
        assert row["per_32"] == pytest.approx(32 * row["count"] / row["products"])
        (int8,) = (
            other["count"]
            for other in record["rows"]
            if (other["target"], other["shape"]) == (row["target"], row["shape"])
            if other["way"] == "int8"
        )
        assert row["ratio_int8"] == pytest.approx(int8 / row["count"])
    assert sum(row["chosen"] for row in record["rows"]) == 2 * (1 + 3)


def test_json_alone(tmp_path: Path) -> None:
    options = ("-t", "cortex-m0", "--shape", "dense-40-24", "--kernel", "rows", "--json", "-")
    text, message = run(*options, "-o", tmp_path)
    assert message == ""
    assert [row["way"] for row in json.loads(text)["rows"]] == ["float", "int8", "rows"]


def test_no_room_is_said() -> None:
    row = measured.Row("avr", "s", "-", "", "int8", False, 10, "", (), None, note="no room")
    text = results.tables([row, replace(row, way="rows", unit="cycles", counts=(7,), count=7.0)])
    assert "| s | - | int8 | no room | - | - | - |" in text
    assert "| s | - | rows | 7 | 22.4 | - | - |" in text
    assert results.record([row], [], 0)["rows"][0]["note"] == "no room"
    assert results.groups([row]) == []


def test_a_compiler_without_float_is_said(tmp_path: Path) -> None:
    """The ESP8266 has it in ROM. What an AVR has no room for is said as well."""
    small = measured.measure([get_target("esp8266")], [shapes.shape_of("dense-40-24")], tmp_path)
    rows = [row for row, _tools in small]
    assert [row.note for row in rows] == ["no float", "", "", "", ""]
    assert [row.count is None for row in rows] == [True, False, False, False, False]
    for size, own in (("40x40", ""), ("64x64", "no room")):
        large = shapes.shape_of(f"conv-{size}x9-2")
        found = measured.measure([get_target("avr")], [large], tmp_path / size)
        notes = {row.way: row.note for row, _tools in found}
        assert notes == {"float": "no room", "int8": "no room", "rows": own}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-t", "host"), "target 'host' has no emulator"),
        (("-t", "z80"), "unknown target 'z80'; pick one of: "),
        (("--shape", "dense-5"), "unknown shape 'dense-5'; write it like one of: dense-1024-128"),
        (("--shape", "dense-4-4-pool"), "unknown shape 'dense-4-4-pool'"),
        (("--shape", "conv-4x4-4"), "unknown shape 'conv-4x4-4'"),
        (("--shape", "dense-9x9-4"), "shape 'dense-9x9-4': integers have 1 to 8 bits"),
        (("--shape", "dense-0-4"), "shape 'dense-0-4': a layer has 1 to 65536 inputs"),
        (("--shape", "conv-1x9x3-4-pool"), "a pool takes two rows and columns"),
        (("--kernel", "magic"), "unknown kernel 'magic'; pick one of: "),
        (("--plot", "no/where.png"), "no is no folder; make it, or name another one"),
        (("--json", "no/where.json"), "no is no folder; make it, or name another one"),
        (
            ("-t", "cortex-m0", "--shape", "dense-8-2", "--kernel", "bit_sliced"),
            "no such layer has a kernel bit_sliced; name others",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _text, said = run(*arguments)
    assert message in said
    assert "\n" not in said
    assert not (tmp_path / "build").exists()


# --- models ---------------------------------------------------------------------------------------


def test_models_have_twins(tmp_path: Path) -> None:
    """Beside what the network takes; nothing where there is no room or no such layer."""
    model = Path(__file__).resolve().parent.parent / "examples" / "models" / "mnist_tiny.pt"
    options = ["bench", "models", str(model), "-t", "cortex-m4", "-t", "avr", "--inputs", "2"]
    found = CliRunner().invoke(app, options)
    assert found.exception is None
    head, _, first, second = found.stdout.splitlines()[:4]
    assert head.endswith("| differ | int8 | x int8 |")
    assert re.search(r"\| cortex-m4 \| .* \| 0/2 \| [\d ]{9} \| [\d.]+ \|$", first)
    assert second.endswith("| 0/2 | no room | - |")
    found = CliRunner().invoke(app, [*options, "--json"])
    chip, avr = json.loads(found.stdout)
    assert avr["int8"] == {"error": "no room"}
    mean = sum(chip["instructions"]) / 2
    assert chip["int8"]["ratio"] == pytest.approx(chip["int8"]["count"] / mean)
    assert chip["int8"]["unit"] == "instructions"


def test_a_model_without_a_twin() -> None:
    network = shapes.shape_of("dense-8-4").subject(shapes.INDEPENDENT, 0, 1).network
    with pytest.raises(NoTwin, match=r"'feed' \(Binarize\) has no twin in int8"):
        twins.twins(network.ops, network.input, 0)


def test_twins_of_whole_networks_equal_numpy(tmp_path: Path) -> None:
    """Strides, unequal paddings, scores, and layers that one after the other go through memory."""
    rng = np.random.default_rng(0)

    def signs(*shape: int):
        return rng.integers(0, 2, shape).astype(bool)

    def head(outputs: int) -> Threshold:
        return Threshold(np.zeros(outputs, np.int32))

    scores = Scores(np.ones(3, np.int32), np.zeros(3, np.int32), 0)
    ops = (
        Conv("a", INPUT, signs(7, 2, 3, 2), (2, 1), (0, 1, 2, 0), 0, head(7)),
        DepthwiseConv("b", "a", signs(3, 3, 7), (1, 2), (1, 1, 1, 1), -1, head(7)),
        Conv("c", "b", signs(8, 1, 1, 7), (1, 1), (0, 0, 0, 0), -1, head(8)),
        MaxPool("d", "c", (2, 1), (1, 1), np.zeros(8, bool)),
        Dense("e", "d", signs(6, 4, 4, 8), head(6)),
        Dense("f", "e", signs(3, 1, 1, 6), scores),
    )
    layers = twins.twins(ops, Ints(9, 7, 2, 8), 1)
    assert [layer.out_shape for layer in layers[:4]] == [(5, 7, 7), (5, 4, 7), (5, 4, 8), (4, 4, 8)]
    image = rng.integers(-128, 128, (9, 7, 2))
    assert np.array_equal(twins.values(layers, image), plain(layers, image, narrow=True))
    for name in CPUS:
        target = get_target(name)
        for seed in (1, 2):
            program = programs.int8_program(layers, name, target.cpu, seed)
            counting.count(program, target, tmp_path / name / str(seed), name)
