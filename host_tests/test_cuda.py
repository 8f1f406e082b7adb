"""Emitted CUDA on the CPU model of CUDA: scores and classes are the oracle's; errors; the C API."""

import functools
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cuda_programs
import numpy as np
import pytest
from networks import random_inputs, random_levels_model, random_model, random_residual_model
from numpy.typing import NDArray
from pytest_regressions.file_regression import FileRegressionFixture
from test_cli import mistake, output_here, tree
from test_equality import device_inputs
from test_golden import GOLDEN, NETWORKS

from edgebnn import api, reference
from edgebnn.checkpoint import load
from edgebnn.codegen import cuda
from edgebnn.cuda.layers import LEVELS as NAMES
from edgebnn.cuda.schedule import schedule
from edgebnn.device import toolchain
from edgebnn.ir import (
    INPUT,
    Add,
    Binarize,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Head,
    Ints,
    Levels,
    MaxPool,
    Network,
    Op,
    Quantize,
    Raw,
    Scores,
    Sums,
    Threshold,
    tensors,
)
from edgebnn.lower import lower

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "models"
LEVELS = pytest.mark.parametrize("level", cuda_programs.LEVELS, ids=NAMES)
#: One that counts, one that takes bits apart, and the best, whose convolutions are those of mma.
FEW = ("popc", "bytes", "wgmma")
FEW_LEVELS = pytest.mark.parametrize("level", [NAMES.index(name) for name in FEW], ids=FEW)
RANDOM = {
    "plain": (random_model, range(8)),
    "residual": (random_residual_model, (0, 1, 3, 8)),
    "levels": (random_levels_model, (1, 12, 17, 18)),
}
LEAST = {"popc": 75, "xor": 75, "bytes": 86, "mma": 86, "wgmma": 90}
"""A compute capability of each level's GPUs, of those with the least shared memory."""


class Chain:
    """A network that grows by layers of random weights, each on what the last one gives.

    Thresholds are dots that its own inputs give, so that bits differ and ties happen. Of ``planes``
    that are more than one there are several, which do not rise: the least is the last.
    """

    planes = 1

    def __init__(self, shape: Ints, images: int) -> None:
        self.rng = np.random.default_rng([shape.height, shape.width, shape.channels])
        size = (images, shape.height, shape.width, shape.channels)
        self.images = self.rng.integers(0, 2**shape.bits, size).astype(np.uint8)
        self.network = Network(shape, ())

    def traced(self, *more: Op) -> NDArray[np.int64]:
        """What the last op gives."""
        network = replace(self.network, ops=(*self.network.ops, *more))
        name = network.ops[-1].name if network.ops else INPUT
        return reference.trace(network, self.images)[name]

    def append(self, make: Callable[[str, str], Op]) -> None:
        """``make`` takes names of the op and of its source."""
        ops = self.network.ops
        op = make(f"op{len(ops)}", ops[-1].name if ops else INPUT)
        self.network = replace(self.network, ops=(*ops, op))

    def thresholds(self, values: NDArray[np.int64]) -> NDArray[np.int32]:
        """(levels, ...) of values (..., channels) or (images, ...)."""
        rising, levels = np.sort(values, axis=0), 2**self.planes - 1
        places = [(i + 1) * len(rising) // (levels + 1) for i in range(levels)]
        return rising[[*places[1:], places[0]]].astype(np.int32)

    def headed(self, make: Callable[[str, str, Head], Op], head: type[Head] = Threshold) -> None:
        """``make`` takes its head, too."""
        source = self.network.ops[-1].name if self.network.ops else INPUT
        dots = self.traced(make("dots", source, Raw()))
        least = self.thresholds(dots.reshape(-1, dots.shape[-1]))
        middle = least[0]
        if head is Threshold:
            bits = Threshold(middle) if self.planes == 1 else Levels(least)
            self.append(lambda name, source: make(name, source, bits))
        elif head is Raw:
            self.append(lambda name, source: make(name, source, Raw()))
        else:
            factor = self.rng.integers(-3, 4, len(middle)).astype(np.int32)
            self.append(lambda name, source: make(name, source, Scores(factor, middle, 0)))

    def dense(self, outputs: int, head: type[Head] = Threshold) -> None:
        weights = self.rng.random((outputs, *self.traced().shape[1:])) < 0.5
        self.headed(lambda name, source, head: Dense(name, source, weights, head), head)

    def conv(
        self,
        outputs: int | None,
        kernel: tuple[int, int],
        *,
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int, int, int] = (0, 0, 0, 0),
        pad_value: int = -1,
        head: type[Head] = Threshold,
    ) -> None:
        """Without ``outputs`` it is a depthwise one; ``pad_value`` is in levels of bits."""
        channels = self.traced().shape[-1]
        source = tensors(self.network)[self.network.ops[-1].name] if self.network.ops else None
        pad_value *= source.levels if isinstance(source, Bits) else 1
        if outputs is None:
            depth = self.rng.random((*kernel, channels)) < 0.5
            self.headed(
                lambda *names: DepthwiseConv(
                    *names[:2], depth, stride, padding, pad_value, names[2]
                ),
                head,
            )
            return
        weights = self.rng.random((outputs, *kernel, channels)) < 0.5
        self.headed(
            lambda *names: Conv(*names[:2], weights, stride, padding, pad_value, names[2]), head
        )

    def pool(self, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        """Of bits in some channels by the least, of sums by the largest."""
        values = self.traced()
        all_set = self.rng.random(values.shape[-1]) < 0.5
        if isinstance(tensors(self.network)[self.network.ops[-1].name], Sums):
            all_set[:] = False
        self.append(lambda name, source: MaxPool(name, source, kernel, stride, all_set))

    def signs(self, each: bool = False) -> None:
        """Of ``each`` pixel by minima of its own."""
        values = self.traced()
        if not each:
            values = values.reshape(-1, values.shape[-1])
        minimum = self.thresholds(values)
        inverted = self.rng.random(minimum.shape[1:]) < 0.5
        if self.planes > 1:
            self.append(lambda name, source: Quantize(name, source, minimum, inverted))
        else:
            self.append(lambda name, source: Binarize(name, source, minimum[0], inverted))


@functools.cache
def dense_chain(*widths: int, planes: tuple[int, ...] = ()) -> Chain:
    """Integers to 44 scores by dense layers of so many outputs, and of so many planes of bits."""
    chain = Chain(Ints(1, 1, 333, 3), 130)
    for width, chain.planes in zip(widths, planes or [1] * len(widths), strict=True):
        chain.dense(width)
    chain.dense(44, Scores)
    return chain


@functools.cache
def conv_chain() -> Chain:
    """Units of all sizes, direct and padded rows, every pad, strides, and few pixels at the end."""
    chain = Chain(Ints(9, 10, 3, 8), 3)
    chain.conv(70, (3, 3), padding=(1, 0, 2, 1), pad_value=7)  # of four words, three
    chain.conv(130, (3, 3), padding=(1, 1, 1, 1), pad_value=1)
    chain.conv(65, (1, 1))  # direct
    chain.conv(None, (3, 2), padding=(0, 2, 1, 1), pad_value=1)
    chain.conv(257, (2, 3), padding=(1, 2, 0, 1), pad_value=0)
    chain.conv(256, (1, 1))  # direct
    chain.conv(None, (3, 3), stride=(1, 2), padding=(1, 1, 1, 1), pad_value=0)
    chain.conv(129, (1, 1), padding=(1, 0, 0, 1), pad_value=-1)  # padded, so not direct
    chain.pool((2, 2), (2, 2))
    chain.conv(20, (3, 3), stride=(2, 1), padding=(1, 1, 1, 1), pad_value=-1)
    chain.conv(600, (1, 1), stride=(2, 1))
    chain.pool((1, 2), (1, 1))
    chain.dense(7, Scores)
    return chain


@functools.cache
def sum_chain(channels: int = 70) -> Chain:
    """Sums of convolutions on integers and on bits, added and compared; scores by a convolution."""
    chain = Chain(Ints(5, 6, 2, 4), 130)
    chain.conv(channels, (3, 3), padding=(1, 1, 1, 1), pad_value=0, head=Raw)
    first = chain.network.ops[-1].name
    chain.signs()
    chain.conv(channels, (3, 3), padding=(1, 1, 1, 1), pad_value=0, head=Raw)
    chain.append(lambda name, source: Add(name, source, first))
    chain.signs()
    chain.conv(None, (2, 2), head=Raw)
    chain.signs(each=True)
    chain.conv(channels, (1, 1), head=Raw)  # direct, of more than 128
    chain.signs()
    chain.conv(5, (4, 5), head=Scores)
    return chain


@functools.cache
def level_convs() -> Chain:
    """Of two planes and of three: units of all sizes, every pad, pools, sums, an integer head."""
    chain = Chain(Ints(5, 6, 2, 8), 21)
    chain.planes = 3
    chain.conv(70, (2, 2), padding=(1, 0, 1, 0), pad_value=7)  # of four words, three
    chain.conv(None, (2, 3), padding=(1, 0, 1, 1), pad_value=1)
    chain.planes = 2
    chain.conv(130, (3, 3), padding=(1, 1, 1, 1), pad_value=1)
    chain.conv(65, (1, 1), head=Raw)  # direct
    chain.signs()
    chain.pool((2, 2), (1, 2))
    chain.planes = 3
    chain.conv(257, (2, 2), padding=(0, 1, 0, 1), pad_value=0)
    chain.conv(200, (1, 1))  # direct
    chain.pool((2, 1), (2, 1))
    chain.conv(65, (2, 2), padding=(1, 0, 1, 0), pad_value=-1, head=Raw)
    chain.pool((1, 2), (1, 2))
    chain.dense(70)
    chain.conv(30, (1, 1), head=Raw)
    chain.planes = 2
    chain.signs(each=True)
    chain.dense(9, Raw)
    chain.dense(5, Scores)
    return chain


def first_scores() -> Chain:
    """A convolution on integers is all there is."""
    chain = Chain(Ints(3, 3, 3, 8), 130)
    chain.conv(35, (3, 3), head=Scores)
    return chain


def of_seed(kind: str, seed: int, count: int) -> tuple[Network, NDArray[np.uint8]]:
    model = RANDOM[kind][0](seed)
    return lower(model), device_inputs(random_inputs(model, count, seed))


@FEW_LEVELS
@pytest.mark.parametrize("kind", RANDOM)
def test_random_networks(kind: str, level: int, tmp_path: Path) -> None:
    pairs = [of_seed(kind, seed, 130) for seed in RANDOM[kind][1]]
    networks, inputs = zip(*pairs, strict=True)
    program = cuda_programs.build(networks, level, tmp_path)
    cuda_programs.check_equal(program, networks, inputs, [(1, 3, 130)] * len(networks))


@LEVELS
def test_examples(level: int, tmp_path: Path) -> None:
    networks = [lower(load(path)) for path in sorted(EXAMPLES.glob("*.pt"))]
    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 2**n.input.bits, (3, n.input_bytes), np.uint8) for n in networks]
    program = cuda_programs.build(networks, level, tmp_path)
    cuda_programs.check_equal(program, networks, inputs, [(1, 3)] * len(networks))


SANITIZERS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def test_under_sanitizers(tmp_path: Path) -> None:
    """The golden networks, some of whose factors are as large as can be."""
    networks = [lower(make()) for make in NETWORKS.values()]
    rng = np.random.default_rng(0)
    inputs = [rng.integers(0, 2**n.input.bits, (66, n.input_bytes), np.uint8) for n in networks]
    program = cuda_programs.build(networks, 1, tmp_path, *SANITIZERS)
    cuda_programs.check_equal(program, networks, inputs, [(1, 66)] * len(networks))


@functools.cache
def long_rows(images: int = 16) -> Chain:
    """More weights of a column than a thread holds while it waits, and few images at once."""
    chain = Chain(Ints(1, 1, 8300, 2), images)
    chain.dense(40)
    chain.dense(6, Scores)
    return chain


@functools.cache
def whole_bytes() -> Chain:
    """Eight planes, and scores of several groups of columns, between which no warp waits."""
    chain = Chain(Ints(5, 5, 4, 8), 16)
    chain.dense(40)
    chain.dense(70, Scores)
    return chain


CHAINS = {
    "wide": (lambda: dense_chain(600, 64, 257, 100, 256, 31, 129), (1, 2, 65, 130)),
    "narrow": (lambda: dense_chain(128, 65, 33, 32), (4, 64)),
    "one": (lambda: dense_chain(1), (65,)),
    "convs": (conv_chain, (1, 3)),
    "sums": (sum_chain, (1, 130)),
    "sums of fours": (lambda: sum_chain(132), (1, 5)),
    "scores": (first_scores, (1, 130)),
    "levels": (level_convs, (1, 5, 21)),
    "dense levels": (lambda: dense_chain(300, 257, 70, planes=(3, 2, 3)), (1, 16, 130)),
    "long": (lambda: long_rows(17), (17,)),  # around the ring of shared memory, almost three times
}


@FEW_LEVELS
def test_shapes(level: int, tmp_path: Path) -> None:
    chains = [make() for make, _ in CHAINS.values()]
    gpu = {**os.environ, "EDGEBNN_CUDA_CAPABILITY": str(LEAST[NAMES[level]])}
    networks, images = [each.network for each in chains], [each.images for each in chains]
    batches = [batches for _, batches in CHAINS.values()]
    program = cuda_programs.build(networks, level, tmp_path)
    cuda_programs.check_equal(program, networks, images, batches, gpu)


@functools.cache
def at_once_program(level: int, folder: Path) -> tuple[Path, tuple[Chain, ...]]:
    chains = (dense_chain(600, 100, 33), whole_bytes(), long_rows())
    return cuda_programs.build([chain.network for chain in chains], level, folder), chains


@pytest.fixture(scope="module")
def at_once_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("at_once")


SETTINGS = {
    "few blocks": {},
    "one block": {"multiprocessors": 1},
    "blocks without work": {"multiprocessors": 30},
    "any order": {"multiprocessors": 5, "seed": 7},
    "a chain of kernels": {"cooperative": 0},
}


def check_at_once(program: Path, chains: Sequence[Chain], **settings: int) -> None:
    given = {f"EDGEBNN_CUDA_{name.upper()}": str(value) for name, value in settings.items()}
    networks, images = [each.network for each in chains], [each.images for each in chains]
    batches = [(1, 2, 8, 11, 16)] * len(networks)
    cuda_programs.check_equal(program, networks, images, batches, {**os.environ, **given})


@pytest.mark.parametrize("level", ["popc", "mma"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_all_layers_at_once(level: str, settings: str, at_once_folder: Path) -> None:
    """One kernel for small batches, up to 16 images, or 11 of the long rows.

    It counts below ``mma``, and has the same products from there on.
    """
    most = [schedule(each.network).at_once for each in (dense_chain(1), long_rows())]
    assert [launch and launch.most for launch in most] == [16, 11]
    program, chains = at_once_program(NAMES.index(level), at_once_folder / level)
    check_at_once(program, chains, **SETTINGS[settings])


def test_all_layers_at_once_can_be_left_out(tmp_path: Path) -> None:
    chain = dense_chain(1)
    program = cuda_programs.build([chain.network], 0, tmp_path, "-DEDGEBNN_PERSISTENT=0")
    failing = {**os.environ, "EDGEBNN_CUDA_FAIL": "cudaLaunchCooperativeKernel"}
    failing["EDGEBNN_CUDA_FAIL_AT"] = "1"
    cuda_programs.check_equal(program, [chain.network], [chain.images], [(1, 16)], failing)


@pytest.mark.parametrize(
    ("what", "instead"),
    [
        ("grid_wait(r.barrier, op1_before);", "(void)op1_before;"),
        ("0x80000000u - (gridDim.x - 1)", "0x80000000u - gridDim.x"),
        ("blockIdx.x == 0 ? 0x80000000u", "blockIdx.x <= 1 ? 0x80000000u"),
    ],
    ids=["none", "one short", "two leaders"],
)
def test_a_wrong_barrier_shows(what: str, instead: str, tmp_path: Path) -> None:
    chain = dense_chain(128, 65)
    api.write(cuda_programs.library(chain.network, "k0"), tmp_path)
    source = tmp_path / "src" / "k0.cu"
    text = source.read_text()
    assert what in text
    source.write_text(text.replace(what, instead))
    program = cuda_programs.build([chain.network], 0, tmp_path, written=True)
    with pytest.raises(AssertionError, match=r"Arrays are not equal|deadlock: every block waits"):
        check_at_once(program, [chain])


def test_which_networks_have_all_layers_at_once() -> None:
    """Chains of dense layers, whose first takes integers, and of which an image fits."""
    for network in (conv_chain().network, sum_chain().network, first_scores().network):
        assert schedule(network).at_once is None
    chain = Chain(Ints(3, 3, 2, 8), 20)
    chain.signs()
    chain.dense(5, Scores)
    assert schedule(chain.network).at_once is None
    chain = Chain(Ints(1, 1, 24_577, 8), 1)
    chain.dense(2, Scores)
    assert schedule(chain.network).at_once is None


def test_chains_tell_images_apart() -> None:
    """A chain whose bits do not depend on the image would hide what is wrong with its layers."""
    for name, (make, _) in CHAINS.items():
        chain = make()
        scores = reference.run(chain.network, chain.images).scores
        assert len(np.unique(scores, axis=0)) == (2 if name == "one" else len(scores)), name


ERRORS = """
#include "net.cu"

#include <cstdio>
#include <cstdlib>

#define CHECK(what)                                              \\
    if (!(what)) {                                               \\
        std::fprintf(stderr, "line %d: %s\\n", __LINE__, #what); \\
        return 1;                                                \\
    }

static const char *const calls[] = {"cudaGetDevice", "cudaDeviceGetAttribute", "cudaMalloc",
    "cudaLaunchKernel", "cudaMemcpy", "cudaFuncSetAttribute", "cudaStreamSynchronize", "any"};

static const int batches[] = {70, 3}; /* layer by layer, and all at once */

static void fail(const char *call, unsigned at)
{
    cuda_model::settings.fail = call;
    cuda_model::settings.fail_at = at;
}

int main()
{
    static uint8_t inputs[NET_INPUT_BYTES * 70];
    static int32_t scores[NET_NUM_CLASSES * 70], expected[NET_NUM_CLASSES * 70], classes[70];
    const int invalid = cudaErrorInvalidValue;
    net *model = (net *)inputs;

    /* what cannot be created */
    CHECK(net_create(nullptr, 3) == invalid);
    for (int most : {0, -1, NET_MOST_IMAGES + 1}) {
        model = (net *)inputs;
        CHECK(net_create(&model, most) == invalid && model == nullptr);
    }

    /* calls that fail in create: it says so, and leaves nothing behind */
    for (const char *call : calls) {
        unsigned failures = 0;

        for (;; failures++) {
            model = (net *)inputs;
            fail(call, failures + 1);
            const int status = net_create(&model, 70);

            fail(nullptr, 0);
            if (status == 0) {
                break;
            }
            CHECK(model == nullptr && cuda_model::allocations() == 0);
            CHECK(status == invalid
                || (status == cudaErrorMemoryAllocation && (call == calls[2] || call == calls[7])));
            CHECK(cudaGetLastError() == cudaSuccess);
        }
        CHECK(cuda_model::allocations() == 2);
        net_destroy(model);
        CHECK(cuda_model::allocations() == 0);
        std::printf("%s %u\\n", call, failures);
    }

    /* what cannot be run */
    CHECK(net_create(&model, 70) == 0);
    for (int batch : {0, -1, 71}) {
        CHECK(net_scores(model, inputs, scores, batch, nullptr) == invalid);
        CHECK(net_predict(model, inputs, classes, batch, nullptr) == invalid);
    }
    CHECK(net_scores(nullptr, inputs, scores, 1, nullptr) == invalid);
    CHECK(net_scores(model, nullptr, scores, 1, nullptr) == invalid);
    CHECK(net_scores(model, inputs, nullptr, 1, nullptr) == invalid);
    CHECK(net_predict(nullptr, inputs, classes, 1, nullptr) == invalid);
    CHECK(net_predict(model, nullptr, classes, 1, nullptr) == invalid);
    CHECK(net_predict(model, inputs, nullptr, 1, nullptr) == invalid);

    /* calls that fail in scores and predict: they say so, and the next call is as ever */
    CHECK(net_scores(model, inputs, expected, 70, nullptr) == 0);
    for (int i = 0; i < 4; i++) {
        const int batch = batches[i / 2];
        unsigned failures = 0;

        for (;; failures++) {
            fail("any", failures + 1);
            const int status = i % 2 ? net_predict(model, inputs, classes, batch, nullptr)
                                     : net_scores(model, inputs, scores, batch, nullptr);

            fail(nullptr, 0);
            if (status == 0) {
                break;
            }
            CHECK(status == invalid);
        }
        std::printf("%s_%d %u\\n", i % 2 ? "predict" : "scores", batch, failures);
    }
    for (size_t i = 0; i < NET_NUM_CLASSES * 70; i++) {
        CHECK(scores[i] == expected[i]);
    }
    CHECK(cuda_model::allocations() == 2);
    net_destroy(model);
    net_destroy(nullptr);
    CHECK(cuda_model::allocations() == 0);
    std::printf("%s\\n", net_message(cudaErrorMemoryAllocation));
    return 0;
}
"""


def test_errors(tmp_path: Path) -> None:
    """Whatever call of CUDA fails, its error is returned and no memory is lost."""
    network = dense_chain(130).network
    api.write(cuda_programs.library(network, "net"), tmp_path)
    source, program = tmp_path / "src" / "errors.cpp", tmp_path / "errors"
    source.write_text(ERRORS)
    cuda_programs.compile_program(source, program, "-DEDGEBNN_LEVEL=3", *SANITIZERS)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *counts, message = done.stdout.splitlines()
    launches = [launch for step in schedule(network).steps for launch in step.layer.launches]
    started = sum(one.least <= 70 and (one.most is None or one.most >= 70) for one in launches)
    allowed = sum(any(grid.shared for grid in launch.grids) for launch in launches)
    wanted = {
        "cudaGetDevice": 1,
        "cudaDeviceGetAttribute": 2,
        "cudaMalloc": 2,
        "cudaLaunchKernel": 1,  # which asks for the level
        "cudaMemcpy": 2,
        "cudaFuncSetAttribute": allowed,
        "cudaStreamSynchronize": 1,
        "any": 9 + allowed,
        "scores_70": started + 1,
        "predict_70": started + 2,
        "scores_3": 2,
        "predict_3": 3,
    }
    assert dict(line.split() for line in counts) == {key: str(n) for key, n in wanted.items()}
    assert message == "out of memory"


C99 = """
#include <stdio.h>
#include <stdlib.h>

#include "net.h"

int main(void)
{
    static uint8_t inputs[2][NET_INPUT_BYTES];
    static int32_t scores[2][NET_NUM_CLASSES], classes[2];
    net *model = NULL;
    int status = net_create(&model, 2);

    if (status == 0) {
        status = net_scores(model, inputs[0], scores[0], 2, NULL);
    }
    if (status == 0) {
        status = net_predict(model, inputs[0], classes, 2, NULL);
    }
    printf("%s %d %d\\n", net_message(status), (int)scores[1][0], (int)classes[1]);
    net_destroy(model);
    return status;
}
"""


def test_the_header_is_c99(tmp_path: Path) -> None:
    """A C program calls the API; header and source have to be of one run."""
    network = dense_chain(33).network
    folder = tmp_path / "src"
    api.write(cuda_programs.library(network, "net"), tmp_path)
    (folder / "main.c").write_text(C99)
    main, net, program = folder / "main.o", folder / "net.o", folder / "program"
    command = ["gcc", *toolchain.WARNINGS, "-c", "-o", str(main), str(folder / "main.c")]
    subprocess.run(command, check=True)
    cuda_programs.compile_program(folder / "net.cu", net, "-c")
    subprocess.run(["g++", "-o", str(program), str(main), str(net)], check=True)
    done = subprocess.run([str(program)], capture_output=True, text=True, check=True)
    expected = reference.run(network, np.zeros((1, network.input_bytes), np.uint8))
    assert done.stdout == f"no error {expected.scores[0, 0]} {expected.classes[0]}\n"

    header = folder / "net.h"
    header.write_text(re.sub(r"_INTERFACE 0x.", "_INTERFACE 0x", header.read_text()))
    with pytest.raises(AssertionError, match="not of one run of edgebnn generate"):
        cuda_programs.compile_program(folder / "net.cu", net, "-c")


NAMES_INSIDE = (
    *("model", "run", "grid", "tables", "start", "check", "status", "inputs", "scores", "batch"),
    *("filled", "made", "images", "constants", "place", "best", "kernel"),
)


def test_any_name_will_do(tmp_path: Path) -> None:
    """A library may be called what something in its source is called; "model" is the default."""
    network = first_scores().network
    for name in NAMES_INSIDE:
        api.write(cuda_programs.library(network, name), tmp_path, force=True)
    source = tmp_path / "src" / "all.cpp"
    source.write_text("".join(f'#include "{name}.cu"\n' for name in NAMES_INSIDE))
    cuda_programs.compile_program(source, tmp_path / "all.o", "-c", "-O0")


def test_same_model_same_bytes() -> None:
    network = conv_chain().network
    files = cuda_programs.library(network, "net").files
    assert files == cuda_programs.library(network, "net").files
    assert list(files) == ["src/net.h", "src/net.cu"]


def test_only_kernels_that_are_needed() -> None:
    text = cuda.device_source(schedule(first_scores().network), "net_")
    assert "#include" not in text
    assert re.findall(r"(\w+)\(const run", text) == [
        *("direct", "best"),
        *("net_op0", "net_best", "net_level"),
    ]


def test_generate_writes_what_the_api_gives(tmp_path: Path) -> None:
    model = EXAMPLES / "mnist_tiny.pt"
    printed = output_here(
        tmp_path, "generate", model, "--target", "cuda", "--name", "digits", "-o", "digits"
    )
    assert "bytes of tables" in printed
    files = api.generate(model, target="cuda", name="digits").files
    written = tree(tmp_path / "digits")
    found = {Path(path).name: text for path, text in written.items() if text is not None}
    assert found == {Path(path).name: text.encode() for path, text in files.items()}
    assert "97." in files["src/digits.h"] or "accuracy" in files["src/digits.h"]


@pytest.mark.parametrize(
    "option",
    [
        ("--project", "elsewhere"),
        ("--format", "arduino"),
        ("--arena", "caller"),
        ("--first-layer", "bit-planes"),
        ("--optimize", "constant-time"),
        ("--self-test",),
    ],
    ids=lambda option: option[0],
)
def test_options_without_a_meaning_are_refused(option: tuple[str, ...], tmp_path: Path) -> None:
    folder = () if option[0] == "--project" else ("-o", "digits")
    line = mistake(
        tmp_path, "generate", EXAMPLES / "mnist_tiny.pt", "--target", "cuda", *folder, *option
    )
    assert f"target 'cuda' has no {option[0]}; leave it out" in line


@pytest.mark.parametrize(
    "command",
    [
        ("simulate", "--random", "3"),
        ("bench", "models"),
    ],
    ids=lambda command: command[0],
)
def test_commands_that_run_code_refuse(command: tuple[str, ...], tmp_path: Path) -> None:
    model = EXAMPLES / "mnist_tiny.pt"
    line = mistake(tmp_path, *command, model, "--target", "cuda")
    assert "edgebnn generate writes code for it, and edgebnn verify runs it; pick one" in line


def test_targets_names_it(tmp_path: Path) -> None:
    assert re.search(r"^cuda +NVIDIA GPUs +not emulated", output_here(tmp_path, "targets"), re.M)


@pytest.mark.parametrize("suffix", [".cu", ".h"])
def test_emitted_files_are_the_reviewed_ones(
    suffix: str, file_regression: FileRegressionFixture
) -> None:
    """All but the kernels themselves, which are templates as they are."""
    library = api.generate(NETWORKS["mlp"](), target="cuda", name="mlp")
    text = re.sub(
        r"(?<=namespace mlp_cuda \{\n).*?(?=struct dense1_layer)",
        "\n/* ... the kernels ... */\n\n",
        library.files[f"src/mlp{suffix}"],
        count=1,
        flags=re.DOTALL,
    )
    assert text.count("\n") < 700, "too long to read in review"
    path = GOLDEN / f"mlp_cuda{suffix}"
    file_regression.check(text, encoding="utf-8", newline="", fullpath=path, extension=suffix)
