"""``edgebnn bench cuda`` without a GPU: what it measures, on the model of CUDA, and its tables."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from stand_in_gpu import ModelGpu
from typer.testing import CliRunner

from edgebnn.cli import app
from edgebnn.cuda.layers import LEVELS
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.study import gpu, gpu_products, gpu_times, plots
from edgebnn.train.networks import Style, build

MACHINE = gpu_times.Machine("A GPU", (9, 0), 132, 1.9e9, 1.5e9, 4e12, "2.11", "for CUDA 13.0")


class Once:
    """Runs everything once; the n-th measurement takes n milliseconds."""

    def __init__(self) -> None:
        self.count = 0

    def graph(self, run, inputs) -> float:
        run(*inputs[-1])
        self.count += 1
        return float(self.count)

    eager = graph


def bench(*levels: str, runs: bool = True) -> gpu_products.Bench:
    stand_ins = tuple(ModelGpu(LEVELS.index(level), runs=runs) for level in levels)
    return gpu_products.Bench(stand_ins, torch.device("cpu"), Once(), MACHINE)


def test_products_are_compared() -> None:
    rows = list(gpu_products.products(bench("popc", "bytes", "wgmma"), (256,)))
    assert [(row.how, row.output, row.note) for row in rows] == [
        ("edgebnn wgmma", "int32", ""),
        ("edgebnn wgmma", "bits", ""),
        ("edgebnn bytes", "int32", ""),
        ("edgebnn bytes", "bits", ""),
        ("edgebnn popc", "int32", ""),
        ("edgebnn popc", "bits", ""),
        ("naive", "int32", ""),
        ("torch int8", "int32", ""),
        ("torch fp16", "fp16", ""),
        ("torch fp32", "fp32", ""),
    ]
    assert {row.operations for row in rows} == {2.0 * 256**3}


def test_wrong_products_are_noted() -> None:
    rows = list(gpu_products.products(bench("mma", runs=False), (256,)))
    assert [row.note for row in rows if row.how in ("edgebnn mma", "naive")] == [
        "DIFFERS from int8"
    ] * 3


def test_convolutions_and_networks() -> None:
    torch.manual_seed(0)
    module = build("8C3-MP2-20FC", (1, 6, 6), 10).eval()
    subject = gpu.Subject("small", module, lower(module), (1, 6, 6))
    here = bench("popc", "mma", runs=False)
    rows = list(gpu_products.convolutions(here, ((4, 64),), 128))
    assert [row.how for row in rows] == ["edgebnn mma", "edgebnn popc", "torch fp16", "torch fp32"]
    assert rows[0].operations == 2 * 128 * 4 * 4 * 64 * 9 * 64
    rows += gpu.networks(here, [subject], (1, 16), compiled=False)
    assert len(rows) == 4 + 2 * 6
    small = [row for row in rows if row.what == "small, batch 16"]
    assert {row.how for row in small} >= {"edgebnn, graph", "torch fp16, eager"}
    macs = 8 * 9 * 36 + 20 * 8 * 9 + 10 * 20
    assert {row.operations for row in small} == {2.0 * macs * 16}
    text = gpu_times.tables(rows)
    assert text.count("| --- | --- | --- |") == 2
    assert "| small, batch 16 | edgebnn, graph | int32 | 11 ms |" in text
    record = gpu_times.record(MACHINE, rows)
    assert len(record["rows"]) == len(rows)
    assert all(gpu_times.line(row).startswith(row.what) for row in rows)


def test_networks_at_once_and_layer_by_layer() -> None:
    torch.manual_seed(0)
    module = build("20FC", (1, 6, 6), 10).eval()
    subject = gpu.Subject("small", module, lower(module), (1, 6, 6))
    rows = gpu.networks(bench("popc", runs=False), [subject], (16, 17), compiled=False)
    ours = [(row.what, row.how) for row in rows if row.how.startswith("edgebnn")]
    assert ours == [
        ("small, batch 16", "edgebnn, graph"),
        ("small, batch 16", "edgebnn, eager"),
        ("small, batch 16", "edgebnn chain, graph"),
        ("small, batch 16", "edgebnn chain, eager"),
        ("small, batch 17", "edgebnn, graph"),
        ("small, batch 17", "edgebnn, eager"),
    ]


def test_limits() -> None:
    cycles = 132 * 1.5e9
    assert MACHINE.limit({"wgmma": 65536 * cycles}, 0) == pytest.approx(1000)
    assert MACHINE.limit({"wgmma": 65536 * cycles, "mma": 35389 * cycles}, 0) == pytest.approx(2000)
    assert MACHINE.limit({"popc": 1.0}, 4e12) == pytest.approx(1000)
    assert MACHINE.limit({"tf32": 1.0}, 0) is None
    row = gpu_times.Row("product", "1^3", "x", "y", 2.0, 4e9, 1.0)
    assert row.of_limit == 0.5
    assert row.tops == pytest.approx(2.0)


def test_operations_of_planes() -> None:
    torch.manual_seed(0)
    network = lower(build("16FC", (1, 2, 2), 3).eval())
    plain, work = gpu._operations(network, "wgmma")
    assert plain == 2 * (4 * 16 + 16 * 3)
    assert work == {"wgmma": 2 * (8 * 4 * 16 + 16 * 3)}
    assert gpu._operations(network, "fp16")[1] == {"fp16": plain}
    style = Style(levels=3, head="integer")
    plain, work = gpu._operations(lower(build("4C3V-5C1", (1, 6, 6), 3, style).eval()), "mma")
    first, second, head = 2 * 16 * 9 * 4, 2 * 16 * 4 * 5, 2 * 16 * 5 * 3
    assert plain == first + second + head
    assert work == {"dot4": first, "mma": 2 * second}


def test_plot(tmp_path: Path) -> None:
    rows = [
        gpu_times.Row("product", f"{n}^3", how, output, n / 1000, 2.0 * n**3, None)
        for n in gpu.SIZES
        for how, output in (("edgebnn wgmma", "bits"), ("naive", "int32"), ("torch fp16", "fp16"))
    ]
    rows += [
        gpu_times.Row("network", f"MNIST, batch {n}", f"{how}, graph", "int32", 1.0, 1e9, None)
        for n in gpu.BATCHES
        for how in ("edgebnn", "torch fp16")
    ]
    panels = gpu_times.panels(rows)
    assert [panel.title for panel in panels] == ["n x n by n x n", "MNIST"]
    assert panels[1].lines[0].points == tuple((n, 1000 / n) for n in gpu.BATCHES)
    plots.line_plot(tmp_path / "gpu.png", panels, title="A GPU", note=str(MACHINE))
    assert (tmp_path / "gpu.png").stat().st_size > 10_000


def test_thresholds_are_of_channels_in_their_order() -> None:
    packed = torch.from_numpy(np.random.default_rng(0).integers(0, 256, 256 * 32).astype(np.uint8))
    bits = gpu_products._unpacked(packed, 256)
    row, channel = 77, 200
    byte = (channel // 128 * 128 + row) * 16 + channel % 128 // 8
    assert bool(bits[row, channel]) == bool(packed[byte] >> channel % 8 & 1)


def test_command_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for arguments in (["bench", "cuda"], ["bench", "cuda", "--part", "convolution", "--json"]):
        found = CliRunner().invoke(app, arguments)
        assert isinstance(found.exception, EdgebnnError)
        assert "this torch has no CUDA" in str(found.exception)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(EdgebnnError, match="torch finds no GPU"):
        gpu.case([], [], quick=True)
    found = CliRunner().invoke(app, ["bench", "cuda", "--part", "all"])
    assert "unknown part 'all'; pick one of: product" in str(found.exception)


def test_what_was_measured_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = gpu_times.Row("network", "a network, batch 1", "edgebnn, graph", "int32", 1.0, 1.0, None)

    def run(count: int):
        yield from [row] * count
        raise KeyboardInterrupt

    monkeypatch.setattr(gpu, "case", lambda *_, **__: None)
    monkeypatch.setattr(gpu, "prepare", lambda _: bench("popc"))
    for count in (2, 0):  # the second finds the first's, and has none
        monkeypatch.setattr(gpu, "run", lambda *_, count=count, **__: run(count))
        stopped = CliRunner().invoke(app, ["bench", "cuda", "-o", str(tmp_path)])
        assert stopped.exit_code
        assert len(json.loads((tmp_path / "gpu.json").read_text())["rows"]) == 2
        assert (tmp_path / "gpu.md").read_text().count("a network, batch 1") == 2
