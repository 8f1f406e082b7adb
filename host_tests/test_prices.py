"""What is known before a compiler runs: instructions by prices, and kernels chosen by them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from networks import random_inputs, random_model
from test_cli import mistake, output_here

from edgebnn import choice, measure
from edgebnn.checkpoint import read
from edgebnn.codegen import c
from edgebnn.cost import code_and_stack
from edgebnn.device.build import build_firmware
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network, tensors
from edgebnn.lower import lower
from edgebnn.plan import Plan, plan
from edgebnn.prices import Prices, exhaustive, fit, prices_of
from edgebnn.prices.leveled import leveled
from edgebnn.prices.networks import masked, subject
from edgebnn.prices.printed import zeros
from edgebnn.prices.sizes import FRAMES, parts
from edgebnn.samples import device_rows
from edgebnn.targets import get_target
from edgebnn.wishes import Wishes, size

EXAMPLES = Path(__file__).parents[1] / "examples" / "models"
OFF = 0.15  # of the first five random networks; later ones are off by up to 0.3: docs/kernels.md


def example(name: str) -> tuple[Network, np.ndarray]:
    content = read(EXAMPLES / f"{name}.pt")
    network = lower(content.model)
    return network, measure.recorded(content, network)


def fits(found: fit.Checked, code_off: float) -> bool:
    """No input takes more, the stack is large enough, and code is about as said."""
    assert found.most is not None
    assert found.sizes is not None
    code, stack = found.sizes
    assert found.largest <= found.most
    assert found.stack_bytes <= stack
    return abs(code - found.code_bytes) < code_off * found.code_bytes + 30


@pytest.mark.parametrize("target", fit.TARGETS)
def test_predicted_is_counted(target: str, tmp_path: Path) -> None:
    """Instructions of example models within 2.5 %; of random networks half of them within 2 %."""
    chosen = get_target(target)
    for name in ("fashion_mlp", "mnist_tiny"):
        network, samples = example(name)
        scheduled = plan(network, chosen, samples=samples)
        found = fit.check(name, scheduled, samples[:6], tmp_path / name)
        assert abs(found.error) < 0.025, found
        assert fits(found, 0.04)
    errors = []
    for seed in range(5):
        model = random_model(seed)
        network = lower(model)
        inputs = device_rows(random_inputs(model, 4, seed).numpy(), network.input.channels)
        found = fit.check(f"{seed}", plan(network, chosen), inputs, tmp_path / f"{seed}")
        assert fits(found, 0.13)
        errors.append(abs(found.error))
        assert errors[-1] < OFF, found
    assert np.median(errors) < 0.02, errors


@pytest.mark.parametrize("target", fit.TARGETS)
def test_the_stack_of_a_tree_of_many_taps(target: str, tmp_path: Path) -> None:
    """90 words and more, of 5x5x3 taps and of 1x3x32; nearly all are on the stack at once."""
    for number in (1003, 1029):
        scheduled = fit.planned(masked(number), get_target(target))
        assert scheduled.steps[0].kernel.name == "conv_tree"
        image = build_firmware(
            c.generate(scheduled, "net"), scheduled.target, tmp_path / f"{number}", extra=(FRAMES,)
        )
        tree, beside = parts(scheduled, image)[0], parts(scheduled, image)[-1]
        found = code_and_stack(scheduled)
        assert found is not None
        assert tree.stack + beside.stack <= found[1] <= 1.3 * (tree.stack + beside.stack)


def counted(scheduled: Plan, samples: np.ndarray, folder: Path) -> float:
    rows, _, _ = fit.counted(scheduled, samples, folder)
    return sum(float(row.counts.mean()) for row in rows)


def test_the_choice_takes_fewer_instructions_than_rules(tmp_path: Path) -> None:
    network, samples = example("mnist_tiny")
    for target in fit.TARGETS:
        by_rules = plan(network, get_target(target))
        by_count = plan(network, get_target(target), samples=samples)
        assert by_rules.instructions is None
        assert [step.reason for step in by_rules.steps] == [""] * len(by_rules.steps)
        spent = [
            counted(one, samples[:4], tmp_path / f"{target}-{number}")
            for number, one in enumerate((by_rules, by_count))
        ]
        assert spent[1] < 0.98 * spent[0]


def test_the_choice_is_about_the_best_of_all_plans() -> None:
    """``edgebnn bench choice`` says so of 40 layers a target."""
    found = list(exhaustive.choices(get_target("cortex-m4"), 2))
    assert [one.ram is None for one in found] == [True, False] * 2
    assert all(0 <= one.over < 0.03 and one.plans >= 2 for one in found), found


def predicted(scheduled: Plan) -> float:
    return sum(float(step.instructions.mean()) for step in scheduled.steps)


def test_of_the_fastest_plans_it_is_that_of_the_least_ram() -> None:
    """Within 1 %, since predictions are no finer."""
    network, samples = example("mnist_tiny")
    target = get_target("cortex-m0")
    there = choice.options(network, tensors(network), target, (), Wishes(), samples)
    costs = [sum(one.cost for one in path) for path in choice.paths(network, there)]
    assert len(costs) > 20
    assert costs == sorted(costs)
    chosen = plan(network, target, samples=samples)
    assert predicted(chosen) <= 1.01 * costs[0]
    smaller = plan(network, target, wishes=Wishes(ram=chosen.arena_bytes - 1), samples=samples)
    assert predicted(smaller) > 1.01 * costs[0]
    network, samples = example("fashion_conv")  # where a pool by itself would be 0.3 % less
    assert plan(network, target, samples=samples).arena_bytes <= 3400
    assert chosen.instructions is not None
    assert len(chosen.instructions) == len(samples)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("rv32imc", [[2, 2], [2, 1]]),
        ("cortex-m55", [[2, 4], [2, 1]]),
        ("cortex-m4", [[1, 1], [1, 1]]),
    ],
)
def test_little_ram_has_a_word_after_the_other(target: str, words: list[list[int]]) -> None:
    """A layer whose counters take too much RAM keeps its kernel; all others are as they were."""
    network, samples = example("fashion_conv")
    usual = plan(network, get_target(target), samples=samples)
    ram = usual.arena_bytes - (words[0] != words[1])
    small = plan(network, get_target(target), wishes=Wishes(ram=ram), samples=samples)
    assert [one.kernel.name for one in small.steps] == [one.kernel.name for one in usual.steps]
    assert [
        [one.view.strips.abreast.words for one in each.steps if hasattr(one.view, "strips")]
        for each in (usual, small)
    ] == words
    assert small.arena_bytes <= 3400


@pytest.mark.parametrize("target", ["avr", "host", "cortex-m4"])
@pytest.mark.parametrize("samples", [True, False])
def test_memory_that_there_is(target: str, samples: bool) -> None:
    network, recorded = example("mnist_tiny")
    given, chosen = recorded if samples else None, get_target(target)
    says = r"no plan of the network fits; it takes at least --ram (\d+)"
    with pytest.raises(EdgebnnError, match=says) as refused:
        plan(network, chosen, wishes=Wishes(ram=4), samples=given)
    least = int(str(refused.value).split()[-1])
    usual = plan(network, chosen, samples=given)
    for ram in {least, (least + usual.arena_bytes) // 2, usual.arena_bytes}:
        found = plan(network, chosen, wishes=Wishes(ram=ram), samples=given)
        assert found.arena_bytes <= ram
    assert [step.kernel for step in found.steps] == [step.kernel for step in usual.steps] or (
        found.arena_bytes < usual.arena_bytes
    )
    assert least < usual.arena_bytes or target != "cortex-m4"
    with pytest.raises(EdgebnnError, match=says):
        plan(network, chosen, wishes=Wishes(ram=least - 1), samples=given)


def test_flash_and_size() -> None:
    network, samples = example("mnist_tiny")
    target = get_target("cortex-m4")
    there = choice.options(network, tensors(network), target, (), Wishes("size"), samples)
    costs = [sum(one.cost for one in path) for path in choice.paths(network, there)]
    small = plan(network, target, wishes=Wishes("size"), samples=samples)
    taken = sum(step.kernel.code(step.view) for step in small.steps) + small.constant_bytes
    assert taken == int(min(costs))
    wishes = Wishes(flash=taken)
    assert plan(network, target, wishes=wishes, samples=samples).constant_bytes <= taken
    with pytest.raises(EdgebnnError, match=r"it takes at least --flash \d+$"):
        plan(network, target, wishes=Wishes(flash=100))
    with pytest.raises(EdgebnnError, match=r"at least --ram \d+ with --flash \d+$"):
        plan(network, target, wishes=Wishes(ram=10, flash=10))


def test_sizes() -> None:
    assert [size(text) for text in (None, "16k", "2K", "20000")] == [None, 16384, 2048, 20000]
    for text in ("", "0", "16kB", "-1", "1.5k", "9999999999"):
        with pytest.raises(EdgebnnError, match="give bytes, as in 20000, or 16k"):
            size(text)


def test_without_prices_rules_decide() -> None:
    network, samples = example("mnist_tiny")
    assert prices_of("avr") is None
    for target in ("avr", "host"):
        plans = [plan(network, get_target(target), samples=given) for given in (None, samples)]
        kernels = [[step.kernel.name for step in one.steps] for one in plans]
        assert kernels[0] == kernels[1]
        assert plans[1].instructions is None


def test_what_is_preferred_is_taken() -> None:
    network, samples = example("mnist_tiny")
    taken = plan(network, get_target("cortex-m4"), ("rows",), samples=samples)
    assert {step.kernel.way for step in taken.steps} <= {"tree", "rows", "direct"}


def test_constant_time_by_count() -> None:
    network, samples = example("fashion_mlp")
    wishes = Wishes("constant-time")
    found = plan(network, get_target("cortex-m0"), wishes=wishes, samples=samples)
    assert all(step.kernel.constant_time for step in found.steps)
    assert found.instructions is not None
    assert found.instructions.max() - found.instructions.min() < 1e-6


def test_networks_to_fit_on_have_a_number_for_good() -> None:
    for make, number in ((subject, 0), (subject, 1), (subject, 2), (leveled, 0), (leveled, 1)):
        one, other = make(number), make(number)
        assert np.array_equal(one.inputs, other.inputs)
        assert [op.name for op in one.network.ops] == [op.name for op in other.network.ops]


def without(known: Prices, kernel: str) -> Prices:
    """Prices that were fitted on networks without a kernel."""

    def others(named: Mapping[str, Any]) -> dict[str, Any]:
        return {name: one for name, one in named.items() if not name.startswith(kernel)}

    tables = (known.of, known.above, known.code, known.stack)
    return Prices(known.compiler, *map(others, tables))


def test_prices_of_a_kernel_that_comes_later() -> None:
    """Nobody knows what it takes before, and what others take stays as it is."""
    target = get_target("cortex-m4")
    known = prices_of(target.name)
    assert known is not None
    known = without(known, "conv_level_rows")
    steps = fit.planned(leveled(22), target).steps
    step = next(one for one in steps if one.kernel.way == "level_rows")
    read = tuple(zeros(one) for one in step.sources)
    assert known.layer(step.kernel, step.view, read, target.cpu) is None
    assert known.most(step.kernel, step.view, step.sources, target.cpu) is None
    found = fit.measured(target, [leveled(22)])
    made = fit.fitted(found, known)
    assert made.of.items() >= known.of.items()
    for before, now in ((known.code, made.code), (known.stack, made.stack)):
        assert all(now[kernel].items() >= prices.items() for kernel, prices in before.items())
    (row,) = (one for one in found.rows if one.what == step.kernel.name)
    predicted = made.sum(row.trips, len(row.counts))
    np.testing.assert_allclose(predicted, row.counts, rtol=0.03)
    most = made.most(step.kernel, step.view, step.sources, target.cpu)
    assert most is not None
    assert most >= row.counts.max()


def test_commands_say_it(tmp_path: Path) -> None:
    model = EXAMPLES / "fashion_mlp.pt"
    text = output_here(tmp_path, "info", model)
    assert "mean of the 32 recorded samples" in " ".join(text.split())
    text = output_here(tmp_path, "generate", model, "-o", "lib", "--ram", "8k")
    said = re.search(r"([\d ]+) instructions an inference are predicted", text)
    assert said
    most = re.search(r"at most ([\d ]+) instructions for any input", text)
    assert most
    source = (tmp_path / "lib" / "src" / "fashion_mlp.c").read_text()
    assert f" * at most   {most[1]} instructions for any input, with arm-none-eabi-gcc" in source
    assert f" * time      {said[1].strip()} instructions, predicted for sample inputs" in source
    assert re.search(r"/\* [\d ]+ instructions on sample inputs, [\d ]+ by masks \*/", source)
    message = mistake(tmp_path, "info", model, "--ram", "much")
    assert "'much' is no size" in message
    message = mistake(tmp_path, "generate", model, "-o", "lib2", "--ram", "100")
    assert "no plan of the network fits; it takes at least --ram" in message
