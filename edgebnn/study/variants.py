"""Variants of a recipe: a few settings changed, under a label."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgebnn.errors import EdgebnnError
from edgebnn.train.recipes import Recipe, parse_setting

BASE = "base"


@dataclass(frozen=True, slots=True)
class Variant:
    """A recipe with some settings changed; the one without any is the base."""

    label: str
    settings: Mapping[str, Any] = field(default_factory=dict)


def default_variants(recipe: Recipe) -> tuple[Variant, ...]:
    """What a paper or an implementation of binarized networks proposes, one change at a time.

    Rates and strengths that do not carry over are set to what each method asks for.
    """
    rate = recipe.learning_rate
    kd = {"loss": "cross_entropy", "teacher": recipe.network, "teacher_epochs": recipe.epochs}
    # A float network wants a smaller step than latent weights, of which only the signs count.
    twin = {"binary": False, "learning_rate": 0.3 * rate}
    return (
        Variant(BASE),
        Variant("swish gradient", {"sign": "swish"}),
        Variant("swish gradient, trained beta", {"sign": "swish_trained"}),
        Variant("polynomial gradient", {"sign": "polynomial"}),
        Variant("stochastic activations", {"sign": "stochastic"}),
        Variant("stochastic weights", {"weights": "stochastic"}),
        Variant("magnitude-aware weights", {"weights": "magnitude"}),
        Variant("learned shift (RSign)", {"learned_shift": True}),
        Variant("shift norm", {"norm": "shift"}),
        Variant("shift-AdaMax", {"optimizer": "shift-adamax", "learning_rate": 2.0**-6}),
        Variant("Bop", {"optimizer": "bop"}),
        # gamma_k is 26 for 784 -> 256, 18 for 256 -> 256: about the same steps, layer by layer.
        Variant("Glorot rates", {"glorot_rates": True, "learning_rate": rate / 16}),
        # BNN+ sums over the weights where these average: 0.1 is its 5e-7 for 200 000 weights.
        Variant("R1 regularizer", {"regularizer": "r1", "regularization": 0.1}),
        Variant("R2 regularizer", {"regularizer": "r2", "regularization": 0.1}),
        Variant("exponential schedule", {"schedule": "exponential"}),
        Variant("cross-entropy", {"loss": "cross_entropy"}),
        Variant("dropout 0.2", {"dropout_hidden": 0.2}),
        Variant("two stages", {"stages": 2}),
        Variant("cross-entropy, float teacher", kd),
        Variant("float twin", twin),
        Variant("float twin, dropout 0.2", {**twin, "dropout_hidden": 0.2}),
    )


def parse_variant(text: str, recipe: Recipe) -> Variant:
    """``label: key=value, key=value``, or the label of a default variant.

    Raises:
        EdgebnnError: the text is neither.
    """
    label, colon, settings = text.partition(":")
    label = " ".join(label.split())
    if not label:
        raise EdgebnnError(f"variant '{text}' has no label; write 'label: key=value, key=value'")
    if not colon:
        known = {variant.label: variant for variant in default_variants(recipe)}
        if label not in known:
            raise EdgebnnError(
                f"'{label}' is no variant; write 'label: key=value, key=value', or one of: "
                + "; ".join(known)
            )
        return known[label]
    try:
        pairs = [parse_setting(part.strip()) for part in settings.split(",")]
    except EdgebnnError as error:
        raise EdgebnnError(f"variant '{label}': {error}") from None
    if len(dict(pairs)) != len(pairs):
        raise EdgebnnError(f"variant '{label}' has a setting twice; write each once")
    return Variant(label, dict(pairs))
