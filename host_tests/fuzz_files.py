"""Flipped, truncated, spliced and renamed model files: refused in one line, or as good as before.

``python host_tests/fuzz_files.py [FILES] [SEED]`` reads so many, lowers what loads, and compares
its outputs and its metadata with those of the files that it was made of.
"""

import copy
import io
import random
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from edgebnn import checkpoint, golden, reference
from edgebnn.errors import EdgebnnError
from edgebnn.lower import lower


@dataclass(frozen=True, slots=True)
class Good:
    """A model file, its members by name and what they hold."""

    data: bytes
    members: dict[str, bytes]
    content: dict[str, Any]


def good_files(models: list[nn.Module], folder: Path) -> list[Good]:
    """Files of each of ``models``, one a form, and the release one as it was without a digest."""
    files = []
    for number, model in enumerate(models):
        for form in ("training", "release", "old"):
            path = folder / f"{number}.pt"
            kept = form if form != "old" else "release"
            state = {"optimizer": {"step": torch.tensor(3.0)}} if form == "training" else None
            checkpoint.save(model, path, form=kept, seed=number, test_accuracy=0.5, training=state)
            if form == "old":
                content = torch.load(path, weights_only=True)
                del content["sha256"]
                torch.save(content, path)
            data = path.read_bytes()
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                members = {name: archive.read(name) for name in archive.namelist()}
            files.append(Good(data, members, torch.load(path, weights_only=True)))
    return files


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value within nested dictionaries and lists."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def mutants(rng: random.Random, files: list[Good]) -> Iterator[tuple[str, bytes]]:
    """(kind, bytes) without end. What decides about the old form is left as it was saved."""
    sealed = [file for file in files if "sha256" in file.content]

    def flipped() -> bytes:
        data = bytearray(rng.choice(files).data)
        for _ in range(rng.choice((1, 1, 1, 2, 8))):
            data[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        return bytes(data)

    def truncated() -> bytes:
        data = rng.choice(files).data
        begin, end = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
        return rng.choice((data[:end], data[begin:], data[:begin] + data[end:]))

    def spliced() -> bytes:
        one, other = rng.choice(files).data, rng.choice(files).data
        if rng.random() < 0.5:
            place = rng.randrange(min(len(one), len(other)))
            return one[:place] + other[place:]
        return one[: rng.randrange(len(one))] + other[rng.randrange(len(other)) :]

    def packed(members: dict[str, bytes]) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
        return file.getvalue()

    def exchanged() -> bytes:
        """Some members are another file's; every CRC is right."""
        one, other = rng.choice(sealed).members, rng.choice(sealed).members
        common = sorted(one.keys() & other.keys())
        taken = rng.sample(common, rng.randint(1, min(3, len(common))))
        return packed({**one, **{name: other[name] for name in taken}})

    def renamed_members() -> bytes:
        members = rng.choice(sealed).members
        names = list(members)
        one, other = rng.sample(range(len(names)), 2)
        names[one], names[other] = names[other], names[one]
        if rng.random() < 0.3:
            names[one] += "x"
        return packed(dict(zip(names, members.values(), strict=True)))

    def renamed_keys() -> bytes:
        content = copy.deepcopy(rng.choice(sealed).content)
        named = [place for place in places(content) if isinstance(place[-1], str)]
        place = rng.choice(named)
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        other = rng.choice((f"{place[-1]}x", rng.choice(named)[-1]))
        parent[other] = parent.pop(place[-1])
        return saved(content)

    def changed_values() -> bytes:
        content = copy.deepcopy(rng.choice(sealed).content)
        source = rng.choice(sealed).content
        place, taken = rng.choice(list(places(content))), rng.choice(list(places(source)))
        if rng.random() < 0.5:
            taken = place
        try:
            for key in taken:
                source = source[key]
        except (LookupError, TypeError):
            source = None
        parent = content
        for key in place[:-1]:
            parent = parent[key]
        parent[place[-1]] = source
        return saved(content)

    def saved(content: object) -> bytes:
        file = io.BytesIO()
        torch.save(content, file)
        return file.getvalue()

    kinds = (flipped, flipped, flipped, truncated, spliced, exchanged)
    kinds += (renamed_members, renamed_keys, changed_values)
    while True:
        kind = rng.choice(kinds)
        yield kind.__name__, kind()


def meaning(path: Path) -> tuple[bytes, checkpoint.Metadata]:
    """The outputs of a file on golden inputs, and what it says of itself.

    Raises:
        EdgebnnError: the file is refused.
    """
    opened = checkpoint.read(path)
    network = lower(opened.model)
    outputs = reference.run(network, golden.inputs(network, 16))
    scores = np.concatenate([outputs.scores, outputs.classes[:, None]], axis=1)
    return scores.tobytes(), opened.metadata


def fuzz(models: list[nn.Module], count: int, seed: int) -> Counter[str]:
    """Read ``count`` of :func:`mutants`; returns how many of each kind were refused or accepted.

    Raises:
        AssertionError: one was accepted that is not what was saved.
        Exception: whatever else a file makes the reader raise.
    """
    seen: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = good_files(models, folder)
        path = folder / "mutant.pt"
        known: list[tuple[bytes, checkpoint.Metadata]] = []
        for file in files:
            path.write_bytes(file.data)
            known.append(meaning(path))
        made: Callable[[], tuple[str, bytes]] = mutants(random.Random(seed), files).__next__
        for number in range(count):
            kind, data = made()
            path.write_bytes(data)
            try:
                found = meaning(path)
            except EdgebnnError:
                seen[f"{kind} refused"] += 1
            else:
                assert found in known, f"mutant {number} of seed {seed}, {kind}, is another network"
                seen[f"{kind} accepted, equal"] += 1
    return seen


def main() -> None:
    from test_model_files import mlp, residual

    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    begin = time.monotonic()
    seen = fuzz([mlp(1), mlp(2), residual()], count, seed)
    for what in sorted(seen):
        print(f"{seen[what]:6} {what}")
    print(f"{count} files, {time.monotonic() - begin:.1f} s: no traceback, none with other outputs")


if __name__ == "__main__":
    main()
