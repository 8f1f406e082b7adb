"""Damaged and odd data files, a hundred of those that ``fuzz_data.py`` makes."""

import random
from pathlib import Path

import fuzz_data
import numpy as np
import pytest

from edgebnn.data import load_dataset


def test_data_files_are_loaded_or_refused_in_a_line() -> None:
    seen = fuzz_data.fuzz(110, seed=1)
    assert seen.total() == 110
    refused = sum(count for what, count in seen.items() if what.endswith("refused"))
    assert 55 <= refused <= 105
    assert {what.split()[0] for what in seen} == {kind.__name__ for kind in fuzz_data.KINDS}


@pytest.mark.parametrize("seed", range(4))
def test_what_the_mutants_are_made_of_loads(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    (tmp_path / "own.csv").write_bytes(fuzz_data.written(fuzz_data.table(rng)))
    np.savez(tmp_path / "own.npz", **fuzz_data.arrays(rng))  # type: ignore[arg-type]
    for name in ("own.csv", "own.npz"):
        fuzz_data.whole(load_dataset(str(tmp_path / name)))
