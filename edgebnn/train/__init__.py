"""Training: recipes and the loop that turns them into a model file."""

from edgebnn.data import DATASETS, Dataset, load_dataset, quantize
from edgebnn.nn import recalibrate
from edgebnn.train.bench import StepRatio, step_ratio
from edgebnn.train.evaluation import evaluate
from edgebnn.train.events import Batch, Epoch, Event, Finished, Started
from edgebnn.train.job import Result
from edgebnn.train.loop import train
from edgebnn.train.recipes import (
    Recipe,
    first_recipe,
    get_recipe,
    parse_setting,
    read_recipe,
    recipe_names,
)

__all__ = [
    "DATASETS",
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
    "first_recipe",
    "get_recipe",
    "load_dataset",
    "parse_setting",
    "quantize",
    "read_recipe",
    "recalibrate",
    "recipe_names",
    "step_ratio",
    "train",
]
