"""The one loop over backends: what it compares, and what it says where nothing is measured."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from networks import random_model
from rich.console import Console

from edgebnn import measure, report
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower
from edgebnn.reference import Outputs
from edgebnn.targets import get_target
from edgebnn.targets.base import Qemu


def trial_of(seed: int) -> measure.Trial:
    model = random_model(seed)
    network = lower(model)
    return measure.trial(model, network, measure.noise(network, 4))


def test_targets_in_order_with_their_costs(tmp_path: Path) -> None:
    trial, done = trial_of(1), []
    targets = [get_target("host"), get_target("cortex-m0")]
    host, chip = measure.run_on(
        trial, targets, tmp_path, counted=2, progress=lambda one, n: done.append((one.name, n))
    )
    assert (host.differing, chip.differing) == (0, 0)
    assert done == [("host", 4), *(("cortex-m0", n) for n in range(1, 5))]
    assert host.name.startswith("host C (")
    assert (host.instructions, host.stack_bytes, host.flash_bytes) == ((), None, None)
    assert chip.name == "emulated Cortex-M0"
    assert len(chip.instructions) == 2
    assert chip.arena_bytes == chip.library.arena_bytes


@pytest.mark.parametrize("target", ["host", "cortex-m4"])
def test_other_outputs_are_counted(target: str, tmp_path: Path) -> None:
    trial = trial_of(2)
    scores, classes = trial.expected.scores.copy(), trial.expected.classes.copy()
    scores[1, 0] += 1
    classes[3] += 1
    wrong = replace(trial, expected=Outputs(scores, classes))
    (result,) = measure.run_on(wrong, [get_target(target)], tmp_path, counted=1)
    assert result.differing == measure.run_reference(wrong).differing == 2


def test_a_machine_that_does_not_count(tmp_path: Path) -> None:
    """It still compares, and the table says what is not known."""
    target = get_target("cortex-m4")
    only = tuple(one for one in target.emulators if isinstance(one, Qemu))
    (chip,) = measure.run_on(trial_of(3), [replace(target, emulators=only)], tmp_path, counted=0)
    assert chip.differing == 0
    assert (chip.instructions, chip.stack_bytes) == ((), None)
    console = Console(width=100)
    with console.capture() as shown:
        console.print(report.chip_table(chip))
    assert shown.get().count("not measured") == 2


def test_a_target_that_nothing_runs() -> None:
    target = replace(get_target("cortex-m4"), emulators=())
    with pytest.raises(EdgebnnError, match="'cortex-m4' has no emulator"):
        measure.runner_of(target)


def test_noise_covers_the_range_of_the_input() -> None:
    network = lower(random_model(4))
    pixels = measure.noise(network, 400)
    assert pixels.max() == 2**network.input.bits - 1
    assert np.array_equal(pixels, measure.noise(network, 400))


@pytest.mark.parametrize("target", ["cortex-m0", "cortex-m4"])
@pytest.mark.parametrize("seed", [4, 5, 6])
def test_each_layer_has_its_instructions(target: str, seed: int, tmp_path: Path) -> None:
    """All layers and what calls them make the whole; the same layer takes the same anywhere."""
    trial = trial_of(seed)
    (chip,) = measure.run_on(trial, [get_target(target)], tmp_path, counted=1)
    assert list(chip.layer_instructions) == [op.name for op in trial.network.ops]
    assert min(chip.layer_instructions.values()) > 0
    outside = chip.instructions[0] - sum(chip.layer_instructions.values())
    classes = trial.network.num_classes
    assert 10 <= outside <= 60 + 12 * len(trial.network.ops) + 20 * classes


@pytest.mark.parametrize(("target", "what"), [("cortex-m0", "instructions"), ("avr", "cycles")])
def test_layers_are_the_mean_of_the_inputs_that_were_counted(
    target: str, what: str, tmp_path: Path
) -> None:
    """As the whole is, of which they are parts: three inputs, counted one by one and together."""
    trial = trial_of(8)
    singly = []
    for place in range(3):
        inputs, expected = trial.inputs[place : place + 1], trial.expected
        part = Outputs(expected.scores[place : place + 1], expected.classes[place : place + 1])
        (one,) = measure.run_on(
            replace(trial, inputs=inputs, expected=part), [get_target(target)], tmp_path, counted=1
        )
        singly.append(getattr(one, f"layer_{what}"))
    (chip,) = measure.run_on(trial, [get_target(target)], tmp_path, counted=3)
    layers = getattr(chip, f"layer_{what}")
    assert len({tuple(counts.values()) for counts in singly}) == 3
    assert layers == {name: sum(one[name] for one in singly) // 3 for name in layers}
    assert 0 < sum(layers.values()) < sum(getattr(chip, what)) / 3
    shown = Console(width=100)
    with shown.capture() as text:
        shown.print(report.chip_table(chip))
    shares = re.findall(r"\(([0-9.]+) %\)", text.get())
    assert len(shares) == len(layers)
    assert sum(map(float, shares)) == pytest.approx(100, abs=3)
