"""After training, on files of predictions from this project or any other: no Lightning, no network."""

from mlcv.posthoc.calibrated import Calibration
from mlcv.posthoc.predictions import Predictions, combine, read_predictions
from mlcv.posthoc.studies import aggregate, study_of
from mlcv.posthoc.truth import Truth, TruthFile, read_truth

__all__ = [
    "Calibration",
    "Predictions",
    "Truth",
    "TruthFile",
    "aggregate",
    "combine",
    "read_predictions",
    "read_truth",
    "study_of",
]
