"""Data sets: each a DataModule that reads official files."""

from mlcv.data.base import MultiLabelDataModule
from mlcv.data.chexpert import CheXpertDataModule
from mlcv.data.coco import COCODataModule
from mlcv.data.csv_table import CSVDataModule
from mlcv.data.digits import DigitScenesDataModule, Scene
from mlcv.data.image_files import ImageFilesDataModule
from mlcv.data.nih import NIHDataModule
from mlcv.data.samples import LabeledImages, MultiLabelDataset
from mlcv.data.several_rows import Long
from mlcv.data.transforms import Augment, ImageStatistics
from mlcv.data.voc import VOCDataModule
from mlcv.tables import Codes

__all__ = [
    "Augment",
    "COCODataModule",
    "CSVDataModule",
    "CheXpertDataModule",
    "Codes",
    "DigitScenesDataModule",
    "ImageFilesDataModule",
    "ImageStatistics",
    "LabeledImages",
    "Long",
    "MultiLabelDataModule",
    "MultiLabelDataset",
    "NIHDataModule",
    "Scene",
    "VOCDataModule",
]
