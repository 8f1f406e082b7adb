"""edgebnn.cuda without a GPU: what is launched, kernels on the model of CUDA, torch's operators."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import (
    random_inputs,
    random_levels_model,
    random_model,
    random_residual_model,
    randomize,
)
from stand_in_gpu import ModelGpu
from typer.testing import CliRunner

import edgebnn
from edgebnn import cuda, ir, measure, reference
from edgebnn.checkpoint import load
from edgebnn.cli import app
from edgebnn.codegen.cuda import device_source
from edgebnn.cuda import gpu as gpus
from edgebnn.cuda import matmul, runner
from edgebnn.cuda.layers import LEVELS as NAMES
from edgebnn.cuda.memory import image_bytes
from edgebnn.cuda.queue import PREFIX
from edgebnn.cuda.schedule import schedule
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.train.networks import Style, build

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "models"
LEVELS = pytest.mark.parametrize("level", range(len(NAMES)), ids=NAMES)


def on(gpu: ModelGpu, network: ir.Network, *, persistent: bool = True) -> runner._OnGpu:
    """``network`` on a stand-in, in the CPU's memory."""
    return runner._OnGpu(schedule(network), gpu, torch.device("cpu"), persistent=persistent)


def small_network(notation: str = "100FC-64FC") -> ir.Network:
    torch.manual_seed(0)
    return lower(build(notation, (1, 4, 4), 10).eval())


def test_launches_of_few_and_of_many() -> None:
    network = small_network()
    gpu = ModelGpu(NAMES.index("wgmma"), multiprocessors=132, runs=False)
    there = on(gpu, network, persistent=False)
    for batch, names in (
        (1, ("dense1_one", "dense2_one", "dense3_one")),
        (5, ("dense1_planes", "dense1_few", "dense2_few", "dense3_few")),
        (1000, ("dense1_planes", "dense1", "dense2", "dense3")),
    ):
        gpu.launched.clear()
        images = torch.zeros((batch, 4, 4, 1), dtype=torch.uint8)
        scores = there.scores(images, stream=1234)
        assert [each.name for each in gpu.launched] == [PREFIX + name for name in names]
        words = np.array([each.arguments for each in gpu.launched])
        assert (words[:, 5] == batch).all()
        assert {each.stream for each in gpu.launched} == {1234}
        assert words[0, 0] == images.data_ptr()
        assert words[-1, 2] == scores.data_ptr()
        assert (words[1:, 0] == words[:-1, 2]).all()  # each reads what the last one has written
        assert (words[:, 0] != words[:, 2]).all()
        tables = words[-3:, 3:5]
        assert (tables % 256 == there._tables.data_ptr() % 256).all()
        assert tables.min() == there._tables.data_ptr()
        assert tables.max() < there._tables.data_ptr() + there._tables.numel()
        for each in gpu.launched:
            assert each.blocks == each.grid.blocks(batch, 132)


def test_all_layers_at_once() -> None:
    """One launch for small batches, of a GPU that has blocks at once; a barrier for each stream."""
    network = small_network()
    images = torch.zeros((17, 4, 4, 1), dtype=torch.uint8)
    gpu = ModelGpu(2, multiprocessors=132, runs=False)
    there = on(gpu, network)
    barriers = []
    for batch, stream in ((1, 5), (16, 5), (16, 6), (1, 6)):
        there.scores(images[:batch], stream)
        barriers.append(gpu.launched[-1].barrier - there._barriers.data_ptr())
        assert gpu.launched[-1].arguments[0] == images.data_ptr()
        assert gpu.launched[-1].arguments[5] == batch
    assert [each.name for each in gpu.launched] == [f"{PREFIX}all_layers"] * 4
    assert [each.blocks for each in gpu.launched] == [4] * 4  # of 128 columns
    assert all(each.cooperative for each in gpu.launched)
    assert barriers == [0, 0, 32, 32]
    gpu.launched.clear()
    there.scores(images, 5)
    assert not any(each.cooperative for each in gpu.launched)
    there._unused = iter(())  # as many streams and captures as there are barriers
    there.scores(images[:1], 7)
    without = ModelGpu(2, cooperative=False, runs=False)
    on(without, network).scores(images[:1], 5)
    for launched in (gpu.launched[-3:], without.launched):
        assert [each.name for each in launched] == [f"{PREFIX}dense{n}_one" for n in (1, 2, 3)]


def test_tables_are_where_kernels_look_for_them() -> None:
    network = small_network()
    gpu = ModelGpu(1, runs=False)
    there = on(gpu, network)
    there.scores(torch.zeros((70, 4, 4, 1), dtype=torch.uint8), 0)
    for launched, step in zip(gpu.launched[1:], schedule(network).steps, strict=True):
        for address, expected in zip(
            launched.arguments[3:5], (step.layer.weights, step.layer.limits), strict=True
        ):
            begin = address - there._tables.data_ptr()
            found = there._tables[begin : begin + expected.nbytes].numpy().tobytes()
            assert found == expected.tobytes()


@pytest.mark.parametrize("seed", range(20))
def test_no_kernel_writes_where_it_reads(seed: int) -> None:
    """Nor where a later one will, in memory of a batch that is filled up."""
    network = lower((random_residual_model, random_levels_model)[seed % 2](seed))
    gpu = ModelGpu(0, runs=False)
    there, plan, batch = on(gpu, network), schedule(network), 130
    given = network.input
    shape = (batch, given.height, given.width, given.channels)
    there.scores(torch.zeros(shape, dtype=torch.uint8), 0)
    found = {each.name.removeprefix(PREFIX): each.arguments for each in gpu.launched}
    shapes, live = ir.tensors(network), {}
    last = {name: step for step, op in enumerate(network.ops) for name in ir.sources(op)}
    for number, step in enumerate(plan.steps):
        words = found[step.op.name]
        if "planes" not in step.layer.launches[0].suffix:
            for name, address in zip(ir.sources(step.op), words, strict=False):
                assert name == ir.INPUT or live[name][0] == address
        if step.result_place is not None:
            begin, size = words[2], image_bytes(shapes[step.op.name]) * 256
            for first, end in live.values():
                assert begin + size <= first or end <= begin
            live[step.op.name] = begin, begin + size
        live = {name: place for name, place in live.items() if last[name] > number}


def test_parts_of_a_large_batch() -> None:
    network = small_network("70FC")
    gpu = ModelGpu(0)
    there = on(gpu, network)
    images = random_inputs(build("70FC", (1, 4, 4), 10), 300, 0)
    pixels = images.permute(0, 2, 3, 1).contiguous()
    whole = there.scores(pixels, 0)
    gpu.launched.clear()
    there._most = 128
    assert torch.equal(there.scores(pixels, 0), whole)
    assert [each.arguments[5] for each in gpu.launched] == [128] * 6 + [44] * 3
    np.testing.assert_array_equal(whole, reference.run(network, pixels.numpy()).scores)


@LEVELS
def test_a_network_by_the_model_of_cuda(level: int) -> None:
    notation = "70FC-300FC" if NAMES[level] == "popc" else "40C3-130C1-R1-MP2-130FC"
    model = build(notation, (2, 5, 4), 7, Style(levels=(1, 3)[level % 2]))
    randomize(model, np.random.default_rng(level))
    network = lower(model)
    images = random_inputs(model, 130, level)
    pixels = runner._channels_last(images, network)
    there = on(ModelGpu(level), network)
    expected = reference.run(network, pixels.numpy()).scores
    for batch in (1, 3, 130):
        np.testing.assert_array_equal(there.scores(pixels[:batch], 0), expected[:batch])


@LEVELS
@pytest.mark.parametrize(
    ("shape", "kinds", "turned"),
    [
        ((3, 5, 7), (torch.float32, torch.int8), (False, True)),
        ((70, 300, 65), (torch.bfloat16, torch.float64), (True, False)),
    ],
)
def test_binary_matmul_by_the_model_of_cuda(level: int, shape, kinds, turned) -> None:
    m, k, n = shape
    torch.manual_seed(level)
    given = []
    for size, kind, transposed in zip(((m, k), (k, n)), kinds, turned, strict=True):
        x = torch.randint(-2, 3, size).to(kind)
        given.append(x.t().contiguous().t() if transposed else x)
    found = matmul.on_gpu(*given, ModelGpu(level), 0)
    signs = [torch.where(x >= 0, 1.0, -1.0).double() for x in given]
    assert torch.equal(found, (signs[0] @ signs[1]).int())


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_packing_of_halves(kind: torch.dtype) -> None:
    """Every number of 16 bits."""
    numbers = torch.arange(-(2**15), 2**15).to(torch.int16).view(kind)[None]
    packed = matmul.pack_rows(numbers, ModelGpu(0), 0)
    units = packed.view(-1, 128, 16)[:, 0].reshape(-1)
    bits = np.unpackbits(units.numpy(), bitorder="little")
    np.testing.assert_array_equal(bits, (numbers >= 0)[0].numpy())


def test_binary_matmul_on_the_cpu() -> None:
    a, b = torch.randn(20, 300), torch.randn(300, 9).half()
    a[0], b[:, 0] = 0.0, -0.0
    signs = [torch.where(x >= 0, 1, -1) for x in (a, b)]
    found = cuda.binary_matmul(a, b)
    assert found.dtype == torch.int32
    assert torch.equal(found, (signs[0] @ signs[1]).int())
    assert int(found[0, 0]) == 300
    assert cuda.binary_matmul(a[:0], b).shape == (0, 9)
    assert torch.equal(cuda.binary_matmul(a[:, :0], b[:0]), torch.zeros(20, 9, dtype=torch.int32))
    assert not cuda.binary_matmul(a.requires_grad_(), b).requires_grad


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(4, 5), "binary_matmul of 2x3 and 4x5; it takes"),
        (torch.zeros(3), torch.zeros(3, 5), "binary_matmul of 3 and 3x5; it takes"),
        (torch.zeros(2, 3), torch.zeros(3, 5).bool(), "binary_matmul of bool; it takes floats"),
        (torch.zeros(2, 3), torch.zeros(3, 5, device="meta"), "are on cpu and meta; move one"),
        (
            torch.zeros(1, 1).expand(1, 2**23 + 1),
            torch.zeros(1, 1).expand(2**23 + 1, 1),
            "sums 8388609 numbers; it takes",
        ),
    ],
)
def test_binary_matmul_refuses(a: torch.Tensor, b: torch.Tensor, message: str) -> None:
    with pytest.raises(EdgebnnError, match=message):
        cuda.binary_matmul(a, b)


def test_runner_is_the_model(example_model: Path) -> None:
    run = edgebnn.cuda.load(example_model)
    model = load(example_model)
    images = random_inputs(model, 20, 1)
    with torch.no_grad():
        expected = model(images).double() * 2.0**run.fraction_bits
    scores = run(images)
    assert scores.dtype == torch.int32
    assert torch.equal(scores.double(), expected)
    assert torch.equal(run.predict(images), expected.argmax(dim=1))
    assert run(images[:0]).shape == (0, 10)
    flat = images.reshape(20, -1)
    assert torch.equal(run(flat), scores)  # one channel
    assert torch.equal(cuda.load(model)(images), scores)
    assert torch.equal(cuda.load(run.network)(images), scores)
    run.prepare("cpu")


def test_class_of_one_score() -> None:
    seed = next(s for s in range(1000) if lower(random_model(s)).num_classes == 1)
    model = random_model(seed)
    run, images = cuda.load(model), random_inputs(model, 200, 0)
    assert torch.equal(run.predict(images), (run(images)[:, 0] >= 0).long())


def test_channels_come_first() -> None:
    torch.manual_seed(0)
    model = build("8C3", (3, 5, 4), 2).eval()
    images = random_inputs(model, 6, 0)
    run = cuda.load(model)
    with torch.no_grad():
        expected = model(images).double() * 2.0**run.fraction_bits
    assert torch.equal(run(images).double(), expected)
    apart = images.to(memory_format=torch.channels_last)
    assert torch.equal(run(apart).double(), expected)


def test_signals_are_as_the_model_takes_them() -> None:
    layers = [edgebnn.nn.Input((3, 7)), edgebnn.nn.Flatten(), edgebnn.nn.BinaryLinear(21, 4)]
    model = edgebnn.nn.Sequential(*layers).eval()
    signals = random_inputs(model, 6, 0)
    assert signals.shape == (6, 3, 7)
    run = cuda.load(model)
    with torch.no_grad():
        expected = model(signals).double() * 2.0**run.fraction_bits
    assert torch.equal(run(signals).double(), expected)
    assert torch.equal(run(signals[..., None]).double(), expected)
    with pytest.raises(EdgebnnError, match=r"are 7x3, .* takes 3x7 \(channels, samples\)"):
        run(signals.mT)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 3, 5, 4), "images must be uint8, not float32"),
        (torch.zeros(2, 3, 4, 4).byte(), "images are 3x4x4, the network takes 3x5x4"),
        (torch.zeros(2, 60).byte(), "images are 60, the network takes 3x5x4"),
        (torch.zeros(60).byte(), "the network takes 3x5x4"),
        (torch.full((2, 3, 5, 4), 9).byte(), "an input is 9, the network takes 0 to 7; shift"),
        (torch.zeros(2, 3, 5, 4, device="meta").byte(), "images are on meta"),
    ],
)
def test_runner_refuses(images: torch.Tensor, message: str) -> None:
    model = edgebnn.nn.Sequential(
        edgebnn.nn.Input((3, 5, 4), bits=3),
        edgebnn.nn.Flatten(),
        edgebnn.nn.BinaryLinear(60, 2),
    )
    with pytest.raises(EdgebnnError, match=message):
        cuda.load(model.eval())(images)


def test_operators_are_torchs() -> None:
    run = cuda.load(small_network())
    images = torch.randint(0, 256, (3, 1, 4, 4)).byte()
    torch.library.opcheck(runner.network_scores, (images, run._key))
    given = torch.randn(3, 40), torch.randn(40, 5)
    torch.library.opcheck(matmul.binary_matmul_operator, given)


def test_runner_compiles() -> None:
    run = cuda.load(small_network())

    def step(images: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        return run(images) * 2 + cuda.binary_matmul(a, a.t())[:1, :1]

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=True)
    for batch in (2, 3, 7):
        images, a = torch.randint(0, 256, (batch, 1, 4, 4)).byte(), torch.randn(4, 33)
        assert torch.equal(compiled(images, a), step(images, a))


def test_a_key_lives_as_long_as_a_runner() -> None:
    network = small_network("33FC")
    first, second = cuda.load(network), cuda.load(network)
    key, images = first._key, torch.zeros(1, 1, 4, 4).byte()
    assert key == second._key
    del second
    assert runner.network_scores(images, key).shape == (1, 10)
    del first
    with pytest.raises(EdgebnnError, match="runner is gone; keep it"):
        runner.network_scores(images, key)


def test_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    run = cuda.load(small_network())
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(EdgebnnError, match="this torch has no CUDA; install a build"):
        run.prepare()
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    with pytest.raises(EdgebnnError, match="torch finds no GPU; is the driver"):
        run.prepare("cuda:0")


def test_without_cuda_core(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus._core.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "cuda"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(EdgebnnError, match=r"needs cuda-core: pip install 'edgebnn\[cuda\]'"):
        gpus.compiled("", "sm_75", 0)


def test_architectures() -> None:
    levels = {
        "xor": ((7, 5),),
        "mma": ((8, 0), (8, 6), (8, 9)),
        "wgmma": ((9, 0),),
        "bytes": ((10, 0), (10, 3), (11, 0), (12, 0), (12, 1)),
    }
    for level, capabilities in levels.items():
        assert {NAMES[gpus.architecture(each)[1]] for each in capabilities} == {level}
    assert gpus.architecture((9, 0))[0] == "sm_90a"
    assert gpus.architecture((12, 0))[0] == "sm_120"
    with pytest.raises(EdgebnnError, match=r"compute capability 7\.0; edgebnn\.cuda needs"):
        gpus.architecture((7, 0))


@pytest.mark.parametrize("major_minor", [(7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (12, 0)])
def test_nvrtc_compiles(major_minor: tuple[int, int]) -> None:
    arch, level = gpus.architecture(major_minor)
    network = small_network("8C3-MP2-300FC")
    source = device_source(schedule(network), PREFIX)
    cubin = gpus.compiled(source, arch, level)
    assert cubin[:4] == b"\x7fELF"
    assert f"{PREFIX}conv1".encode() in cubin
    assert gpus.compiled(source, arch, level) is cubin
    with pytest.raises(EdgebnnError, match=f"NVRTC, for {arch}: "):
        gpus.compiled("no C++", arch, level)


def test_verify_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a stand-in; batches of one image and of few among others. What differs is counted."""
    torch.manual_seed(0)
    model = tmp_path / "small.pt"
    edgebnn.save(build("40FC", (1, 4, 4), 3, Style(levels=3)).eval(), model)
    gpu = ModelGpu(0)
    there = on(gpu, lower(load(model)))
    wrong = 0

    def run(images: torch.Tensor, loaded: runner._Loaded) -> torch.Tensor:
        scores = there.scores(runner._channels_last(images, loaded.network), 0)
        scores[-1, 0] += wrong
        return scores

    monkeypatch.setattr(runner, "_run", run)
    monkeypatch.setattr(measure, "gpu_device", lambda: torch.device("cpu", 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    monkeypatch.setattr(gpus, "gpu", lambda _: gpu)
    command = ["verify", str(model), "--target", "cuda", "--random", "40"]
    found = CliRunner().invoke(app, command)
    assert found.exception is None, found.output
    assert re.search(r"edgebnn\.cuda on cpu:0 .* 0 ", found.output)
    assert "every output is equal, bit for bit" in found.output
    at_once = [each.arguments[5] for each in gpu.launched if each.cooperative]
    assert at_once == [1, 1, 2, 2, 16, 16, 4, 4]  # scores, then classes
    assert {each.arguments[5] for each in gpu.launched if not each.cooperative} == {17}
    wrong = 1
    found = CliRunner().invoke(app, [*command, "--json"])
    assert isinstance(found.exception, EdgebnnError)
    assert str(found.exception) == "outputs differ; please report this with the model file"
    record = json.loads(found.stdout)
    assert not record["equal"]
    assert [one["differing"] for one in record["backends"]] == [0, 0, 5]  # one a batch
    assert record["targets"] == []
    assert record["gpus"] == [{"name": "edgebnn.cuda on cpu:0", "level": NAMES[0]}]


def test_verify_needs_a_gpu() -> None:
    model = str(EXAMPLES / "fashion_mlp.pt")
    for more, line in (
        (
            [],
            "target 'cuda' runs on a GPU of NVIDIA, and this torch has no CUDA; install a build of "
            "torch that has",
        ),
        (["--first-layer", "bit-planes"], "target 'cuda' has no --first-layer; leave it out"),
        (["--optimize", "constant-time"], "target 'cuda' has no --optimize; leave it out"),
    ):
        command = ["verify", model, "--target", "cuda", "--random", "3", *more]
        found = CliRunner().invoke(app, command)
        assert isinstance(found.exception, EdgebnnError)
        assert str(found.exception) == line


LIGHT = """
import sys
for name in ("torch", "cuda"):
    sys.modules[name] = None
import edgebnn
from edgebnn.cuda import gpu, product, queue, schedule
assert edgebnn.cuda.product is product
try:
    edgebnn.cuda.load
except edgebnn.EdgebnnError as error:
    assert "edgebnn[train]" in str(error)
else:
    raise AssertionError
"""


def test_only_what_runs_needs_torch() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True)
