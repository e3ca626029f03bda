"""Which given labels are wrong, and what to label next: statistics on logits and label states, no network."""

from mlcv.audit.judge import Judgement, judge, order, too_few
from mlcv.audit.review import revise, to_review
from mlcv.audit.what_next import balanced, what_next
from mlcv.audit.words import ClassRow, class_table, reasons

__all__ = [
    "ClassRow",
    "Judgement",
    "balanced",
    "class_table",
    "judge",
    "order",
    "reasons",
    "revise",
    "to_review",
    "too_few",
    "what_next",
]
