"""What decides a run, and whether a model file holds a run that can go on."""

import dataclasses
from pathlib import Path
from typing import Any

from edgebnn.checkpoint import Checkpoint
from edgebnn.data import Dataset, fingerprint
from edgebnn.errors import EdgebnnError
from edgebnn.train.recipes import Recipe
from edgebnn.wording import counted

_ANEW = "add --force in the place of --resume to train anew"
_SILENT = ("recipe's name", "recipe's summary", "recipe's epochs")


def identity_of(recipe: Recipe, dataset: Dataset, seed: int, held_out: int) -> dict[str, Any]:
    """All that decides a run, but for how long it is."""
    settings = {f"recipe's {key}": value for key, value in recipe.plain().items()}
    settings = {k: v for k, v in settings.items() if k not in _SILENT}
    data = f"{dataset.name} ({fingerprint(dataset)})"
    return {
        "recipe": recipe.name,
        "data set": data,
        "seed": seed,
        "validation": held_out,
        **settings,
    }


def resumable(
    output: Path, saved: Checkpoint, identity: dict[str, Any], epochs: int | None
) -> dict[str, Any]:
    """The state in ``saved``, which must belong to this very run."""
    state = saved.training
    if not state or not {"identity", "epochs", "done_epochs", "optimizer"} <= state.keys():
        raise EdgebnnError(f"{output} has no training state to resume; {_ANEW}")
    kinds = {"identity": dict, "epochs": int, "done_epochs": int, "optimizer": dict}
    if any(not isinstance(state[key], kind) for key, kind in kinds.items()):
        raise damaged(output)
    if not 0 <= state["done_epochs"] <= state["epochs"]:
        raise damaged(output)
    if state.get("finished"):
        raise EdgebnnError(
            f"{output} is finished after {counted(state['epochs'], 'epoch')}; {_ANEW}, "
            "or give another -o"
        )
    before = {**state["identity"], "epochs": state["epochs"]}
    now = {**identity, "epochs": state["epochs"] if epochs is None else epochs}
    for what in {**now, **before}:
        was, value = (of.get(what, _default(what)) for of in (before, now))
        if was != value:
            raise EdgebnnError(
                f"{output} was trained with {what} {was}, not {value}; "
                f"resume with the same, or {_ANEW}"
            )
    return state


def _default(what: str) -> Any:
    """Of a recipe's setting, which only what differs from it says."""
    fields = {f"recipe's {field.name}": field.default for field in dataclasses.fields(Recipe)}
    return fields.get(what)


def damaged(output: Path | None) -> EdgebnnError:
    """What to say of a training state that is not whole."""
    return EdgebnnError(f"{output} has a damaged training state; {_ANEW}")
