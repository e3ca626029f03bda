"""Which given labels are wrong, what to label next, and what helps a person to decide; no network."""

from mlcv.audits.instructions import Shown, examples_of_class
from mlcv.audits.judge import Judgement, judge, order, too_few
from mlcv.audits.review import revise, to_review
from mlcv.audits.what_next import balanced, what_next
from mlcv.audits.words import ClassRow, class_table, reasons

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
