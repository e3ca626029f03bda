"""What is wrong with a data set before anything is trained on it: labels, images, duplicates, drift; no network."""

from mlcv.sheets.collection import Collection
from mlcv.sheets.drift import Area, Gap, Shift, area, rates_apart, values_apart
from mlcv.sheets.findings import KINDS, Finding, find
from mlcv.sheets.labels import ClassFacts, LabelFacts, Together, label_facts, together
from mlcv.sheets.looks import LOOK, look, look_at_all
from mlcv.sheets.measure import Facts, measure
from mlcv.sheets.near import GREY, PHOTOGRAPHS, Gate, Pair, near_pairs

__all__ = [
    "GREY",
    "KINDS",
    "LOOK",
    "PHOTOGRAPHS",
    "Area",
    "ClassFacts",
    "Collection",
    "Facts",
    "Finding",
    "Gap",
    "Gate",
    "LabelFacts",
    "Pair",
    "Shift",
    "Together",
    "area",
    "find",
    "label_facts",
    "look",
    "look_at_all",
    "measure",
    "near_pairs",
    "rates_apart",
    "together",
    "values_apart",
]
