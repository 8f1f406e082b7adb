"""Every kernel equals the oracle over shapes, heads and inputs that were chosen to break it.

All cases of :mod:`kernel_cases` are one program a target. What the cases meet is asserted as well,
so that nobody has to trust the enumeration; ``mutants.py`` shows that it finds faults.
"""

import platform
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import batches
import kernel_cases as enumeration
import numpy as np
import pytest
from kernel_cases import PAD_VALUES, WIDTHS, Case, cases
from numpy.typing import NDArray
from test_prepare import case as prepare_case
from test_prepare import library_of as prepared_library

from edgebnn import reference
from edgebnn.bits import Layout, image_words, layout, own_bits, pixel_words
from edgebnn.codegen import c
from edgebnn.codegen.env import resource_dir
from edgebnn.codegen.library import Library
from edgebnn.device import build, elf, host, qemu, simavr, toolchain, unicorn
from edgebnn.device.toolchain import Compiler
from edgebnn.ir import (
    Add,
    Binarize,
    Bits,
    Conv,
    Dense,
    DepthwiseConv,
    Ints,
    Levels,
    MaxPool,
    Op,
    Quantize,
    Raw,
    Sums,
    Threshold,
    fan_in,
    tensors,
)
from edgebnn.kernels import KERNELS
from edgebnn.kernels.base import BitsHead, LevelsHead, ScoresHead, SumsHead
from edgebnn.kernels.differences import Differences
from edgebnn.kernels.lane_heads import LaneHead
from edgebnn.plan import Step, plan
from edgebnn.targets import Target, get_target


def for_ops(*kinds: type[Op]) -> set[str]:
    return {kernel.name for kernel in KERNELS if kernel.runs[0][0] in kinds}


def reading(what: Layout) -> set[str]:
    return {kernel.name for kernel in KERNELS if what in kernel.reads}


# From these follows what a new kernel has to meet.
LEVEL_STRIPS = {"conv_level_delta", "conv_level_direct"}
STRIPS = {"conv_delta", "conv_direct"} | LEVEL_STRIPS
MASKED = {"conv_masked", "dense_masked"}
ONLY_BITS = {"conv_tree", "dense_columns", "dense_planes"} | STRIPS | MASKED
ALL_HEADS = for_ops(Dense, Conv) - ONLY_BITS
WEIGHTED = for_ops(Dense, Conv, DepthwiseConv)
WINDOWED = for_ops(Conv, DepthwiseConv, MaxPool) - STRIPS
PADDED = for_ops(Conv, DepthwiseConv) - STRIPS


POOLS_AND_SIGNS = MaxPool | Binarize | Quantize
BY_LANES = {kernel.name for kernel in KERNELS if kernel.way == "lanes"}


# With words of either size, of which the second has no multiplication either; and with vectors.
HOSTS = (enumeration.PLAIN, enumeration.NARROW, enumeration.WIDE)
on_hosts = pytest.mark.parametrize("target", HOSTS, ids=lambda target: target.name)


def program(target: Target, numbers: Sequence[int]):
    libraries = {n: enumeration.case_library(n, target) for n in numbers}
    return batches.program(libraries, target.name)


STRIDE = 5  # of cases that follow each other, which are much alike
PARTS = 6  # a compiler takes more than twice as long for a program twice as large


def part_of(numbers: Sequence[int], part: int, parts: int) -> list[int]:
    """Every how many-th; of the sizes that inputs have, so that their records are no larger."""
    by_size = sorted(numbers, key=lambda number: cases()[number].network.input_bytes)
    return np.array_split(by_size, parts)[part].tolist()


@on_hosts
@pytest.mark.parametrize("part", range(PARTS))
def test_on_this_computer(target: Target, part: int, tmp_path: Path) -> None:
    """Under sanitizers and as written: optimized code runs on the emulated CPUs."""
    numbers = enumeration.meant_for(target)
    if target is enumeration.WIDE:  # all else has the same code as without vectors
        numbers = by_lanes()
    numbers = part_of(numbers, part, PARTS)
    image = build.build_host(program(target, numbers), tmp_path, sanitize=True)
    wanted = enumeration.expected(numbers)
    assert enumeration.differing(host.run(image, wanted.records), wanted) == []


def by_lanes() -> list[int]:
    """The cases whose layer is computed by vectors."""
    layers = [
        (number, step.kernel.name)
        for number in enumeration.meant_for(enumeration.WIDE)
        for step in enumeration.planned(cases()[number], enumeration.WIDE).steps
        if step.op.name == "layer"
    ]
    return [number for number, name in layers if name in BY_LANES]


LEVELS = {  # of vectors: flags, and what the CPU must have to run what they make
    "native": (("-march=native",), set()),
    "x86-64": (("-march=x86-64",), {"sse2"}),
    "x86-64-v3": (("-march=x86-64-v3",), {"avx2", "bmi2", "fma"}),
    "avx512": (("-march=x86-64-v4", "-mavx512vpopcntdq"), {"avx512vl", "avx512_vpopcntdq"}),
}


def vectors_differ(flags: Sequence[str], compiler: Compiler, folder: Path, needed: set[str]):
    """Compiles the cases of lanes; labels of those that differ, if the CPU has what it needs."""
    numbers = [n for n in by_lanes() if cases()[n].prefer == enumeration.LANES][::5]
    given = replace(compiler, command=(*compiler.command, *flags))
    library = program(enumeration.WIDE, numbers)
    image = build.build_host(library, folder, optimize="-O3", compiler=given)
    if not needed <= cpu_has():
        return []
    wanted = enumeration.expected(numbers)
    return enumeration.differing(host.run(image, wanted.records), wanted)


def cpu_has() -> set[str]:
    """What this computer's CPU says that it has, in Linux's words; nothing where it is no x86."""
    if platform.machine() != "x86_64":
        return set()
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    return set(re.search(r"^flags\s*:(.*)$", text, re.M)[1].split())


@pytest.mark.parametrize("level", LEVELS if platform.machine() == "x86_64" else ["native"])
def test_vectors_of_every_width(level: str, tmp_path: Path) -> None:
    """One source, the same numbers; what this CPU cannot run compiles clean at least."""
    flags, needed = LEVELS[level]
    compiler = toolchain.find_compiler(enumeration.WIDE)
    assert vectors_differ(flags, compiler, tmp_path, needed) == []


def test_vectors_of_clang(tmp_path: Path) -> None:
    compilers = toolchain.find_compilers(enumeration.WIDE)
    clang = next(one for one in compilers if one.kind == "clang")
    assert vectors_differ(("-march=native",), clang, tmp_path, set()) == []


def test_lanes_without_vectors(tmp_path: Path) -> None:
    """For a compiler that has none: a lane is a word."""
    numbers = by_lanes()[::5]
    library = program(enumeration.WIDE, numbers)
    source = {path: text.replace("defined(__GNUC__)", "0") for path, text in library.files.items()}
    assert source != library.files
    image = build.build_host(replace(library, files=source), tmp_path, sanitize=True)
    wanted = enumeration.expected(numbers)
    assert enumeration.differing(host.run(image, wanted.records), wanted) == []


CPUS = ("cortex-m0", "cortex-m4", "rv32imc", "rv32ec")


@pytest.mark.parametrize("target_name", CPUS)
@pytest.mark.parametrize("part", range(2))
def test_on_emulated_cpus(target_name: str, part: int, tmp_path: Path) -> None:
    """Optimized: every case on one of the CPUs, in Unicorn and in QEMU."""
    target = get_target(target_name)
    numbers = enumeration.meant_for(target)[CPUS.index(target_name) :: len(CPUS)]
    numbers = part_of(numbers, part, 2)
    library, wanted = program(target, numbers), enumeration.expected(numbers)
    image = build.build_firmware(library, target, tmp_path)
    assert elf.undefined_symbols(image.model_object) == ()
    gaps = elf.footprint(image.path).arena_bytes - library.arena_bytes
    assert (
        0 <= gaps <= 4 * len(numbers)
    )  # gcc aligns an arena to 8 where it clears two words at once
    assert enumeration.differing(unicorn.run(image, wanted.records, counted=0), wanted) == []
    if target_name != "cortex-m0":  # the micro:bit's memory does not hold the program
        assert enumeration.differing(qemu.run(image, wanted.records), wanted) == []


def test_rows_on_a_cpu_that_counts_bits(tmp_path: Path) -> None:
    """Layers on bits by rows, in QEMU."""
    target = get_target("rv32imc-zbb")
    rows = [n for n in enumeration.meant_for(target) if cases()[n].prefer == ("rows",)]
    numbers = rows[::2]
    image = build.build_firmware(program(target, numbers), target, tmp_path)
    assert elf.undefined_symbols(image.model_object) == ()
    wanted = enumeration.expected(numbers)
    assert enumeration.differing(qemu.run(image, wanted.records), wanted) == []


def test_on_an_avr(tmp_path: Path) -> None:
    """Half of the cases and a third of their inputs, on an ATmega with much memory."""
    target = get_target("avr")
    machine = target.emulators[-1].machine
    room = 3 * machine.ram.size // 4
    sizes = {}
    for number in enumeration.meant_for(target)[::2]:  # of the other half the words are the same
        network = cases()[number].network
        arena = enumeration.planned(cases()[number], target).arena_bytes
        sizes[number] = arena + network.input_bytes
    too_large = [number for number, size in sizes.items() if size > room]
    assert len(too_large) <= 3
    left = sorted(set(sizes) - set(too_large), key=lambda number: sizes[number])
    while left:
        numbers = left[:12]  # whose tables have to lie in the first 64 kB of flash
        while sum(sizes[number] for number in numbers) > room:
            numbers.pop()
        left = left[len(numbers) :]
        wanted = enumeration.expected(numbers)
        wanted = wanted.of(np.arange(len(wanted.numbers)) % 3 == 0)
        image = build.build_firmware(program(target, numbers), target, tmp_path, machine=machine)
        assert elf.undefined_symbols(image.model_object) == ()
        outputs = simavr.run(image, wanted.records, counted=0)
        assert enumeration.differing(outputs, wanted) == []


# --- what the cases meet --------------------------------------------------------------------------


def layers(target: Target | None = None) -> Iterator[tuple[Case, Step]]:
    """Of one target, or with words of 32 bits of all kernels that there are."""
    for one in (enumeration.PLAIN, enumeration.WIDE) if target is None else (target,):
        for number in enumeration.meant_for(one):
            scheduled = enumeration.planned(cases()[number], one)
            step = next(step for step in scheduled.steps if step.op.name == "layer")
            if target is not None or (one is enumeration.WIDE) == (step.kernel.name in BY_LANES):
                yield cases()[number], step


def kernels_on(target: Target) -> set[str]:
    """Those that a test of one of the ``HOSTS`` asks for all."""
    every = {kernel.name for kernel in KERNELS}
    return BY_LANES if target is enumeration.WIDE else every - BY_LANES


def met(what, target: Target | None = None) -> dict[str, set[Any]]:
    """For each kernel all that ``what(case, step)`` yields."""
    seen: dict[str, set[Any]] = defaultdict(set)
    for case, step in layers(target):
        seen[step.kernel.name].update(what(case, step))
    return seen


def check(what, wanted: dict[str, set[Any]], target: Target | None = None) -> None:
    seen = met(what, target)
    missing = {name: items - seen[name] for name, items in wanted.items() if items - seen[name]}
    assert not missing


def test_every_kernel_at_both_sides_of_words() -> None:
    """Inputs of a dense layer, channels of what else there is; and outputs."""

    def inputs(_case, step):
        yield fan_in(step.op) if isinstance(step.op, Dense) else step.source.channels

    def outputs(_case, step):
        yield len(step.op.weights) if step.kernel.name in ALL_HEADS | ONLY_BITS else None

    check(inputs, {kernel.name: set(WIDTHS) for kernel in KERNELS})
    check(outputs, {name: set(WIDTHS) for name in ALL_HEADS | ONLY_BITS})


def test_every_width_of_input() -> None:
    check(
        lambda _case, step: [getattr(step.source, "bits", None)],
        {name: set(range(1, 9)) for name in reading(Layout.BYTES)},
    )


def test_every_window() -> None:
    """Of kernels that have one; padding where there can be any, also unequal and outside."""

    def sizes(_case, step):
        w = getattr(step.view, "window", None)
        if w is not None:
            yield "kernel", w.kernel_height, w.kernel_width
            yield "stride down", w.stride_y
            yield "stride right", w.stride_x
            yield "places", min(w.out_height, 2), min(w.out_width, 2)
            yield "padding", w.pad_top, w.pad_bottom, w.pad_left, w.pad_right

    wanted: set[Any] = {("kernel", *size) for size in enumeration.KERNELS}
    wanted |= {(way, stride) for way in ("stride down", "stride right") for stride in (1, 2, 3)}
    wanted |= {("places", y, x) for y in (1, 2) for x in (1, 2)}
    pads = {("padding", *pad) for pad in enumeration.PADDINGS}
    check(sizes, {name: wanted | (pads if name in PADDED else set()) for name in WINDOWED})


def test_every_strip() -> None:
    """Kernels, strides, padding as far as it can be, pools with what they drop, and their masks."""

    def sizes(_case, step):
        if step.kernel.name not in STRIPS:
            return
        w, view, s = step.view.window, step.view, step.view.strips
        tail = step.source.channels % 32 > 0
        yield "kernel", w.kernel_height, w.kernel_width
        yield "stride down", w.stride_y
        yield "stride right", w.stride_x
        yield "pool", s.pool_height, s.pool_width
        yield "pad", np.sign(w.pad_value) if w.padded else None, tail
        yield "top", min(w.pad_top, 2)
        yield "bottom", min(w.pad_bottom, 2)
        yield "sides", min(w.pad_left, 1), min(w.pad_right, 1), s.in_one_piece
        yield "one column", s.columns == 1
        yield "one row", s.rows == 1
        yield "dropped", s.rows < w.out_height, s.columns < w.out_width
        yield "ops", len(step.ops)
        if len(step.ops) > 1:
            mask = step.ops[1].all_set
            kind = "none" if not mask.any() else "all" if mask.all() else "some"
            yield "mask", kind, s.out_words > 1
        if isinstance(view, Differences):
            yield "relisted", min(w.pad_top, 2), view.relisted
        else:
            yield "overlap", min(view.overlap, 2), w.stride_y > w.kernel_height
        if step.kernel.name == "conv_direct":
            yield "kinds", min(view.kinds, 10)
        if step.kernel.name in LEVEL_STRIPS:
            yield "words", head_of(step), s.out.narrow, s.out_words > 1
            yield "planes", view.planes

    both: set[Any] = {("kernel", *size) for size in enumeration.DELTA_KERNELS}
    both |= {("stride right", stride) for stride in (1, 2, 3)}
    both |= {("pool", *size) for size in enumeration.POOLS}
    both |= {("pad", value, tail) for value in (-1, 1, None) for tail in (False, True)}
    both |= {(side, rows) for side in ("top", "bottom") for rows in (0, 1, 2)}
    both |= {("sides", *s, p) for s in ((0, 0), (0, 1), (1, 1)) for p in (False, True)}
    both |= {("one column", one) for one in (False, True)}
    both |= {("mask", kind, words) for kind in enumeration.MASKS for words in (False, True)}
    both |= {("ops", 1), ("ops", 2)}
    both |= {("dropped", *some) for some in ((0, 0), (0, 1), (1, 0), (1, 1))}
    delta = both | {("relisted", 0, 1), ("relisted", 0, 2), ("relisted", 1, 1), ("relisted", 2, 0)}
    direct = both | {("kernel", 1, 1), ("kernel", 1, 3), ("pad", 0, False), ("pad", 0, True)}
    direct |= {("one row", one) for one in (False, True)}
    direct |= {("stride down", stride) for stride in (1, 2, 3, 5)}
    direct |= {("overlap", *some) for some in ((0, False), (0, True), (1, False), (2, False))}
    direct |= {("kinds", 1), ("kinds", 3), ("kinds", 9), ("kinds", 10)}
    levels = {("planes", planes) for planes in (1, 2, 3)} | {
        ("words", f"{levels} levels{pooled}", *words)
        for levels, pooled in product((3, 7), ("", ", pooled"))
        for words in ((False, False), (False, True), (True, False), (True, True))
    }
    others = {("pad", pad, tail) for pad, tail in product((0, 1), (False, True))}
    level_direct = levels | {one for one in direct if one[0] not in ("kinds", "stride right")}
    wanted = {"conv_delta": delta, "conv_level_delta": delta | levels, "conv_direct": direct}
    wanted["conv_level_direct"] = level_direct
    for name in LEVEL_STRIPS:
        wanted[name] = wanted[name] - others
    check(sizes, wanted)


def test_every_width_of_words() -> None:
    """Pixels of one word and of several, read and written; rows of them with and without a tail."""

    def read(_case, step):
        for tensor in step.sources:
            if isinstance(tensor, Bits):
                own, words = own_bits(tensor, 32), pixel_words(tensor, 32)
                used = tensor.height * tensor.width * words * own
                yield own, words > 1
                yield "whole" if used == 32 * image_words(tensor, 32) else "tail"

    def written(_case, step):
        if isinstance(step.result, Bits):
            yield own_bits(step.result, 32), pixel_words(step.result, 32) > 1

    several = {(own, words) for own in (8, 16, 32) for words in (False, True)}
    on_bits = reading(Layout.ROWS) | reading(Layout.PLANES)
    check(read, dict.fromkeys(on_bits, several | {"whole", "tail"}))
    windows = on_bits & for_ops(Conv, DepthwiseConv, MaxPool)
    check(written, dict.fromkeys(windows | {"conv_tree", "binarize"}, several))


@on_hosts
def test_every_pad_value_beside_every_tail(target: Target) -> None:
    def pads(_case, step):
        w, channels = step.view.window, step.source.channels
        word = own_bits(step.source, target.cpu.word_bits)
        tail = "whole" if channels % word == 0 else "tail"
        if w.padded:
            yield int(np.sign(w.pad_value)), tail, "words" if channels > word else "word"

    wanted = {
        (pad, tail, words)
        for pad in PAD_VALUES
        for tail in ("whole", "tail")
        for words in ("word", "words")
    }
    seen = met(lambda case, step: pads(case, step) if hasattr(step.view, "window") else (), target)
    of_bits = reading(Layout.ROWS) | reading(Layout.PLANES)
    for name in PADDED & of_bits & kernels_on(target) - MASKED:
        assert wanted <= seen[name]
    if target is not enumeration.WIDE and target.cpu.word_bits == 32:
        assert {one for one in wanted if one[0] != 0} <= seen["conv_masked"]


def head_of(step: Step) -> str:
    """What the head of ``step`` does, as finely as its template tells."""
    view: Any = step.view
    if step.kernel.name in LEVEL_STRIPS:
        kind = f"{view.head.levels} levels" if view.head.kind == "levels" else view.head.kind
        return f"{kind}{', pooled' * view.head.pooled}"
    if step.kernel.name in ONLY_BITS:
        levels = step.op.head.min_dot
        return "bits" if levels.ndim == 1 else f"{len(levels)} levels"
    if step.kernel.name == "depthwise_sliced":
        return f"sums {view.sums.bits}" if view.sums else "bits"
    match view.head:
        case BitsHead(inverted=inverted):
            return "inverted bits" if inverted else "bits"
        case LevelsHead(inverted=inverted, rows=rows):
            return f"{'inverted ' if inverted else ''}{len(rows)} levels"
        case SumsHead(bits=bits):
            return f"sums {bits}"
        case ScoresHead(factors=True):
            types = {table.suffix: table.ctype for table in view.head.tables}
            return f"scores: {types['factor']} factors, {types['offset']} offsets"
        case ScoresHead(zero_factors=True):
            some = step.op.head.factor.any()
            return "scores: shifts and zeros" if some else "scores: no factors"
        case ScoresHead(shifts=True):
            return "scores: shifts"
        case ScoresHead(shift=shift) if shift:
            return "scores: one shift"
        case ScoresHead(offsets=True):
            return "scores: offsets"
    return "scores: plain"


SCORES = {
    "scores: plain",
    "scores: offsets",
    "scores: one shift",
    "scores: shifts",
    "scores: shifts and zeros",
    "scores: no factors",
    "scores: int16_t factors, int16_t offsets",
    "scores: int32_t factors, int32_t offsets",
}


@on_hosts
def test_every_head(target: Target) -> None:
    """Of every kernel; scores of the kernel for sums of either size."""

    def heads(_case, step):
        name = step.kernel.name
        if name == "score":
            yield f"{head_of(step)} of {step.view.bits}"
        elif name not in {"add"} | for_ops(MaxPool):
            yield head_of(step)

    there = {step.kernel.name for _case, step in layers(target)} & kernels_on(target)
    absent = {kernel.way for kernel in KERNELS if kernel.name in kernels_on(target) - there}
    assert absent <= set(enumeration.WAYS_OF_WORDS)
    wanted = {name: {"bits", "sums 16", "sums 32"} for name in (WEIGHTED - ONLY_BITS) & there}
    wanted |= {name: {"bits"} for name in ONLY_BITS & there}
    kinds = ("bits", "sums", "3 levels", "7 levels")
    both = {f"{kind}{pooled}" for kind in kinds for pooled in ("", ", pooled")}
    wanted |= dict.fromkeys(LEVEL_STRIPS & there, both)
    if "conv_tree" in there:
        wanted["conv_tree"] |= {"3 levels", "7 levels"}
    for name in ALL_HEADS & there:
        wanted[name] |= SCORES
    for name in (WEIGHTED - ONLY_BITS - {"depthwise_sliced"}) & there:
        wanted[name] |= {"3 levels", "7 levels"}
    if target.cpu.largest_array < 2**16:  # then so many taps take too large a table
        wanted["depthwise_sliced"].remove("sums 32")
    if target is enumeration.WIDE:
        for name in there & for_ops(Conv):
            wanted[name].add("inverted bits")
        check(heads, wanted, target)
        return
    wanted["binarize"] = {
        f"{inverted}{what}"
        for inverted in ("", "inverted ")
        for what in ("bits", "3 levels", "7 levels")
    }
    wanted["score"] = {f"{form} of {bits}" for form in SCORES for bits in (16, 32)}
    check(heads, wanted, target)


@on_hosts
def test_every_number_of_outputs_of_a_head(target: Target) -> None:
    """One, less than a word, whole words, and words with a tail; limits of either size."""
    seen: dict[str, set[str]] = defaultdict(set)
    word, limits = target.cpu.word_bits, set()
    for _case, step in layers(target):
        head = getattr(step.view, "head", None)
        if head is not None and not isinstance(head, LaneHead):
            n = head.outputs
            size = "one" if n == 1 else "few" if n < word else "tail" if n % word else "whole"
            seen[head.kind].add(size)
            limits |= {table.ctype for table in head.tables if table.suffix == "limits"}
    kinds = ("bits", "levels", "sums", "scores")
    assert all(seen[kind] == {"one", "few", "tail", "whole"} for kind in kinds)
    assert limits == {"int16_t", "int32_t"}


def test_every_kind_of_threshold() -> None:
    """Never, always, and a tie and a miss by one that the inputs do meet."""

    def kinds(case, step):
        if step.kernel.name not in (*WEIGHTED, "binarize"):
            return
        values, low, high = compared(case, step)
        for limits in limits_of(step.op):
            yield from ["never"] if (limits > high).any() else []
            yield from ["always"] if (limits <= low).any() else []
            yield from ["tie"] if (values == limits).any() else []
            yield from ["below"] if ((values < limits) & (limits - 2 <= values)).any() else []

    every = {"never", "always", "tie", "below"}
    check(kinds, dict.fromkeys((*WEIGHTED, "binarize"), every))


def limits_of(op: Op) -> list[NDArray[np.int32]]:
    """What an op compares with, level by level."""
    match op:
        case Binarize(minimum=minimum):
            return [minimum]
        case Quantize(minimum=minimum):
            return list(minimum)
    match getattr(op, "head", None):
        case Threshold(min_dot):
            return [min_dot]
        case Levels(min_dot):
            return list(min_dot)
    return []


def compared(case: Case, step: Step) -> tuple[NDArray[np.int64], int, int]:
    """What the layer compares with its limits, and the least and the largest that it could be."""
    network, op = case.network, step.op
    if isinstance(op, Binarize | Quantize):
        name = op.source
    else:
        before = network.ops[: [one.name for one in network.ops].index("layer")]
        network, name = replace(network, ops=(*before, replace(op, head=Raw()))), "layer"
    values = reference.trace(network, reference.check_inputs(network, case.inputs))[name]
    tensor = tensors(network)[name]
    if isinstance(tensor, Sums):
        return values, tensor.low, tensor.high
    assert isinstance(tensor, Ints)
    return values, 0, 2**tensor.bits - 1


@on_hosts
def test_every_pool_and_mask(target: Target) -> None:
    """OR, AND and both, where a pixel has one word and where it has more, and its own mask."""

    def masks(_case, step):
        op = step.ops[-1]
        mask = op.all_set if isinstance(op, MaxPool) else op.inverted
        kind = "all" if mask.all() and mask.size > 1 else "some" if mask.any() else "none"
        each = ", each pixel" if mask.ndim == 3 and mask.size > mask.shape[-1] else ""
        yield kind, ("words" if mask.shape[-1] > target.cpu.word_bits else "word") + each

    def only(case, step):
        return masks(case, step) if isinstance(step.ops[-1], POOLS_AND_SIGNS) else ()

    wanted = {(kind, words) for kind in enumeration.MASKS for words in ("word", "words")}
    own = {(kind, f"{words}, each pixel") for kind, words in wanted}
    pools = {"max_pool", "max_pool_levels"}
    pools |= {"conv_tree"} if target.cpu.word_bits == 32 else set()
    check(only, dict.fromkeys(pools, wanted) | {"binarize": wanted | own}, target)


def test_every_digit_of_levels_by_a_tree() -> None:
    """Pools and masks; thresholds that are equal: two, in the middle or not, and all of them."""

    def kinds(step):
        view: Any = step.view
        assert step.kernel.name == "conv_tree"
        mask = step.ops[-1].all_set if len(step.ops) > 1 else np.zeros(1, bool)
        kind = "none" if not mask.any() else "all" if mask.all() else "some"
        yield "pool", len(view.totals), "joined" if view.joined else "apart", kind
        yield "windows", "single" if view.single else "odd" if view.odd else "even"
        yield "words", len(view.words) > 1, view.out.bits
        yield "blank", any(part.blank for word in view.words for part in word.parts)
        for digit in (d for w in view.words for f in w.filters for d in f.digits):
            form = "above" if not digit.name else "XOR" if digit.origin else "afresh"
            yield "digit", len(view.totals), form
            yield "numbers", len(digit.reached)

    wanted: set[Any] = {("pool", rows, "joined", "some") for rows in (1, 2)}
    wanted |= {("pool", 2, "joined", kind) for kind in ("none", "all")}
    wanted |= {("pool", 1, "apart", "none"), ("pool", 2, "apart", "some")}
    wanted |= {("windows", windows) for windows in ("single", "odd", "even")}
    wanted |= {("words", False, bits) for bits in (8, 16, 32)} | {("words", True, 8)}
    wanted |= {("blank", False), ("blank", True)}
    wanted |= {("digit", rows, form) for rows in (1, 2) for form in ("above", "XOR", "afresh")}
    wanted |= {("numbers", count) for count in range(5)}
    seen = set()
    for case in enumeration.levels_by_tree():
        seen.update(kinds(enumeration.planned(case, enumeration.PLAIN).steps[0]))
    assert wanted - seen == set()


def test_every_addition() -> None:
    """All sizes of sums, over the source, over the other one, and beside both."""

    def kinds(_case, step):
        if not isinstance(step.op, Add):
            return
        view: Any = step.view
        yield "bits", view.source_bits, view.other_bits, view.bits
        over = [place == step.result_offset for place in step.source_offsets]
        yield "over", *over
        yield "odd", view.channels % 2, min(view.pixels, 2), view.bits

    wanted: set[Any] = {
        ("bits", 16, 16, 16),
        ("bits", 16, 16, 32),
        ("bits", 16, 32, 32),
        ("bits", 32, 16, 32),
        ("bits", 32, 32, 32),
        ("over", True, False),
        ("over", False, True),
        ("over", False, False),
        ("over", True, True),
    }
    wanted |= {("odd", odd, n, bits) for odd in (0, 1) for n in (1, 2) for bits in (16, 32)}
    check(kinds, {"add": wanted})


def test_rows_below_at_and_beyond_eight_words() -> None:
    """Trips of a carry-save tree and of what it leaves: none, one and more of each."""

    def trips(_case, step):
        if step.kernel.name in ("dense_rows", "dense_bit_planes"):
            view: Any = step.view
            words = getattr(view, "planes", view).row_words
            yield min(words // 8, 2), min(words % 8, 2)

    wanted = {(0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)}
    check(trips, {"dense_rows": wanted, "dense_bit_planes": wanted})

    def planes(_case, step):
        if step.kernel.name == "dense_bit_planes":
            words = step.view.planes.row_words
            yield step.source.bits, words >= 8, words % 8 > 0

    every = {(bits, *ends) for bits in range(1, 9) for ends in ((0, 1), (1, 0), (1, 1))}
    check(planes, {"dense_bit_planes": every})


def test_windows_with_none_some_and_all_taps_inside() -> None:
    """Counted one by one over the image and its padding."""
    seen = set()
    for _case, step in layers():
        w = getattr(step.view, "window", None)
        if w is None:
            continue
        rows, columns = (
            [
                sum(0 <= place * stride - pad + tap < size for tap in range(kernel))
                for place in range(places)
            ]
            for size, places, kernel, stride, pad in (
                (w.height, w.out_height, w.kernel_height, w.stride_y, w.pad_top),
                (w.width, w.out_width, w.kernel_width, w.stride_x, w.pad_left),
            )
        )
        taps = [row * column for row in rows for column in columns]
        seen |= {"none" if n == 0 else "all" if n == w.taps else "some" for n in taps}
    assert seen == {"none", "some", "all"}


def test_every_layout() -> None:
    """Every kernel reads all that it says it can, and nothing else."""
    seen = met(lambda _case, step: {layout(tensor) for tensor in step.sources})
    assert seen == {kernel.name: set(kernel.reads) for kernel in KERNELS}


def marked(library: Library) -> set[str]:
    """The comments of :func:`test_every_branch_of_every_template` in the source of ``library``."""
    (source,) = (text for path, text in library.files.items() if path.endswith(".c"))
    return set(re.findall(r"/\* c/\S+:\d+ \*/", source))


#: CPUs that find set bits by an instruction, by a product, and by neither; that count them; and
#: with vectors. By what a case prefers.
CPUS_OF_WAYS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("rows",): ("rv32imc-zbb",),
    ("masks",): ("cortex-m4", "cortex-m0", "rv32ec"),
    **dict.fromkeys(
        (("columns",), ("digit_columns",)),
        ("cortex-m4", "cortex-m0", "cortex-m55", "rv32ec", "rv32imc-zbb"),
    ),
}


def various_libraries() -> Iterator[Library]:
    """Of the cases and of what else there is, in an order that soon has some of all."""
    # What a library has beside its layers, and a CPU whose tables are in a space of their own.
    for target, options in (("avr", {"self_test": True}), ("host", {"caller_arena": True})):
        planned = enumeration.planned(cases()[0], get_target(target))
        yield c.generate(planned, "net", **options)
    # A CPU with prices, and inputs to count on.
    first = cases()[0]
    by_count = plan(first.network, get_target("cortex-m4"), samples=first.inputs[:2])
    yield c.generate(by_count, "net")
    # Preprocessing; weights of means are products, on a CPU that has none of a function.
    for target, image in (("host", (1, 8, 8)), ("host", (1, 7, 6)), ("rv32ec", (1, 7, 6))):
        yield prepared_library(*prepare_case(image, "resize 4", "gcn", shift=4), target)
    for start in range(STRIDE):
        for target in HOSTS:
            for number in enumeration.meant_for(target)[start::STRIDE]:
                yield enumeration.case_library(number, target)
        for number in range(start, len(cases()), STRIDE):
            names = CPUS_OF_WAYS.get(cases()[number].prefer, ())
            for name in names:
                yield enumeration.case_library(number, get_target(name))


def test_every_branch_of_every_template() -> None:
    """A comment behind each tag that opens a branch is printed in some case."""
    folder = resource_dir("templates")
    texts, marks = {}, set()
    for path in sorted((folder / "c").rglob("*.j2")):
        name = path.relative_to(folder).as_posix()
        if name.endswith(".h.j2"):
            continue

        def mark(match: re.Match[str], name: str = name) -> str:
            at = f"/* {name}:{match.start()} */"
            marks.add(at)
            return f"{match.group()}{at}\n"

        text = path.read_text(encoding="utf-8")
        texts[name] = re.sub(r"^\{%-? (?:if|elif|else|for)\b.*%\}\n", mark, text, flags=re.M)
    with enumeration.changed_templates(texts):
        for library in various_libraries():
            marks -= marked(library)
            if not marks:
                break
    assert not marks
