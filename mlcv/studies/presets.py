"""Studies that fit any config with a loss: of losses, of known fractions, of quantity against quality."""

from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

from mlcv.errors import ConfigError
from mlcv.studies.plan import RATES, Method, Options, Plan

AN, WEAK, IGNORED, ASL, PU = "BCE negative", "BCE weak negative", "BCE ignore", "ASL ignore", "PU-MLC"


def _loss(name: str, **options: Any) -> dict[str, Any]:
    return {"model.loss": f"mlcv.losses.{name}", **{f"model.loss.{key}": value for key, value in options.items()}}


LOSSES: Mapping[str, Options] = {
    AN: _loss("BCELoss", unknown="negative"),
    WEAK: _loss("BCELoss", unknown="weak_negative"),
    IGNORED: _loss("BCELoss"),
    ASL: _loss("AsymmetricLoss"),
    "Hill": _loss("HillLoss", unknown="negative"),
    "SPLC": _loss("SPLCLoss"),
    PU: _loss("PUMLCLoss", gamma=1.0),
    "ROLE": _loss("ROLELoss"),
    "LL-R": _loss("LargeLoss", rate=0.005),
    "ELR one-sided": _loss("ELRLoss", lam=1.0, one_sided=True, unknown="negative"),
    "ILL": _loss("ImpreciseLoss"),
    "two-way": _loss("TwoWayLoss"),
    "AUC margin": _loss("AUCMarginLoss"),
}
"""With settings that worked at a few thousand images; docs/which-method.md says where they differ from the papers'."""

FRACTIONS = (0.05, 0.1, 0.2, 0.5, 1.0)

MISSED, FALSE = 0.2, 0.02
"""Of positives and of negatives, what one annotator gets wrong in the study of budgets."""
BUDGET = 0.3
"""Labels that are paid for, as a part of all entries of all images."""
_SPENT = ((1.0, 1), (0.55, 1), (0.3, 1), (1.0, 3), (0.3, 3), (0.1, 3), (1.0, 5), (0.06, 5))
"""Part of the images that annotators see, and how many of them vote on a label."""


def preset(name: str, configs: Sequence[str], options: Options) -> Plan:
    """A study of one's own labels.

    Args:
        name: `losses` compares losses on the labels as they are; `fractions` draws the curve over what is known;
            `budget` spends one sum on more images, more classes of each, or more votes on a label.
        configs: of an experiment whose method takes a loss.
        options: of all runs.

    Raises:
        ConfigError: if there is no such preset.
    """
    # One start of the bias for all: it decides more than most losses.
    options = {"model.prior_bias": True, **options}

    def of(*names: str) -> dict[str, Method]:
        return {one: Method(tuple(configs), LOSSES[one]) for one in names}

    if name == "losses":
        return Plan(of(*LOSSES), {"labels as they are": {}}, options, RATES)
    if name == "fractions":
        known = {f"{100 * part:g} % known": {"data.protocol.known_fraction": part} for part in FRACTIONS}
        some = of(AN, WEAK, IGNORED, ASL, PU, "ROLE", "LL-R", "two-way")
        return Plan(some, known, options, RATES, plot="curves")
    if name == "budget":
        return Plan(of(IGNORED, AN, "two-way"), {**_budgets(), **_everything()}, options, RATES, baseline=IGNORED)
    raise ConfigError(f"study: --preset is losses, fractions or budget, got {name!r}")


def _budgets() -> dict[str, Options]:
    found: dict[str, Options] = {}
    for images, votes in _SPENT:
        known = min(BUDGET / (images * votes), 1.0)
        each = "1 vote" if votes == 1 else f"{votes} votes"
        name = f"{100 * images:g} % of images, {100 * known:.0f} % of labels, {each}"
        found[name] = {"data.protocol.image_fraction": images, "data.protocol.known_fraction": known, **_flips(votes)}
    return found


def _everything() -> dict[str, Options]:
    return {f"all labels, 1 vote: {1 / BUDGET:.1f} times the cost": _flips(1)}


def _flips(votes: int) -> dict[str, float]:
    """Rates at which a majority errs of annotators who err each for himself."""
    return {
        f"data.protocol.flip_{name}": sum(
            comb(votes, k) * rate**k * (1 - rate) ** (votes - k) for k in range(votes // 2 + 1, votes + 1)
        )
        for name, rate in (("positives", MISSED), ("negatives", FALSE))
    }
