"""What results are judged by: unknown entries ignored, means over evaluable classes only."""

from mlcv.metrics.outputs import EvaluationOutputs, Outputs
from mlcv.metrics.pointing import PointingGame
from mlcv.metrics.ranking import ranking_metrics
from mlcv.metrics.scores import Scores, global_average_precision, multilabel_scores
from mlcv.metrics.thresholds import choose_thresholds, f1_curves, tuned_f1

__all__ = [
    "EvaluationOutputs",
    "Outputs",
    "PointingGame",
    "Scores",
    "choose_thresholds",
    "f1_curves",
    "global_average_precision",
    "multilabel_scores",
    "ranking_metrics",
    "tuned_f1",
]
