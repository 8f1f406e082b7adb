"""The arena: nothing alive is ever overwritten; and the kernel table has no holes."""

import contextlib
import itertools
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import NARROW, PLAIN
from networks import random_levels_model, random_model, random_residual_model

import edgebnn.nn as bnn
from edgebnn import kernels
from edgebnn.bits import tensor_words
from edgebnn.codegen.env import resource_dir
from edgebnn.errors import EdgebnnError
from edgebnn.ir import (
    INPUT,
    Add,
    Binarize,
    Conv,
    Dense,
    Ints,
    MaxPool,
    Network,
    Scores,
    sha256,
    sources,
)
from edgebnn.lower import lower
from edgebnn.plan import Buffer, place, plan
from edgebnn.targets import TARGETS, Target, get_target

ALL = (*TARGETS.values(), NARROW)


@st.composite
def buffers(draw: st.DrawFn) -> Buffer:
    first = draw(st.integers(0, 9))
    return Buffer(draw(st.integers(1, 40)), first, draw(st.integers(first, 9)))


@given(st.lists(buffers(), max_size=12))
@settings(deadline=None)
def test_place_never_overlaps_what_lives_together(chosen: list[Buffer]) -> None:
    offsets, size = place(chosen)
    ends = [offset + buffer.words for offset, buffer in zip(offsets, chosen, strict=True)]
    assert min(offsets, default=0) >= 0
    assert size == max(ends, default=0)
    for i, j in itertools.combinations(range(len(chosen)), 2):
        a, b = chosen[i], chosen[j]
        if a.first <= b.last and b.first <= a.last:
            assert ends[i] <= offsets[j] or ends[j] <= offsets[i], (a, b)


@given(st.lists(buffers(), max_size=12))
@settings(deadline=None)
def test_arena_is_between_the_most_alive_and_the_total(chosen: list[Buffer]) -> None:
    _, size = place(chosen)
    alive = [sum(b.words for b in chosen if b.first <= t <= b.last) for t in range(10)]
    assert max(alive) <= size <= sum(b.words for b in chosen)


def test_buffers_that_never_meet_share_memory() -> None:
    offsets, size = place([Buffer(8, 0, 1), Buffer(4, 1, 2), Buffer(8, 2, 3)])
    assert offsets == [0, 8, 0]
    assert size == 12


def test_deep_network_takes_two_layers_of_memory_not_all() -> None:
    layers = [bnn.Input((64,), bits=1)]
    for _ in range(12):
        layers += [bnn.BinaryLinear(64, 64), bnn.Sign()]
    network = lower(bnn.Sequential(*layers, bnn.BinaryLinear(64, 2)))
    scheduled = plan(network, PLAIN)
    first, second = (step.view.scratch_words for step in scheduled.steps[:2])
    assert sum(tensor_words(step.result, 32) for step in scheduled.steps) == 12 * 2
    assert scheduled.arena_words == max(2 + first, 4 + second)


@pytest.mark.parametrize("build", [random_model, random_residual_model])
@pytest.mark.parametrize("target", ALL, ids=lambda target: target.name)
def test_every_layer_finds_its_input_intact(target: Target, build) -> None:
    """Replays the plans of random networks on a memory that knows who wrote each word last."""
    word = target.cpu.word_bits
    for seed in range(40):
        scheduled = plan(lower(build(seed)), target)
        writer: list[str | None] = [None] * scheduled.arena_words
        for step in scheduled.steps:
            names = sources(step.op)
            read = list(zip(names, step.source_offsets, step.sources, strict=True))
            written: list[tuple[str, int | None, int]] = [
                ("scratch", step.scratch_offset, step.view.scratch_words),
                (step.ops[-1].name, step.result_offset, tensor_words(step.result, word)),
            ]
            in_place = step.kernel.in_place and step.result_offset in step.source_offsets
            for _, offset, words in written:
                assert (offset is None) == (words == 0)
                if offset is not None and not in_place:
                    assert offset + words <= scheduled.arena_words
                    writer[offset : offset + words] = ["being written"] * words
            for name, offset, tensor in read:
                words = tensor_words(tensor, word)
                assert (offset is None) == (words == 0) == (name == INPUT)
                if offset is not None:
                    assert writer[offset : offset + words] == [name] * words, (seed, step.op.name)
            for name, offset, words in written:
                if offset is not None:
                    writer[offset : offset + words] = [name] * words
            for name, offset, words in written:
                if offset is not None:
                    assert writer[offset : offset + words] == [name] * words, (seed, step.op.name)


def test_addition_takes_the_place_of_the_sums_it_reads_last() -> None:
    layers = [bnn.Input((64,), bits=1), bnn.BinaryLinear(64, 64)]
    for _ in range(6):
        layers.append(bnn.Residual(bnn.Sign(), bnn.BinaryLinear(64, 64)))
    network = lower(bnn.Sequential(*layers, bnn.Sign(), bnn.BinaryLinear(64, 2)))
    scheduled = plan(network, PLAIN)
    first = scheduled.steps[0]
    for step in scheduled.steps:
        if isinstance(step.op, Add):
            assert step.source_offsets[0] == step.result_offset == first.result_offset
    # The shortcut and the sums to be added, 32 words each, and the bits between.
    scratch = first.view.scratch_words
    assert scheduled.arena_words == max(32 + 32 + 2, 32 + scratch)


def test_sums_that_a_later_op_reads_are_not_overwritten() -> None:
    """r + r is read beside r: the first addition must leave r where it is."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.input = bnn.Input((8,), bits=1)
            self.dense = bnn.BinaryLinear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            r = self.dense(self.input(x))
            return (r + r) + r

    dense, twice, thrice, _ = plan(lower(Net()), get_target("host")).steps
    assert twice.source_offsets == (dense.result_offset, dense.result_offset)
    assert twice.result_offset != dense.result_offset
    assert thrice.result_offset in (twice.result_offset, dense.result_offset)


TEMPLATES = resource_dir("templates") / "c"


def test_each_kernel_has_a_template_and_each_template_a_kernel() -> None:
    names = {path.name for path in (TEMPLATES / "kernels").iterdir()}
    assert names == {f"{kernel.name}.c.j2" for kernel in kernels.KERNELS}


def test_each_helper_is_called_by_some_network() -> None:
    left = {path.name for path in (TEMPLATES / "helpers").iterdir()}
    targets = (get_target("host"), PLAIN, NARROW, get_target("rv32imc"))
    makes = (random_model, random_levels_model, random_residual_model)
    head = bnn.Sequential(  # sums that are pooled
        bnn.Input((1, 8, 8), bits=8),
        *(bnn.BinaryConv2d(1, 32, 3), bnn.BatchNorm(32), bnn.Sign(levels=3)),
        *(bnn.BinaryConv2d(32, 32, 3), bnn.MaxPool2d(2), bnn.Flatten(), bnn.BinaryLinear(128, 3)),
    )
    abreast = bnn.Sequential(  # more outputs than a word has
        bnn.Input((1, 8, 8), bits=8),
        *(bnn.BinaryConv2d(1, 16, 3, padding=1), bnn.BatchNorm(16), bnn.Sign()),
        *(bnn.BinaryConv2d(16, 64, 3), bnn.BatchNorm(64), bnn.Sign()),
        *(bnn.BinaryConv2d(64, 64, 3), bnn.BatchNorm(64), bnn.Sign(), bnn.Flatten()),
        *(bnn.BinaryLinear(1024, 64), bnn.BatchNorm(64), bnn.Sign(), bnn.BinaryLinear(64, 3)),
    )
    for name in ("cortex-m55", "rv32imc"):
        for step in plan(lower(abreast.eval()), get_target(name)).steps:
            left -= {f"{helper}.c.j2" for helper in step.view.helpers}
    models = itertools.chain(
        [head.eval()], (make(seed) for seed, make in product(range(200), makes))
    )
    for network in map(lower, models):
        for target, prefer in product(targets, kernels.FIRST_LAYER.values()):
            with contextlib.suppress(EdgebnnError):
                for step in plan(network, target, prefer).steps:
                    left -= {f"{helper}.c.j2" for helper in step.view.helpers}
        if not left:
            break
    assert not left


CPUS = {(target.cpu.word_bits, target.cpu.features): target for target in ALL}


def test_every_kind_of_cpu_has_a_kernel_for_every_op() -> None:
    for seed, make in product(range(30), (random_model, random_residual_model)):
        network = lower(make(seed))
        for target in CPUS.values():
            plan(network, target)


def test_the_least_rank_is_taken_and_a_way_to_prefer_before_it() -> None:
    layers = (
        bnn.Input((8, 4, 3)),
        bnn.BinaryConv2d(8, 4, 3),
        bnn.Flatten(),
        bnn.BinaryLinear(8, 2),
    )
    network = lower(bnn.Sequential(*layers[:2], bnn.Sign(), *layers[2:]))
    target = PLAIN
    ranks = {kernel.way: kernel.rank for kernel in kernels.KERNELS if (Conv,) in kernel.runs}
    assert ranks["tree"] < ranks["subset_sums"] < ranks["bit_planes"]
    assert plan(network, target).steps[0].kernel.way == "tree"
    assert plan(network, get_target("avr")).steps[0].kernel.way == "subset_sums"
    assert plan(network, target, ("bit_planes",)).steps[0].kernel.way == "bit_planes"


def hidden(inputs: int, outputs: int) -> Network:
    layers = (bnn.Input((inputs,)), bnn.Sign(), bnn.BinaryLinear(inputs, outputs), bnn.Sign())
    return lower(bnn.Sequential(*layers, bnn.BinaryLinear(outputs, 2)))


def test_columns_are_taken_where_they_take_fewer_instructions() -> None:
    """By the words of outputs that there are, and whatever else is preferred."""
    for inputs, outputs, way in (
        (255, 23, "rows"),
        (225, 24, "columns"),
        (225, 32, "columns"),
        (225, 35, "rows"),
        (225, 36, "columns"),
        (224, 17, "rows"),
        (224, 18, "columns"),
        (224, 33, "columns"),
        (16400, 64, "columns"),
    ):
        step = plan(hidden(inputs, outputs), get_target("cortex-m4")).steps[1]
        assert step.kernel.way == way, (inputs, outputs)
        assert plan(hidden(inputs, outputs), get_target("avr")).steps[1].kernel.way == "rows"
    for target, prefer in product(("cortex-m0", "rv32imc"), ("rows", "columns")):
        kernel = plan(hidden(24, 40), get_target(target), (prefer,)).steps[1].kernel
        assert kernel.way == prefer


# --- the digest of a network ----------------------------------------------------------------------


def pooled(kernel: tuple[int, int], stride: tuple[int, int], name: str = "pool1") -> Network:
    never = np.zeros(1, dtype=np.bool_)
    weights = np.ones((1, 1, 1, 1), dtype=np.bool_)
    head = Scores(np.ones(1, np.int32), np.zeros(1, np.int32), 0)
    ops = (
        Binarize("binarize1", INPUT, np.zeros(1, np.int32), never),
        MaxPool(name, "binarize1", kernel, stride, never),
        Dense("dense1", name, weights, head),
    )
    return Network(Ints(11, 11, 1, 8), ops)


def test_digests_tell_networks_apart() -> None:
    """Also those whose numbers would be one string without what is between them."""
    shapes = [(1, 11), (11, 1), (11, 11), (1, 1)]
    digests = {sha256(pooled(kernel, stride)) for kernel in shapes for stride in shapes}
    assert len(digests) == len(shapes) ** 2


def test_digest_ignores_names_and_follows_sources() -> None:
    assert sha256(pooled((1, 1), (1, 1), "a")) == sha256(pooled((1, 1), (1, 1), "b"))
    network = pooled((11, 11), (1, 1))
    first, pool, last = network.ops
    past = replace(network, ops=(first, pool, replace(last, source="binarize1")))
    assert sha256(past) != sha256(network)
