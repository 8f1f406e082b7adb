"""Many networks as one library: one build and one run of an emulator for all of them.

The library, ``batch``, is built and run like any other. Its records begin with the number of a
network, and its scores and classes are those of that network's own library, ``k<number>``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn import reference
from edgebnn.codegen import c
from edgebnn.codegen.library import Library, header_path, source_path
from edgebnn.ir import Network
from edgebnn.plan import plan
from edgebnn.targets import Target

UNWRITTEN = 0x5A0F33C1
"""What the program puts where a network must not write."""

_NAME = "batch"
_HEAD_BYTES = 2  # of a record: the number of its network


def program(libraries: Mapping[int, Library], target: str) -> Library:
    """One library that holds ``libraries``, each called k<number>, by their numbers.

    An input ends where its record ends, so that a read past it is a read past the record.
    """
    numbers = sorted(libraries)
    size = _record_bytes(library.input_bytes for library in libraries.values())
    classes = max(library.num_classes for library in libraries.values())
    table = [
        f"    {{ {n}u, {size - libraries[n].input_bytes}u, k{n}_scores, k{n}_predict }},"
        for n in numbers
    ]
    source = [f'#include "{_NAME}.h"', *(f'#include "k{n}.c"' for n in numbers)]
    source += [_DISPATCH % "\n".join(table)]
    files = {
        header_path(_NAME): _HEADER % (size, classes),
        source_path(_NAME): "\n".join(source).replace("UNWRITTEN", str(UNWRITTEN)),
    }
    for library in libraries.values():
        files |= library.files
    return Library(
        name=_NAME,
        target=target,
        files=files,
        input_bytes=size,
        num_classes=classes,
        constant_bytes=sum(library.constant_bytes for library in libraries.values()),
        arena_bytes=sum(library.arena_bytes for library in libraries.values()),
        layers=(),
    )


_HEADER = """\
#ifndef BATCH_H
#define BATCH_H
#include <stdint.h>
#define BATCH_INPUT_BYTES %du
#define BATCH_NUM_CLASSES %du
void batch_scores(const uint8_t *input, int32_t *scores);
int batch_predict(const uint8_t *input);
#endif
"""
_DISPATCH = """
static const struct one {
    uint32_t number;
    uint32_t start;
    void (*scores)(const uint8_t *input, int32_t *scores);
    int (*predict)(const uint8_t *input);
} all[] = {
%s
};

static const struct one *find(const uint8_t *input)
{
    const struct one *one = all;

    while (one->number != (input[0] | (uint32_t)input[1] << 8)) {
        one++;
    }
    return one;
}

void batch_scores(const uint8_t *input, int32_t *scores)
{
    const struct one *const one = find(input);

    for (uint32_t i = 0u; i < BATCH_NUM_CLASSES; i++) {
        scores[i] = UNWRITTEN;
    }
    one->scores(&input[one->start], scores);
}

int batch_predict(const uint8_t *input)
{
    const struct one *const one = find(input);

    return one->predict(&input[one->start]);
}
"""


@dataclass(frozen=True, slots=True, eq=False)
class Expected:
    """Records of some networks and what the oracle makes of them."""

    records: NDArray[np.uint8]
    scores: NDArray[np.int32]
    classes: NDArray[np.int32]
    numbers: NDArray[np.int64]  # the network of each record

    def of(self, keep: NDArray[Any]) -> "Expected":
        """Those records for which ``keep`` is true, or that it names, in its order."""
        return Expected(
            self.records[keep], self.scores[keep], self.classes[keep], self.numbers[keep]
        )


def of_networks(
    given: Mapping[int, tuple[Network, NDArray[np.uint8]]], target: Target
) -> tuple[Library, "Expected"]:
    """Networks by their numbers, each with inputs, as one library; and what the oracle gives."""
    wanted = expected({n: (x, reference.run(network, x)) for n, (network, x) in given.items()})
    libraries = {n: c.generate(plan(network, target), f"k{n}") for n, (network, _) in given.items()}
    return program(libraries, target.name), wanted


def _record_bytes(widths: Iterable[int]) -> int:
    return _HEAD_BYTES + max(widths)


def expected(given: Mapping[int, tuple[NDArray[np.uint8], reference.Outputs]]) -> Expected:
    """For networks by their numbers: inputs (N, ...), and what the oracle gives for them."""
    size = _record_bytes(inputs[0].size for inputs, _ in given.values())
    width = max(outputs.scores.shape[1] for _, outputs in given.values())
    parts: list[tuple[NDArray[np.generic], ...]] = []
    for number, (inputs, outputs) in given.items():
        count = len(inputs)
        record = np.zeros((count, size), np.uint8)
        record[:, 0], record[:, 1] = number % 256, number // 256
        record[:, size - inputs[0].size :] = inputs.reshape(count, -1)
        scores = np.full((count, width), UNWRITTEN, np.int32)
        scores[:, : outputs.scores.shape[1]] = outputs.scores
        parts.append((record, scores, outputs.classes, np.full(count, number)))
    return Expected(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def differing(outputs: reference.Outputs, wanted: Expected) -> list[int]:
    """The numbers of the networks that did not give what the oracle gives."""
    wrong = (outputs.scores != wanted.scores).any(axis=1) | (outputs.classes != wanted.classes)
    return np.unique(wanted.numbers[wrong]).tolist()
