"""Which given labels are wrong, what to label next, and what helps a person to decide; no network."""

from mlcv.audit.instructions import Shown, examples_of_class
from mlcv.audit.judge import Judgement, judge, order, too_few
from mlcv.audit.review import revise, to_review
from mlcv.audit.what_next import balanced, what_next
from mlcv.audit.words import ClassRow, class_table, reasons

__all__ = [
    "ClassRow",
    "Judgement",
    "Shown",
    "balanced",
    "class_table",
    "examples_of_class",
    "judge",
    "order",
    "reasons",
    "revise",
    "to_review",
    "too_few",
    "what_next",
]
