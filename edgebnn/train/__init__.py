"""Training: data sets, recipes and the loop that turns them into a model file."""

from edgebnn.train.bench import StepRatio, step_ratio
from edgebnn.train.datasets import DATASETS, Dataset, load_dataset, quantize
from edgebnn.train.loop import (
    Batch,
    Epoch,
    Event,
    Finished,
    Result,
    Started,
    evaluate,
    recalibrate,
    train,
)
from edgebnn.train.recipes import RECIPES, Recipe, get_recipe

__all__ = [
    "DATASETS",
    "RECIPES",
    "Batch",
    "Dataset",
    "Epoch",
    "Event",
    "Finished",
    "Recipe",
    "Result",
    "Started",
    "StepRatio",
    "evaluate",
    "get_recipe",
    "load_dataset",
    "quantize",
    "recalibrate",
    "step_ratio",
    "train",
]
