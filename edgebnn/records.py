"""What :mod:`edgebnn.report` shows to people, as plain data for programs: ``--json``.

Sizes are in bytes, accuracies are fractions, counts are one an input; what is not known is None.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebnn.checkpoint import Checkpoint
from edgebnn.cost import cost, weight_bits
from edgebnn.errors import EdgebnnError
from edgebnn.ir import Network, sha256
from edgebnn.measure import Backend, OnBoard, OnGpu, OnTarget
from edgebnn.plan import Plan, plan
from edgebnn.targets import TARGETS
from edgebnn.wishes import Wishes

Record = dict[str, Any]
_IMAGE = ("channels", "height", "width")


def model(path: Path, checkpoint: Checkpoint, network: Network) -> Record:
    """What a model is and where it comes from."""
    metadata, shape = checkpoint.metadata, network.input
    image = metadata.image  # before the preprocessing
    return {
        "model": str(path),
        "sha256": sha256(network),
        "form": checkpoint.form,
        "input": {
            "height": shape.height,
            "width": shape.width,
            "channels": shape.channels,
            "bits": shape.bits,
            "zero_point": checkpoint.zero_point,
        },
        "preprocessing": list(metadata.input_steps),
        "image": None if image is None else dict(zip(_IMAGE, image, strict=True)),
        "num_classes": network.num_classes,
        "class_names": list(metadata.class_names),
        "weight_bits": weight_bits(network),
        "test_accuracy": metadata.test_accuracy,
        "dataset": metadata.dataset,
        "samples": len(checkpoint.samples),
        "recipe": dict(metadata.recipe),
        "seed": metadata.seed,
    }


def layers(scheduled: Plan) -> list[Record]:
    """Every op with its size and kernel."""
    return [
        {
            "name": op.name,
            "kernel": op.kernel,
            "weight_bits": op.weight_bits,
            "constant_bytes": op.constant_bytes,
            "macs": op.macs,
            "instructions": _whole(op.instructions, round),
            "most_instructions": _whole(op.most, math.ceil),
        }
        for op in cost(scheduled).ops
    ]


def targets(
    network: Network,
    prefer: tuple[str, ...],
    wishes: Wishes,
    samples: NDArray[np.uint8] | None = None,
) -> list[Record]:
    """Flash constants, static RAM and instructions, predicted, on targets that have the kernels."""
    found: list[Record] = []
    for target in TARGETS.values():
        try:
            known = cost(plan(network, target, prefer, wishes=wishes, samples=samples))
        except EdgebnnError as error:
            found.append({"target": target.name, "error": str(error)})
            continue
        sizes = {"constant_bytes": known.constant_bytes, "ram_bytes": known.ram_bytes}
        counts = {
            "instructions": _whole(known.instructions, round),
            "most_instructions": _whole(known.most, math.ceil),
            "code_bytes": _whole(known.code_bytes, math.ceil),
            "stack_bytes": _whole(known.stack_bytes, math.ceil),
        }
        found.append({"target": target.name, **sizes, **counts})
    return found


def _whole(count: float | None, rounded: Callable[[float], int]) -> int | None:
    return None if count is None else rounded(count)


def backend(one: Backend, labels: NDArray[np.int64] | None) -> Record:
    """How many outputs of a backend differ from torch's, and its accuracy where it is known."""
    count = len(one.outputs.classes)
    correct = None if labels is None else one.correct(labels)
    return {
        "name": one.name,
        "inputs": count,
        "differing": one.differing,
        "correct": correct,
        "accuracy": None if correct is None else correct / count,
    }


def on_target(chip: OnTarget) -> Record:
    """What the emitted C costs where it ran."""
    size = chip.footprint
    return {
        "target": chip.target.name,
        "instructions": list(chip.instructions),
        "layer_instructions": dict(chip.layer_instructions),
        "cycles": list(chip.cycles),
        "layer_cycles": dict(chip.layer_cycles),
        "flash_bytes": chip.flash_bytes,
        "constant_bytes": None if size is None else size.constant_bytes,
        "code_bytes": None if size is None else size.code_bytes,
        "ram_bytes": chip.arena_bytes,
        "stack_bytes": chip.stack_bytes,
        "compiler": chip.compiler,
        "flags": chip.flags,
    }


def on_board(board: OnBoard) -> Record:
    """What it took there, by the board's own clock."""
    info = board.info
    return {
        "target": info.target,
        "board": board.name,
        "unit": info.unit.name.lower(),
        "hz": info.hz,
        "ticks": list(board.ticks),
        "seconds": list(board.seconds),
        "ram_bytes": info.arena_bytes,
        "compiler": info.compiler,
    }


def proof(
    own: Backend,
    others: Sequence[Backend],
    labels: NDArray[np.int64] | None,
    confusion: NDArray[np.int64] | None,
) -> Record:
    """Backends beside torch, what the targets among them cost, and torch's confusion matrix.

    ``confusion`` has a row for each class that is right and a column for each that came out.
    """
    return {
        "equal": not any(one.differing for one in others),
        "backends": [backend(one, labels) for one in (own, *others)],
        "targets": [on_target(one) for one in others if isinstance(one, OnTarget)],
        "gpus": [
            {"name": one.name, "level": one.level} for one in others if isinstance(one, OnGpu)
        ],
        "confusion": None if confusion is None else confusion.tolist(),
    }
