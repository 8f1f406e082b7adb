"""All that needs a GPU, in a single call, for a machine that is borrowed for minutes.

    PYTHONPATH=. python3 host_tests/gpu.py

A line a check, then OK or FAILED with counts; the exit status says so too. pytest does not collect
this file. It needs a CUDA build of torch and what ``edgebnn[cuda]`` has; nvcc and compute-sanitizer
unless it is told to go ``--without`` them.
"""

import argparse
import ctypes
import itertools
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cuda_programs
import numpy as np
import torch
from networks import (
    random_inputs,
    random_levels_model,
    random_model,
    random_residual_model,
    random_signal_model,
    randomize,
)
from torch import nn

import edgebnn.nn as bnn
from edgebnn import api, cuda, measure, reference
from edgebnn.codegen.cuda import device_source, source_of
from edgebnn.codegen.cuda import generate as generate_cuda
from edgebnn.cuda import gpu as gpus
from edgebnn.cuda import matmul, runner
from edgebnn.cuda.gpu import architecture, compiled, keep_compiled
from edgebnn.cuda.layers import LEVELS
from edgebnn.cuda.product import plain_product
from edgebnn.cuda.queue import PREFIX
from edgebnn.cuda.schedule import schedule
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network
from edgebnn.lower import lower
from edgebnn.train.networks import Style, build

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BATCHES = (1, 3, 16, 64, 65, 300)
RANDOM = {
    "random": random_model,
    "levels": random_levels_model,  # of signals, too, which the number says
    "residual": random_residual_model,
    "signal": random_signal_model,
}
WIDE = (  # what random networks are too small for: notation, channels, height, width; levels, head
    ("3x600FC", (1, 28, 28), 1, "sign"),
    ("129FC-256FC-257FC-64FC-65FC", (1, 9, 9), 1, "sign"),
    ("128C3-256C1-MP2-130C3S2-R3-512C1-520FC", (3, 12, 12), 1, "sign"),
    ("256C1-256C1-300C3V-33C1-D3-64C1", (2, 7, 5), 1, "sign"),
    ("2x4096FC", (1, 16, 16), 1, "sign"),
    ("64C3-64C3-2xR3-MP2-160C1-2xR1", (3, 10, 10), 1, "sign"),
    ("257FC-300FC-1000FC", (1, 16, 16), 7, "sign"),
    ("130C3-257C1-R3-MP2-600C1-D3-64C3-MP2", (3, 12, 12), 3, "integer"),
)
PRODUCTS = (  # k and n; each is compiled, and m is free
    *((300, 70), (513, 257), (1, 1), (31, 33), (64, 65), (129, 127), (256, 600), (1000, 64)),
    *((4096, 4096), (10_007, 3), (100_000, 600)),
)
SANITIZED = (*(f"wide {number}" for number in (0, 2, 6, 7)), "levels 70001", "residual 70002")
TOOLS = ("memcheck", "racecheck", "synccheck")
SANITIZED_BATCHES = (1, 16, 17, 65)
ROWS = (1, 3, 16, 17, 64, 129, 700)
DEVICE = "cuda"
_began = time.monotonic()


@dataclass
class Checks:
    """What was found so far."""

    passed: int = 0
    failed: int = 0

    def check(self, what: str, good: bool, note: str = "") -> None:
        if good:
            self.passed += 1
        else:
            self.failed += 1
        mark = "ok    " if good else "FAILED"
        seconds = time.monotonic() - _began
        print(f"{mark} {seconds:6.1f} s  {what}{f': {note}' if note else ''}", flush=True)

    @contextmanager
    def of(self, what: str) -> Iterator[None]:
        """A block that is a failed check where it breaks off."""
        try:
            yield
        except Exception as error:
            self.check(what, False, repr(error)[:600])


@dataclass
class Prepared:
    """A network with inputs, what the oracle makes of them, and code for levels of a GPU."""

    name: str
    network: Network
    images: np.ndarray
    scores: np.ndarray
    source: str
    cubins: dict[int, bytes]


def prepare(name: str, arch: str, levels: tuple[int, ...]) -> Prepared:
    """Called in other processes: compiling is what takes the time. The best level is the first."""
    torch.set_num_threads(1)
    model, seed = model_of(name)
    network = lower(model)
    images = random_inputs(model, max(BATCHES), seed).numpy()
    plan = schedule(network)
    text = device_source(plan, PREFIX)
    hopper = any(step.layer.constants.get("WGMMA") for step in plan.steps)
    skipped = set() if hopper else {"mma"}  # whose code wgmma has then
    if name.partition(" ")[0] in RANDOM:  # which are many
        skipped.add(("xor", "bytes")[seed % 2])
    kept = [level for level in levels if level == levels[0] or LEVELS[level] not in skipped]
    flat = np.moveaxis(images, 1, -1)
    return Prepared(
        name=name,
        network=network,
        images=images,
        scores=reference.run(network, flat.reshape(len(images), -1)).scores,
        source=text,
        cubins={level: compiled(text, arch, level) for level in kept},
    )


def model_of(name: str) -> tuple[nn.Module, int]:
    """The network of a kind and a number, or of an example, and the seed of its inputs."""
    kind, _, rest = name.partition(" ")
    seed = 0
    if kind == "example":
        model = api.load(EXAMPLES / rest)
    elif kind == "wide":
        notation, shape, count, head = WIDE[int(rest)]
        torch.manual_seed(int(rest))
        style = Style(pad_value=(-1, 0, 1)[int(rest) % 3], levels=count, head=head)
        model = build(notation, shape, 10, style)
        randomize(model, np.random.default_rng(int(rest)))
        model.eval()
    else:
        seed = int(rest)
        model = RANDOM[kind](seed)
    return model, seed


def capability(_: int) -> tuple[int, int]:
    """In another process: this one is to fork before it uses the GPU."""
    return torch.cuda.get_device_capability(0)


def differing(found: torch.Tensor, expected: np.ndarray) -> int:
    return int((found.cpu().numpy() != expected).any(axis=1).sum())


def check_network(one: Prepared, arch: str, batches: tuple[int, ...], checks: Checks) -> None:
    """At each of its levels and for each batch, scores and classes."""
    wrong, notes = 0, []
    images = torch.from_numpy(one.images).to(DEVICE)
    classes = reference.best(one.scores)
    ways = (True,) if schedule(one.network).at_once is None else (True, False)
    for (level, cubin), persistent in itertools.product(one.cubins.items(), ways):
        keep_compiled(one.source, arch, level, cubin)
        run = cuda.load(one.network, level=level, persistent=persistent)
        for batch in batches:
            bad = differing(run(images[:batch]), one.scores[:batch])
            predicted = run.predict(images[-batch:]).cpu().numpy()
            bad += int((predicted != classes[-batch:]).sum())
            if bad:
                wrong += bad
                how = "" if persistent else ", a kernel or more a layer"
                notes.append(f"{LEVELS[level]}{how}, batch {batch}: {bad} differ")
    levels = " ".join(LEVELS[level] for level in one.cubins)
    checks.check(f"{one.name} ({levels})", not wrong, "; ".join(notes))


def kinds_of(number: int) -> tuple[tuple[torch.dtype, bool], tuple[torch.dtype, bool]]:
    """Of two matrices, and whether they are transposed."""
    types = list(matmul.TYPES)
    first, second = types[number % len(types)], types[(3 * number + 1) % len(types)]
    return (first, number % 2 == 1), (second, number % 3 == 1)


def prepare_product(
    number: int, arch: str, levels: tuple[int, ...]
) -> list[tuple[str, int, bytes]]:
    """Code of the kernels for a product of :data:`PRODUCTS`."""
    k, n = PRODUCTS[number]
    (first, first_turned), (second, second_turned) = kinds_of(number)
    layers = (
        ("product", plain_product(k, n, bits=False)),
        ("pack", matmul.pack_layer(k, 0, matmul.TYPES[first], not first_turned)),
        ("pack", matmul.pack_layer(k, n, matmul.TYPES[second], second_turned)),
    )
    texts = [source_of([layer], PREFIX) for layer in layers]
    return [(text, level, compiled(text, arch, level)) for text in texts for level in levels]


def check_product(number: int, levels: tuple[int, ...], checks: Checks) -> None:
    """binary_matmul of odd shapes and every type, in both layouts."""
    k, n = PRODUCTS[number]
    (first, first_turned), (second, second_turned) = kinds_of(number)
    stream = torch.cuda.current_stream().cuda_stream
    torch.manual_seed(number)
    bad = []
    for m in ROWS:
        a, b = (torch.randint(-2, 3, shape, device=DEVICE) for shape in ((m, k), (k, n)))
        a, b = a.to(first), b.to(second)
        a = a.t().contiguous().t() if first_turned else a
        b = b.t().contiguous().t() if second_turned else b
        signs = [torch.where(x >= 0, 1.0, -1.0).double() for x in (a, b)]
        expected = signs[0] @ signs[1]
        for level in levels:
            wrong = int((matmul.on_gpu(a, b, gpus.gpu(0, level), stream) != expected).sum())
            if wrong:
                bad.append(f"{LEVELS[level]}, m = {m}: {wrong} of {m * n} differ")
    kinds = f"{str(first).removeprefix('torch.')} by {str(second).removeprefix('torch.')}"
    checks.check(f"binary_matmul, k = {k}, n = {n}, {kinds}", not bad, "; ".join(bad))


def check_specials(checks: Checks) -> None:
    a = torch.tensor([[0.0, -0.0, 1.0, -1.0, float("inf"), -float("inf"), 1e-45, -1e-45]])
    bad = []
    for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        x = a.to(kind)
        found = cuda.binary_matmul(x.to(DEVICE), torch.eye(8).to(DEVICE) - 0.5).cpu()
        if not torch.equal(found, cuda.binary_matmul(x, torch.eye(8) - 0.5)):
            bad.append(str(kind))
    checks.check("binary_matmul of zeros, infinities and subnormal numbers", not bad, " ".join(bad))
    k = 2**23
    a, b = torch.ones((2, k), device=DEVICE), torch.ones((k, 3), device=DEVICE)
    a[1], b[:, 2] = -1.0, -1.0
    expected = torch.tensor([[k, k, -k], [-k, -k, k]], dtype=torch.int32)
    checks.check("binary_matmul of 2**23", torch.equal(cuda.binary_matmul(a, b).cpu(), expected))


def check_graph(one: Prepared, batch: int, checks: Checks) -> None:
    """A captured runner on new images, and one that has never run."""
    run = cuda.load(one.network)
    images = torch.from_numpy(one.images).to(DEVICE)
    given = images[:batch].clone()
    run(given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = run(given)
    bad = 0
    for first in (0, len(images) - batch, (len(images) - batch) // 2):
        given.copy_(images[first : first + batch])
        graph.replay()
        bad += differing(scores, one.scores[first : first + batch])
    checks.check(f"graph of {one.name}, batch {batch}", not bad, f"{bad} differ" if bad else "")


def check_torch(one: Prepared, checks: Checks) -> None:
    """The operator in torch.compile, on another stream, in parts, and what it refuses."""
    run = cuda.load(one.network)
    images = torch.from_numpy(one.images).to(DEVICE)
    try:
        torch.library.opcheck(runner.network_scores, (images, run._key))
        torch.library.opcheck(
            matmul.binary_matmul_operator,
            (torch.randn(70, 90).to(DEVICE), torch.randn(90, 50).to(DEVICE)),
        )
        checks.check("opcheck", True)
    except Exception as error:
        checks.check("opcheck", False, repr(error)[:300])
    step = torch.compile(lambda x: run(x) + 1, backend="aot_eager", fullgraph=True)
    checks.check("torch.compile", not differing(step(images) - 1, one.scores))
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        found = run(images)
    stream.synchronize()
    checks.check("another stream", not differing(found, one.scores))
    there = run._loaded.on(images.device)
    whole, there._most = there._most, 128
    checks.check("a batch in parts", not differing(run(images), one.scores))
    there._most = whole
    checks.check("a batch of none", tuple(run(images[:0]).shape) == (0, one.scores.shape[1]))
    apart = images.to(memory_format=torch.channels_last) if images.dim() == 4 else images
    checks.check("channels_last", not differing(run(apart), one.scores))
    try:
        run(images.int())
        checks.check("refuses int32", False)
    except EdgebnnError:
        checks.check("refuses int32", True)


def check_barriers(one: Prepared, checks: Checks) -> None:
    """The kernel of all layers, by itself and in graphs, on several streams at once."""
    if schedule(one.network).at_once is None:
        return
    runs = [cuda.load(one.network), cuda.Runner(one.network, gpus.gpu(0).level)]
    images = torch.from_numpy(one.images).to(DEVICE)
    streams = [torch.cuda.Stream() for _ in range(4)]
    batches, found, graphs = (1, 16, 3, 8), [], []
    for run in runs:
        run(images[:16])
    torch.cuda.synchronize()
    for batch in batches:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            graphs.append((graph, [run(images[:batch]) for run in runs for _ in range(5)], batch))
    for turn in range(200):
        with torch.cuda.stream(streams[turn % 4]):
            batch = batches[turn // 4 % 4]
            found.append((runs[turn % 2](images[-batch:]), one.scores[-batch:]))
            graphs[turn % 4][0].replay()
    torch.cuda.synchronize()
    found += [(scores, one.scores[:batch]) for _, all_of, batch in graphs for scores in all_of]
    bad = sum(differing(scores, expected) for scores, expected in found)
    checks.check(f"{one.name} on four streams at once", not bad, f"{bad} differ" if bad else "")


def check_verify(model: str, checks: Checks) -> None:
    """The command, on random inputs."""
    command = ["verify", str(EXAMPLES / model), "--target", "cuda", "--random", "2000", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "edgebnn", *command], capture_output=True, text=True, check=False
    )
    what = f"edgebnn verify {model} --target cuda --random 2000"
    checks.check(what, not done.returncode, done.stderr[-600:] if done.returncode else "")


def check_eval_mode(names: list[str], checks: Checks) -> None:
    """torch itself on the GPU, whatever arithmetic a user has allowed and cuDNN picks."""
    for allowed in (False, True):
        bad = []
        with warnings.catch_warnings():  # what the flags say of themselves
            warnings.simplefilter("ignore")
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
            torch.backends.cudnn.benchmark = allowed
        for name in names:
            model, seed = model_of(name)
            network = lower(model)
            inputs = random_inputs(model, 64, seed)
            there = model.to(DEVICE)
            scores = measure.integer_scores(there, inputs.to(DEVICE), network)
            expected = measure.integer_scores(model.cpu(), inputs, network)
            if not np.array_equal(scores, expected):
                bad.append(f"{name}: {int((scores != expected).any(axis=1).sum())} differ")
        what = "with TF32 and cuDNN's choice" if allowed else "as it comes"
        checks.check(f"torch in eval mode on the GPU, {what}", not bad, "; ".join(bad)[:600])
    layer = bnn.BinaryConv2d(512, 8, 3, padding=1).eval()
    x = torch.randint(0, 256, (16, 512, 12, 12))
    x[1::2] = (x[1::2] > 127) * 255
    weight = torch.where(layer.latent_weight >= 0, 1.0, -1.0).double()
    expected = torch.nn.functional.conv2d(x.double(), weight, padding=1)
    with torch.no_grad():
        found = layer.to(DEVICE)(x.float().to(DEVICE)).cpu().double()
    checks.check("sums of 512 channels of 8 bits on the GPU", torch.equal(found, expected))


def find(tool: str) -> str | None:
    """Of the toolkit: in PATH, where toolkits lie, or among Python's packages."""
    places = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", "/opt/cuda"]
    places += [str(Path(entry) / "nvidia" / "cu13") for entry in sys.path]
    inside = [
        str(Path(place) / sub) for place in places if place for sub in ("bin", "compute-sanitizer")
    ]
    return shutil.which(tool, path=os.pathsep.join([os.environ.get("PATH", ""), *inside]))


def check_emitted(one: Prepared, arch: str, folder: Path, checks: Checks) -> None:
    """The .cu by nvcc, through its C API, in torch's memory."""
    nvcc = find("nvcc")
    if nvcc is None:
        checks.check("emitted .cu by nvcc", False, "nvcc not found; --without nvcc")
        return
    library = generate_cuda(schedule(one.network), "net")
    api.write(library, folder)
    built = folder / "net.so"
    flags = ("-O3", "-std=c++17", f"-arch={arch}", "-shared", "-Xcompiler", "-fPIC")
    command = [nvcc, *flags, "-o", str(built), str(folder / "src" / "net.cu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        checks.check("emitted .cu by nvcc", False, done.stderr[-600:])
        return
    net = ctypes.CDLL(str(built))
    net.net_message.restype = ctypes.c_char_p
    model, stream = ctypes.c_void_p(), ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    status = net.net_create(ctypes.byref(model), max(BATCHES))
    flat = one.images.reshape(len(one.images), one.network.input.channels, -1)
    pixels = torch.from_numpy(np.ascontiguousarray(flat.transpose(0, 2, 1))).to(DEVICE)
    bad = 0
    for batch in BATCHES if status == 0 else ():
        scores = torch.full((batch, one.network.num_classes), 77, dtype=torch.int32, device=DEVICE)
        classes = torch.full((batch,), 77, dtype=torch.int32, device=DEVICE)
        for call, given in ((net.net_scores, scores), (net.net_predict, classes)):
            into = ctypes.c_void_p(given.data_ptr())
            status |= call(model, ctypes.c_void_p(pixels.data_ptr()), into, batch, stream)
        torch.cuda.synchronize()
        bad += differing(scores, one.scores[:batch])
        bad += int((classes.cpu().numpy() != reference.best(one.scores[:batch])).sum())
    bad += two_handles(net, pixels, one) if status == 0 else 0
    net.net_destroy(model)
    note = net.net_message(status).decode() if status else f"{bad} differ" if bad else ""
    checks.check(f"emitted .cu of {one.name} by nvcc for {arch}", not status and not bad, note)


def two_handles(net: ctypes.CDLL, pixels: torch.Tensor, one: Prepared) -> int:
    """How many scores differ of two models whose kernels are started on two streams in turns."""
    models = [ctypes.c_void_p(), ctypes.c_void_p()]
    streams = [torch.cuda.Stream(), torch.cuda.Stream()]
    size = (2, 16, one.network.num_classes)
    scores = torch.full(size, 77, dtype=torch.int32, device=DEVICE)
    status = 0
    for model in models:
        status |= net.net_create(ctypes.byref(model), 16)
    torch.cuda.synchronize()
    for turn in range(400 if status == 0 else 0):
        into, stream = scores[turn % 2].data_ptr(), streams[turn % 2].cuda_stream
        status |= net.net_scores(
            models[turn % 2],
            ctypes.c_void_p(pixels.data_ptr()),
            ctypes.c_void_p(into),
            16,
            ctypes.c_void_p(stream),
        )
    torch.cuda.synchronize()
    for model in models:
        net.net_destroy(model)
    if status:
        raise EdgebnnError(f"two handles: status {status}")
    return sum(differing(each, one.scores[:16]) for each in scores)


def sanitized(arch: str, level: int, folder: Path) -> Path:
    """A program of :data:`SANITIZED`, without Python, whose kernels know their lines."""
    torch.set_num_threads(1)
    networks = [lower(model_of(name)[0]) for name in SANITIZED]
    source, program = cuda_programs.write(networks, folder), folder / "program"
    code = arch.removeprefix("sm_")
    flags = ("-O3", "-std=c++17", "-lineinfo", f"-DEDGEBNN_LEVEL={level}")
    flags += ("-gencode", f"arch=compute_{code},code=sm_{code}")  # and nothing beside it
    nvcc = find("nvcc")
    if nvcc is None:
        raise EdgebnnError("nvcc not found; --without nvcc")
    command = [nvcc, *flags, "-x", "cu", "-o", str(program), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise EdgebnnError(done.stderr[-600:])
    return program


def check_sanitizer(tool: str, level: int, program: Path, checks: Checks) -> None:
    """Scores and classes under a tool of compute-sanitizer, which is to find nothing."""
    what = f"compute-sanitizer {tool}, {LEVELS[level]}"
    sanitizer = find("compute-sanitizer")
    if sanitizer is None:
        checks.check(what, False, "compute-sanitizer not found; --without sanitizer")
        return
    log = program.with_name(f"{tool}.log")
    flags = ("--tool", tool, "--error-exitcode", "9", "--log-file", str(log))
    networks, inputs = [], []
    for name in SANITIZED:
        model, seed = model_of(name)
        networks.append(lower(model))
        images = random_inputs(model, max(SANITIZED_BATCHES), seed).numpy()
        inputs.append(np.ascontiguousarray(np.moveaxis(images, 1, -1)))
    batches = [SANITIZED_BATCHES] * len(networks)
    note = ""
    try:
        cuda_programs.check_equal(program, networks, inputs, batches, under=(sanitizer, *flags))
    except AssertionError as error:
        note = f"{str(error)[:600]}\n"
    lines = log.read_text().splitlines() if log.exists() else ["no report"]
    checks.check(what, not note, note + "\n".join(lines[-1:] if not note else lines[:40]))


def main() -> int:
    parser = argparse.ArgumentParser(description="All that needs a GPU, in a single call.")
    parser.add_argument("--networks", type=int, default=200, help="Random ones.")
    parser.add_argument("--seed", type=int, default=70_000, help="Of the first.")
    parser.add_argument("--without", action="append", default=[], choices=("nvcc", "sanitizer"))
    given = parser.parse_args()
    if not torch.cuda._is_compiled():
        print("gpu.py: this torch has no CUDA; install a build of torch that has", file=sys.stderr)
        return 1
    checks = Checks()
    random = [
        f"{list(RANDOM)[number % len(RANDOM)]} {given.seed + number // len(RANDOM)}"
        for number in range(given.networks)
    ]
    wide = [f"wide {number}" for number in range(len(WIDE))]
    examples = [f"example {path.relative_to(EXAMPLES)}" for path in sorted(EXAMPLES.rglob("*.pt"))]
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(1, fork) as one:
        try:
            arch, best = architecture(one.submit(capability, 0).result())
        except Exception as error:
            print(f"gpu.py: torch finds no GPU ({error})", file=sys.stderr)
            return 1
    levels = tuple(range(best, -1, -1))
    kept: dict[str, Prepared] = {}
    sanitizers = not {"nvcc", "sanitizer"} & set(given.without)
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(max(2, os.cpu_count() or 2), fork) as pool,
    ):
        names = [*wide, *examples, *random]
        programs = {
            level: pool.submit(sanitized, arch, level, Path(folder) / LEVELS[level])
            for level in (levels if sanitizers else ())
        }
        products = [pool.submit(prepare_product, n, arch, levels) for n in range(len(PRODUCTS))]
        jobs = {pool.submit(prepare, name, arch, levels): name for name in names}
        # Only now, when all processes are there, does this one touch the GPU.
        for job in as_completed(jobs):
            name = jobs[job]
            with checks.of(name):
                one = job.result()
                check_network(one, arch, BATCHES, checks)
                if name not in random:
                    kept[name] = one
        for number, product in enumerate(products):
            with checks.of(f"product {PRODUCTS[number]}"):
                for text, level, cubin in product.result():
                    keep_compiled(text, arch, level, cubin)
                check_product(number, levels, checks)
        with checks.of("special values"):
            check_specials(checks)
        for one in kept.values():
            for batch in (1, 65):
                with checks.of(f"graph of {one.name}"):
                    check_graph(one, batch, checks)
            with checks.of(f"{one.name} on four streams"):
                check_barriers(one, checks)
        with checks.of("torch"):
            check_torch(kept[examples[0]], checks)
        for name in ("models/fashion_conv.pt", "models/fashion_mlp.pt", "models/mnist/mnist_4k.pt"):
            check_verify(name, checks)
        with checks.of("torch in eval mode"):
            check_eval_mode([*examples, *wide, *random[:60]], checks)
        for name in (
            () if "nvcc" in given.without else ("example models/fashion_conv.pt", *wide[::2])
        ):
            with checks.of(f"emitted .cu of {name}"):
                check_emitted(kept[name], arch, Path(folder) / name.replace("/", "_"), checks)
        for (level, program), tool in itertools.product(programs.items(), TOOLS):
            with checks.of(f"compute-sanitizer {tool}, {LEVELS[level]}"):
                check_sanitizer(tool, level, program.result(), checks)
    device = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    what = "FAILED" if checks.failed else "OK"
    print(f"{what}: {checks.passed} checks passed, {checks.failed} failed; {device}")
    return 1 if checks.failed else 0


if __name__ == "__main__":
    sys.exit(main())
