"""Comparisons and frontiers: from the command line to table, plot and raw results."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import EXAMPLES
from PIL import Image
from test_cli import mistake, output_here, run_here, tree

from edgebnn.errors import EdgebnnError
from edgebnn.files import only_writer
from edgebnn.study import compare, frontier, plots, tables
from edgebnn.train import get_recipe, load_dataset

STEM = "digits-mlp-16k"
COMPARE = [
    "compare",
    "digits",
    "--recipe",
    "mlp-16k",
    "--epochs",
    "1",
    "--device",
    "cpu",
    "-o",
    "c",
]
CROSS = ["--variant", "cross-entropy"]
ROOT = Path(__file__).resolve().parent.parent


def content(folder: Path, stem: str = STEM) -> dict[str, Any]:
    text = (folder / "c" / f"{stem}.json").read_text()
    value: dict[str, Any] = json.loads(text)
    return value


def without_times(value: dict[str, Any]) -> dict[str, Any]:
    for entry in value["entries"]:
        for run in entry["runs"]:
            assert run.pop("seconds") > 0
            assert len(run.pop("epoch_seconds")) == 1
    return value


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two variants with two seeds each, and what was printed beside them."""
    folder = tmp_path_factory.mktemp("compared")
    text = output_here(folder, *COMPARE, *CROSS)
    (folder / "printed").write_text(text)
    return folder


def test_all_runs_are_there(compared: Path) -> None:
    value = content(compared)
    assert value["seeds"] == [0, 1]
    assert (value["data"]["dataset"], value["data"]["test_images"]) == ("digits", 355)
    assert value["environment"]["processor"]
    assert [entry["label"] for entry in value["entries"]] == ["base", "cross-entropy"]
    for entry in value["entries"]:
        assert entry["epochs"] == entry["settings"]["epochs"] == 1
        assert [run["seed"] for run in entry["runs"]] == [0, 1]
        for run in entry["runs"]:
            assert run["test_accuracy"] == run["test_correct"] / 355
            assert 0.4 < run["test_accuracy"] < 1.0
            assert 0.0 < run["validation_accuracy"] <= 1.0
            assert (run["flash_bytes"], run["error"]) == (3840, "")
    assert value["entries"][1]["settings"]["loss"] == "cross_entropy"
    printed = (compared / "printed").read_text()
    assert re.findall(r"^ *(\d)/4  mlp-16k, (.+), seed (\d): test", printed, re.M) == [
        ("1", "base", "0"),
        ("2", "cross-entropy", "0"),
        ("3", "base", "1"),
        ("4", "cross-entropy", "1"),
    ]


def test_the_table_says_what_the_runs_say(compared: Path) -> None:
    means = {}
    for entry in content(compared)["entries"]:
        accuracies = [100 * run["test_accuracy"] for run in entry["runs"]]
        means[entry["label"]] = sum(accuracies) / 2
    table = (compared / "c" / f"{STEM}.md").read_text()
    assert f"| **base** | **{means['base']:.2f} %** |" in table
    assert f"| cross-entropy | {means['cross-entropy']:.2f} % |" in table
    assert f"| {means['cross-entropy'] - means['base']:+.2f} |" in table
    assert "3 840 B" in table
    assert "- cross-entropy: `loss` = cross_entropy" in table
    for wrong in ("Unfinished", "Failed", "nan"):
        assert wrong not in table


def test_the_plot_is_one_and_is_the_same_again(compared: Path) -> None:
    path = compared / "c" / f"{STEM}.png"
    with Image.open(path) as image:
        assert image.size[0] == 1280
        assert len(np.unique(np.asarray(image.convert("L")))) > 2
        assert "Software" not in image.info
    before = tree(compared / "c")
    output_here(compared, "redraw", f"c/{STEM}.json")
    assert tree(compared / "c") == before


def test_redraw_with_another_title(compared: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes((compared / "c" / f"{STEM}.json").read_bytes())
    text = output_here(tmp_path, "redraw", "x.json", "--title", "Digits | $1$")
    assert text.split() == ["x.json", "x.md", "x.png"]
    assert (tmp_path / "x.md").read_text().startswith("# Digits | $1$\n")


def test_what_is_there_is_not_trained_again(
    compared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "train", None)
    before = tree(compared / "c")
    assert "4 of them are in" in output_here(compared, *COMPARE, *CROSS)
    assert tree(compared / "c") == before


def test_a_comparison_has_one_writer(tmp_path: Path) -> None:
    """Two would each write the file without the other's runs."""
    (tmp_path / "c").mkdir()
    with only_writer(tmp_path / "c" / f"{STEM}.json"):
        done = run_here(tmp_path, *COMPARE, *CROSS)
    assert done.returncode == 1
    assert f"c/{STEM}.json is being written by another edgebnn" in done.stderr
    assert done.stderr.count("\n") == 1
    assert list((tmp_path / "c").iterdir()) == []


def test_an_interrupted_comparison_goes_on(
    compared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, calls = compare.train, []

    def interrupted(*args: Any, **options: Any) -> Any:
        calls.append(options["seed"])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(*args, **options)

    monkeypatch.setattr(compare, "train", interrupted)
    done = run_here(tmp_path, *COMPARE, *CROSS)
    assert done.returncode == 130
    assert done.stderr == (
        f"edgebnn: stopped; c/{STEM}.json holds 2 of 4 runs, the same command goes on\n"
    )
    assert "Unfinished: 2 of 4 runs" in (tmp_path / "c" / f"{STEM}.md").read_text()
    assert {path.name for path in (tmp_path / "c").iterdir()} == {
        f"{STEM}.{kind}" for kind in ("json", "md", "png")
    }
    output_here(tmp_path, *COMPARE, *CROSS)
    assert calls == [0, 0, 1, 1, 1]
    assert without_times(content(tmp_path)) == without_times(content(compared))


def test_seeds_and_variants_may_be_added(compared: Path, tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / f"{STEM}.json").write_bytes((compared / "c" / f"{STEM}.json").read_bytes())
    more = ("--seeds", "3", "--variant", "shift norm")
    text = output_here(tmp_path, *COMPARE, *more, *CROSS)
    assert "3 variants, 3 seeds: 9 runs, 4 of them are in" in text
    assert len(re.findall(r"^ *\d/9 ", text, re.M)) == 5
    assert [len(entry["runs"]) for entry in content(tmp_path)["entries"]] == [3, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((*COMPARE, *CROSS, "--epochs", "2"), "it has epochs 1, this one 2"),
        ((*COMPARE, *CROSS, "--seeds", "1"), "it has 2 seeds, this one 1"),
        ((*COMPARE, "--variant", "Bop"), "it has mlp-16k's variant 'cross-entropy', this one does"),
        (
            (*COMPARE, "--variant", "cross-entropy: sign=swish"),
            "it has mlp-16k's 'cross-entropy' with sign ste, this one swish",
        ),
    ],
)
def test_another_comparison_is_refused(
    arguments: tuple[str, ...], reason: str, compared: Path
) -> None:
    message = mistake(compared, *arguments)
    assert reason in message
    assert "give another -o, or delete it" in message


@pytest.mark.parametrize(
    ("variant", "reason"),
    [
        ("slower", "'slower' is no variant; write 'label: key=value, key=value', or one of: base;"),
        (": sign=swish", "has no label"),
        ("x: sign", "variant 'x': 'sign' is no setting; write key=value"),
        ("x: sign=swish, sign=ste", "variant 'x' has a setting twice"),
        ("x: sing=swish", "unknown setting 'sing'; do you mean sign?"),
        ("x: sign=sharp", "sign is 'sharp'; pick of: ste"),
        ("x: epochs=3", "variant 'x' cannot change epochs"),
        ("base: sign=swish", "variant 'base' is there twice"),
    ],
)
def test_a_variant_that_cannot_be_read(variant: str, reason: str, tmp_path: Path) -> None:
    assert reason in mistake(tmp_path, *COMPARE, "--variant", variant)


def test_a_variant_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = ("--variant", "too | deep: network=32C3-MP4-MP4", "--variant", "float: binary=false")
    done = run_here(tmp_path, *COMPARE, "--seeds", "1", *bad)
    assert done.returncode == 1
    assert done.stderr.startswith("edgebnn: 1 of 3 runs failed; c/digits-mlp-16k.md says why")
    table = (tmp_path / "c" / f"{STEM}.md").read_text()
    assert r"| too \| deep | failed | – | – | – | – |" in table
    assert "Failed: 1 of 3 runs." in table
    assert re.search(r"^- too \| deep, seed 0: 'MP4' in '32C3-MP4-MP4' does not fit", table, re.M)
    assert re.search(r"^\| float \| [\d.]+ % \| .* \| – \|$", table, re.M)  # no flash


def test_without_matplotlib_there_are_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = run_here(tmp_path, *COMPARE, "--seeds", "1", "--variant", "base")
    assert done.returncode == 1
    assert done.stderr == "edgebnn: plots need matplotlib: pip install 'edgebnn[plot]'\n"
    assert {path.suffix for path in (tmp_path / "c").iterdir()} == {".json", ".md"}
    with pytest.raises(EdgebnnError, match="pip install"):
        plots.dot_plot(tmp_path / "x.png", [], title="", axis="")


def test_default_variants_are_settings_there_are() -> None:
    dataset = load_dataset("digits")
    for name in ("mlp-32k", "conv-16k", "mnist-tiny-3k"):
        comparison = compare.prepare(dataset, [get_recipe(name)], epochs=2)
        assert len(comparison.entries) >= 12
        assert comparison.entries[0].label == "base"
        settings = [entry.settings for entry in comparison.entries]
        assert all(one not in settings[:place] for place, one in enumerate(settings))


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"format": "edgebnn comparison"}', "no"])
def test_redraw_refuses_what_is_no_result(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    assert "x.json" in mistake(tmp_path, "redraw", "x.json")
    (tmp_path / "x.json").unlink()
    assert "cannot read x.json" in mistake(tmp_path, "redraw", "x.json")


# --- frontier -----------------------------------------------------------------------------------

POINTS = """
label = "others"
source = "a test"
dataset = "fashion-mnist"
costs = "clock cycles elsewhere"
[[points]]
network = "dense"
accuracy = 85
bytes = 5_000
cycles = 90_000
"""
MODELS = sorted(EXAMPLES.glob("fashion_*.pt"))
FRONTIER = ["frontier", *MODELS, "--inputs", "1", "-o", "f", "--against", "points.toml"]


def test_frontier_of_the_example_models(tmp_path: Path) -> None:
    (tmp_path / "points.toml").write_text(POINTS)
    text = output_here(tmp_path, *FRONTIER)
    value = json.loads((tmp_path / "f" / "frontier.json").read_text())
    assert [model["name"] for model in value["models"]] == [path.stem for path in MODELS]
    table = (tmp_path / "f" / "frontier.md").read_text()
    assert table in text
    for model in value["models"]:
        assert (model["inputs"], model["seed"]) == ("1 random input", 0)
        assert model["least"] == model["instructions"] == model["most"] > 100_000
        assert f"| {100 * model['test_accuracy']:.2f} % |" in table
        assert f"| {model['recipe']} | 0 |" in table
    assert "| dense | 85 % | 15.00 % | 5 000 B | 90 000 |" in table
    found = frontier.Frontier.from_json((tmp_path / "f" / "frontier.json").read_text(), "")
    axis = tables.frontier_axes(found)[1]
    assert "edgebnn: instructions on Arm Cortex-M0" in axis
    assert "others: clock cycles elsewhere" in axis
    before = tree(tmp_path / "f")
    assert ".png" in output_here(tmp_path, "redraw", "f/frontier.json")
    assert tree(tmp_path / "f") == before


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ("fashion-mnist", "mnist", "'others' is on mnist"),
        ("cycles = 90_000", "", "point 1 has no usable 'cycles'"),
        ("accuracy = 85", "accuracy = 100", "accuracy is above 0 and below 100 %"),
        ("[[points]]", "[points]", "has no usable 'points'"),
        ("[[points]]", "[[points", "is not TOML"),
    ],
)
def test_points_that_cannot_be_read(before: str, after: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "points.toml").write_text(POINTS.replace(before, after))
    assert reason in mistake(tmp_path, *FRONTIER)


def test_models_of_two_data_sets_are_not_compared(tmp_path: Path) -> None:
    reason = mistake(tmp_path, "frontier", *sorted(EXAMPLES.glob("*.pt")), "--inputs", "1")
    assert "mnist_tiny.pt is on mnist, " in reason
    assert reason.endswith("compare error rates on one data set\n")


def test_published_points_are_readable() -> None:
    published = frontier.read_points(ROOT / "docs" / "frontier_ch32v002.toml")
    assert published.dataset == "mnist"
    assert [point.network for point in published.points].count("dense") == 2
    assert max(point.accuracy for point in published.points) == 99.55


def test_labels_do_not_cover_each_other() -> None:
    box = plots.frontier._label_box(0, 0, 10, 0, 7, "center", "bottom")
    other = plots.frontier._label_box(0, 0, 10, 0, -7, "center", "top")
    assert plots.frontier._covered(box, [other]) == 0
    assert plots.frontier._covered(box, [box]) > 0
