"""Tables of numbers: read from .csv and .npz, made bytes in integers, emitted with their rule."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import virtual_board
from test_cli import mistake, output_here
from test_datasets import empty_cache, refusal
from test_model_files import plain

import edgebnn
import edgebnn.nn as bnn
from edgebnn.data import Column, load_dataset
from edgebnn.data.columns import fit
from edgebnn.device.toolchain import find_compiler
from edgebnn.errors import EdgebnnError
from edgebnn.targets import get_target
from edgebnn.train import get_recipe, train

__all__ = ["empty_cache"]  # a fixture that every test here gets

FAST = ("--recipe", "mlp-16k", "--set", "network=16FC", "--set", "batch_size=16")
TRAIN = (*FAST, "--epochs", "8", "-o", "model.pt")


def sensor(seed: int = 0, count: int = 90) -> tuple[np.ndarray, list[str]]:
    """Numbers of three kinds of gesture, on scales of their own."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(count) % 3
    values = rng.normal(0, 0.3, (count, 4)) + np.eye(3, 4)[kinds] * 2
    values = values * (0.001, 1.0, 1000.0, 50.0) + (0.0, -3.5, 1e6, 0.25)
    return np.round(values, 6), [("rest", "tap", "wave")[kind] for kind in kinds]


def written(path: Path, seed: int = 0, names: Sequence[str] = ("t", "ax", "gyro", "m")) -> str:
    values, labels = sensor(seed)
    rows = [",".join(map(repr, row)) for row in values.tolist()]
    lines = [f"{row},{label}" for row, label in zip(rows, labels, strict=True)]
    path.write_text("\n".join([",".join([*names, "kind"]), *lines]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sensors.csv, a model of it, and what its training printed."""
    folder = tmp_path_factory.mktemp("sensors")
    written(folder / "sensors.csv")
    (folder / "printed").write_text(output_here(folder, "train", "sensors.csv", *TRAIN))
    return folder


# --- from training to C -------------------------------------------------------------------------


def test_table_trains_and_is_proved(trained: Path) -> None:
    text = (trained / "printed").read_text()
    taken = (
        f"sensors ({trained / 'sensors.csv'}): 90 rows of 4 columns, each scaled to a byte, "
        "3 classes; 72 to train, 18 to test (a fifth of each class, seed 0)"
    )
    assert text.startswith(taken)
    assert "65 training rows, 8 epochs on" in text
    known = edgebnn.read(trained / "model.pt").metadata
    assert known.class_names == ("rest", "tap", "wave")
    assert [column.name for column in known.columns] == ["t", "ax", "gyro", "m"]
    assert known.test_accuracy is not None
    assert known.test_accuracy > 0.8
    count = round(18 * known.test_accuracy)
    for command in (("verify",), ("simulate", "--images", "18", "--counted", "2")):
        text = output_here(trained, command[0], "model.pt", *command[1:])
        assert text.count(f"({count}/18)") == 3
        assert "every output is equal, bit for bit" in text
    assert "4 columns of numbers, each scaled to a byte" in output_here(trained, "info", "model.pt")
    output_here(trained, "release", "model.pt", "-o", "small.pt")
    assert edgebnn.read(trained / "small.pt").metadata.columns == known.columns
    (trained / "small.pt").unlink()
    assert "takes rows of 4 numbers" in mistake(trained, "predict", "model.pt", "sensors.csv")


def test_board_computes_a_table(trained: Path) -> None:
    model = edgebnn.load(trained / "model.pt")
    program = virtual_board.build(model, trained / "board")
    with virtual_board.on_socket(program) as port:
        text = output_here(trained, "check", "model.pt", "--port", port)
    assert "every output is equal, bit for bit" in text
    assert text.count("/18)") == 3


MAIN = r"""
#include <math.h>
#include <stdio.h>
#include "net.h"

static const struct { int shift; int32_t low, high; uint32_t factor; } columns[] = {
#define COLUMN(shift, low, high, factor) { shift, low, high, factor },
    NET_COLUMNS(COLUMN)
};

int main(void)
{
    double x;
    for (unsigned i = 0u; scanf("%lf", &x) == 1; i = (i + 1u) % NET_INPUT_BYTES) {
        double t = floor(ldexp(x, columns[i].shift));
        t = t < columns[i].low ? columns[i].low : t > columns[i].high ? columns[i].high : t;
        const uint32_t offset = (uint32_t)((int32_t)t - columns[i].low);
        printf("%d\n", (int)((offset * columns[i].factor + 8388608u) >> 24));
    }
    return 0;
}
"""


def test_header_says_how_and_it_is_exact(trained: Path, tmp_path: Path) -> None:
    """The emitted rule, compiled, gives the very bytes that the network was trained on."""
    output_here(tmp_path, "generate", trained / "model.pt", "--name", "net", "-o", "out")
    header = (tmp_path / "out" / "src" / "net.h").read_text()
    assert " * input     columns of numbers, made bytes as NET_COLUMNS says\n" in header
    assert "/* 2 gyro */ \\\n" in header
    assert header.count("    COLUMN(") == 4
    (tmp_path / "main.c").write_text(MAIN)
    command = [*find_compiler(get_target("host")).command, "-O2", f"-I{tmp_path / 'out' / 'src'}"]
    program = tmp_path / "main"
    subprocess.run([*command, tmp_path / "main.c", "-lm", "-o", program], check=True)
    known = edgebnn.read(trained / "model.pt").metadata.columns
    values = np.concatenate([sensor(0)[0], sensor(1)[0], 3 * sensor(2)[0] - 5])
    given = "\n".join(map(repr, values.ravel().tolist()))
    done = subprocess.run([program], input=given, capture_output=True, text=True, check=True)
    ours = np.stack([c.to_bytes(values[:, i]) for i, c in enumerate(known)], axis=1)
    assert np.array(done.stdout.split(), int).reshape(ours.shape).tolist() == ours.tolist()
    assert {0, 255} <= set(ours.ravel().tolist())


def test_another_table_goes_by_the_columns_of_the_model(trained: Path, tmp_path: Path) -> None:
    model = trained / "model.pt"
    known = edgebnn.read(model).metadata.columns
    path = written(tmp_path / "new.csv", seed=5)
    new = load_dataset(path, columns=known)
    assert new.columns == known
    assert not np.array_equal(load_dataset(path).test_images, new.test_images)
    assert "bit for bit" in output_here(tmp_path, "verify", model, "--dataset", "new.csv")
    for names, words in (
        (("t", "gyro", "ax", "m"), "column 2 is 'gyro', where the model takes 'ax'"),
        (("t", "ax", "gyro"), "line 2 has 5 columns, the first one 4"),
    ):
        written(tmp_path / "new.csv", names=names)
        assert words in mistake(tmp_path, "verify", model, "--dataset", "new.csv")
    (tmp_path / "new.csv").write_text("1,2,a\n1,2,b\n" * 9)
    message = mistake(tmp_path, "verify", model, "--dataset", "new.csv")
    assert "has 2 columns; the model takes 4" in message
    message = mistake(tmp_path, "verify", model, "--dataset", "digits")
    assert "the model takes 4 columns of numbers, and digits has none" in message


def test_bytes_stay_as_they_are(tmp_path: Path) -> None:
    """And a model of them takes no table of other numbers."""
    rows = [f"{i % 256},{7 * i % 256},{'ab'[i % 2]}" for i in range(40)]
    (tmp_path / "own.csv").write_text("\n".join(rows))
    data = load_dataset(str(tmp_path / "own.csv"))
    assert data.columns == ()
    assert data.image_shape == (2, 1, 1)
    assert data.test_images[0, :, 0, 0].tolist() in [[i, 7 * i % 256] for i in range(40)]
    text = output_here(tmp_path, "train", "own.csv", *FAST, "--epochs", "1", "-o", "model.pt")
    assert "40 rows of 2 columns, 0 to 255, 2 classes" in text
    output_here(tmp_path, "generate", "model.pt", "--name", "net", "-o", "out")
    assert "COLUMN" not in (tmp_path / "out" / "src" / "net.h").read_text()
    (tmp_path / "new.csv").write_text("\n".join(f"0.5{row}" for row in rows))
    message = mistake(tmp_path, "verify", "model.pt", "--dataset", "new.csv")
    assert "has other numbers than 0 to 255" in message


def test_tables_in_npz(tmp_path: Path) -> None:
    values, labels = sensor()
    np.savez(tmp_path / "own.npz", x=values, y=labels)
    written(tmp_path / "own.csv")
    one, other = (load_dataset(str(tmp_path / f"own.{kind}")) for kind in ("npz", "csv"))
    assert np.array_equal(one.train_images, other.train_images)
    assert np.array_equal(one.test_labels, other.test_labels)
    assert [column.low for column in one.columns] == [column.low for column in other.columns]
    parts = {"x_train": values[:60], "y_train": labels[:60]}
    parts |= {"x_test": 2 * values[60:], "y_test": labels[60:]}
    np.savez(tmp_path / "own.npz", **parts)
    data = load_dataset(str(tmp_path / "own.npz"))
    assert (data.origin.split_seed, len(data.test_images)) == (None, 30)
    assert list(data.columns) == [fit("", column) for column in values[:60].T]  # of training alone
    assert "rows of 4 columns" in output_here(tmp_path, "train", "own.npz", *TRAIN)
    assert "bit for bit" in output_here(tmp_path, "verify", "model.pt")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": np.zeros((4, 0))}, "rows have 0 columns"),
        ({"x": np.full((4, 2), np.nan)}, "column 0 (from 0) has NaN or infinity"),
        ({"x": np.array([[1, 2], [1, 2], [1, np.inf], [1, 2]])}, "column 1 (from 0) has NaN"),
        ({"x": np.full((4, 2), "x")}, "columns are <U1; give numbers"),
        ({"x": np.zeros((4, 2), complex)}, "columns are complex128"),
        ({"x": np.zeros(4)}, "shape (2,)"),
        ({"x": np.zeros((5, 2))}, "5 training rows but 4 labels"),
    ],
)
def test_tables_in_npz_that_are_refused(
    changes: dict[str, object], words: str, tmp_path: Path
) -> None:
    given: dict[str, object] = {"x": np.zeros((4, 2)), "y": [0, 0, 1, 1], **changes}
    np.savez(tmp_path / "own.npz", **given)  # type: ignore[arg-type]
    assert words in refusal(str(tmp_path / "own.npz"))


def test_flat_network_on_images_of_as_many_pixels(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = bnn.Sequential(bnn.Input((64,)), bnn.BinaryLinear(64, 10), bnn.OutputNorm(10))
    data = load_dataset("digits")
    wanted = model.eval()(torch.from_numpy(data.test_images).flatten(1)).argmax(1).numpy()
    right = int((wanted == data.test_labels).sum())
    accuracy = right / len(wanted)
    names = tuple("0123456789")
    options = {"class_names": names, "dataset": "digits", "test_accuracy": accuracy}
    edgebnn.save(model, tmp_path / "model.pt", **options)  # type: ignore[arg-type]
    text = output_here(tmp_path, "verify", "model.pt")
    assert text.count(f"({right}/{len(wanted)})") == 3


def test_rows_are_no_images_to_move(tmp_path: Path) -> None:
    written(tmp_path / "own.csv")
    for setting in ("augment_shift=1", "augment_flip=true", "augment_rotate=5"):
        message = mistake(tmp_path, "train", "own.csv", *TRAIN, "--set", setting)
        assert "rows of numbers cannot be moved as images" in message
    for recipe in ("conv-4k", "conv-16k"):  # of which the first moves images, too
        message = mistake(tmp_path, "train", "own.csv", "--recipe", recipe, "-o", "model.pt")
        assert "needs neighbours, and rows of numbers have none: take a network of dense" in message
        assert "where each row is a signal, give all in an .npz, (N, T, 1)" in message


# --- columns ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 1.0],
        [-1e-3, 1e-3],
        [-5e-324, 5e-324],
        [-1.7e308, 1.7e308],
        [1e9, 1e9 + 10],
        [0, 2**62],
        [-40.25, 85.5],
        [3.0, 3.0],
    ],
)
def test_columns_of_every_scale(values: list[float]) -> None:
    low, high = values
    column = fit("x", np.array(values))
    assert max(abs(column.low), abs(column.high)) <= 2**30
    assert (column.high - column.low) * column.factor + 2**23 < 2**32
    spread = np.array([low * (1 - k / 255) + high * (k / 255) for k in range(256)])
    found = column.to_bytes(spread).astype(int)
    if low == high:
        assert set(found) == {0}
        return
    assert (found[0], found[-1]) == (0, 255)
    assert (np.diff(found) >= 0).all()
    if abs(low) < 1e8 * (high - low) and high - low > 1e-300:
        assert np.abs(found - np.arange(256)).max() <= 1
    assert column.to_bytes(np.array([-1.79e308, 1.79e308])).tolist() == [0, 255]


def test_columns_in_a_model_file_are_checked(tmp_path: Path) -> None:
    model = bnn.Sequential(bnn.Input((2,)), bnn.BinaryLinear(2, 2), bnn.OutputNorm(2))
    columns = (Column("a", 3, -5, 100), Column("", -2, 0, 0))
    edgebnn.save(model, tmp_path / "model.pt", columns=columns)
    assert edgebnn.read(tmp_path / "model.pt").metadata.columns == columns
    with pytest.raises(EdgebnnError, match="1 column for 2 inputs"):
        edgebnn.save(model, tmp_path / "new.pt", columns=columns[:1])
    content = plain(tmp_path / "model.pt")
    good = content["metadata"]["columns"]
    for strange in (
        *(3, "x", [3], [["a", 0, 0]], [["a", 0, 0, 2**40]] * 2, [["a", 0.5, 0, 1]] * 2),
        *([["a", 0, 5, 1]] * 2, [["a", 5000, 0, 1]] * 2, [[3, 0, 0, 1]] * 2, good[:1]),
        [["a", 0, -(2**29), 2**29]] * 2,
    ):
        content["metadata"]["columns"] = strange
        torch.save(content, tmp_path / "model.pt")
        with pytest.raises(EdgebnnError, match=r"model\.pt: "):
            edgebnn.read(tmp_path / "model.pt")


# --- what a .csv may be -------------------------------------------------------------------------

ROWS = [("1.5", "2", "a"), ("-3", "4e1", "b")] * 6


def csv(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


PLAIN = "\n".join(map(",".join, ROWS))


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        PLAIN + "\n",
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\n\n") + "\n\n\n",
        "\n  \n" + PLAIN,
        "\ufeff" + PLAIN,
        PLAIN.encode("utf-16"),
        "p,q,r\n" + PLAIN,
        "0,1,Class\n" + PLAIN,
        "label,p,q\n" + "\n".join(f"{c},{a},{b}" for a, b, c in ROWS),
        "p, target ,q\n" + "\n".join(f"{a},{c},{b}" for a, b, c in ROWS),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", ";").replace(".", ","),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", " , "),
        "\n".join(f'"{a}","{b}","{c}"' for a, b, c in ROWS),
    ],
)
def test_csv_as_programs_write_it(text: str | bytes, tmp_path: Path) -> None:
    data = load_dataset(csv(tmp_path / "own.csv", text))
    wanted = load_dataset(csv(tmp_path / "plain.csv", PLAIN))
    assert data.class_names == ("a", "b")
    assert np.array_equal(data.train_images, wanted.train_images)
    assert np.array_equal(data.test_labels, wanted.test_labels)
    assert sorted({tuple(row) for row in data.train_images[:, :, 0, 0].tolist()}) == [
        (0, 255),
        (255, 0),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no rows"),
        ("a,b,label\n", "has no rows"),
        ("\n".join("ab" * 5), "has one column"),
        ("1\n2\n1\n2\n", "has one column"),
        (PLAIN + "\n1,2\n", "line 13 has 2 columns, the first one 3"),
        (PLAIN + "\n1,x,a\n", "line 13, column 2 is 'x'; give a number"),
        ("p,q,r\n" + PLAIN + "\n,1,a\n", "line 14, column 'p' is empty; give a number"),
        (PLAIN + "\n1,nan,a\n", "line 13, column 2 is 'nan'"),
        (PLAIN + "\n1,inf,a\n", "line 13, column 2 is 'inf'"),
        ("label,p\n" + "a,1\nb,2\n" * 5 + "a,x", "line 12, column 'p' is 'x'"),
        (PLAIN + "\n1,2,\n", "line 13 has no label"),
        (PLAIN + '\n1,2,"a', "line 13 is no CSV (unexpected end of data)"),
        (PLAIN + '\n1,2,"a"x', "line 13 is no CSV"),
        (PLAIN.encode() + b"\n1,2,\xff", "line 13 is not UTF-8"),
        (PLAIN + "\n1,2\0,a", "line 13 has a zero byte"),
        ("label,p,class\n" + PLAIN, "has a column 'label' and another 'class'"),
        ("p,q\n" + "1,0.5\n2,0.25\n" * 6, "the labels, column 'q', have '0.5' among them"),
        ("1,0.5\n2,0.25\n" * 6, "the labels, the last column, have '0.5' among them"),
        ("p,q\n1,5\n2,6\n3,7\n", "whose labels are in column 'q': of class '5' there is 1"),
        (PLAIN + "\n1,2,c", "of class 'c' there is 1; 2 are the least, one to test"),
        ("1,2,a\n" * 9, "two classes or more"),
        ("1,2,a\n" * 9 + "a", "line 10 has 1 column, the first one 3"),
        ('"p\x07",q,label\n' + PLAIN, "column name 'p\\x07' cannot be printed"),
        (PLAIN + '\n1,2,"x\ny"\n1,2,"x\ny"', "class name 'x\\ny' cannot be printed"),
        (PLAIN + "\n" + "9" * 200_000 + ",1,a", "line 13 is no CSV (field larger than"),
    ],
)
def test_csv_that_is_refused(text: str | bytes, words: str, tmp_path: Path) -> None:
    message = refusal(csv(tmp_path / "own.csv", text))
    assert words in message
    assert str(tmp_path / "own.csv") in message
    assert len(message) < 300


def test_csv_is_split_as_it_was(tmp_path: Path) -> None:
    path = written(tmp_path / "own.csv")
    seeds = [load_dataset(path, split_seed=seed) for seed in (0, 0, 1)]
    assert np.array_equal(seeds[0].test_images, seeds[1].test_images)
    assert not np.array_equal(seeds[0].test_images, seeds[2].test_images)
    assert all(np.bincount(one.test_labels).tolist() == [6, 6, 6] for one in seeds)
    assert [one.origin.split_seed for one in seeds] == [0, 0, 1]
    train(  # a model of another seed is verified on its own rows
        get_recipe("mlp-16k").changed({"network": "8FC", "epochs": 2}),
        seeds[2],
        output=tmp_path / "model.pt",
    )
    assert edgebnn.read(tmp_path / "model.pt").metadata.origin.split_seed == 1
    assert "bit for bit" in output_here(tmp_path, "verify", "model.pt")


def test_csv_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(PLAIN)
    assert "neither a folder of images nor a .npz or .csv" in refusal(str(tmp_path / "own.txt"))
    assert "give a folder of images, a .npz, a .csv, or one of" in refusal("nothing.csv")
    if sys.platform != "win32":
        (tmp_path / "loop.csv").symlink_to("loop.csv")
        assert "loop.csv" in refusal(str(tmp_path / "loop.csv"))
