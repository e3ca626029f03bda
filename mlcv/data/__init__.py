"""Data sets: each a DataModule that reads official files."""

from mlcv.data.base import LabeledImages, MultiLabelDataModule, MultiLabelDataset
from mlcv.data.coco import COCODataModule
from mlcv.data.csv_table import Codes, CSVDataModule
from mlcv.data.digits import DigitScenesDataModule, Scene
from mlcv.data.transforms import Augment, ImageStatistics
from mlcv.data.voc import VOCDataModule

__all__ = [
    "Augment",
    "COCODataModule",
    "CSVDataModule",
    "Codes",
    "DigitScenesDataModule",
    "ImageStatistics",
    "LabeledImages",
    "MultiLabelDataModule",
    "MultiLabelDataset",
    "Scene",
    "VOCDataModule",
]
