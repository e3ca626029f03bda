"""What the Trainer needs and Lightning lacks."""

from mlcv.callbacks.cleaner import Cleaner
from mlcv.callbacks.ema import EMA
from mlcv.callbacks.non_finite import StopOnNonFiniteLoss
from mlcv.callbacks.predictions import PredictionWriter
from mlcv.callbacks.random_state import KeepRandomState
from mlcv.callbacks.results import ResultsWriter

__all__ = ["EMA", "Cleaner", "KeepRandomState", "PredictionWriter", "ResultsWriter", "StopOnNonFiniteLoss"]
