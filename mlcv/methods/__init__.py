"""Methods: LightningModules, one file a paper."""

from mlcv.methods.base import MultiLabelModule
from mlcv.methods.classifier import Classifier
from mlcv.methods.clip_pretraining import CLIPPretraining
from mlcv.methods.distillation import Distillation
from mlcv.methods.label_projector import LabelProjector
from mlcv.methods.optim import Optim
from mlcv.methods.patch_ct import PatchCT
from mlcv.methods.pu_mlc import PUMLC, GlobalBranches
from mlcv.methods.student import Student
from mlcv.methods.u_multi_class import UMultiClass

__all__ = [
    "PUMLC",
    "CLIPPretraining",
    "Classifier",
    "Distillation",
    "GlobalBranches",
    "LabelProjector",
    "MultiLabelModule",
    "Optim",
    "PatchCT",
    "Student",
    "UMultiClass",
]
