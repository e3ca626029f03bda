"""Methods: LightningModules, one file a paper."""

from mlcv.methods.backbone_method import BackboneMethod
from mlcv.methods.base import MultiLabelModule
from mlcv.methods.classifier import Classifier
from mlcv.methods.clip_pretraining import CLIPPretraining
from mlcv.methods.distillation import Distillation
from mlcv.methods.label_projector import LabelProjector
from mlcv.methods.meta_rescaling import MetaRescaling
from mlcv.methods.optim import Optim
from mlcv.methods.patch_ct import LabelVectors, PatchCT, Transport
from mlcv.methods.pu_mlc import PUMLC, GlobalBranches
from mlcv.methods.student import Student
from mlcv.methods.u_multi_class import UMultiClass

__all__ = [
    "PUMLC",
    "BackboneMethod",
    "CLIPPretraining",
    "Classifier",
    "Distillation",
    "GlobalBranches",
    "LabelProjector",
    "LabelVectors",
    "MetaRescaling",
    "MultiLabelModule",
    "Optim",
    "PatchCT",
    "Student",
    "Transport",
    "UMultiClass",
]
