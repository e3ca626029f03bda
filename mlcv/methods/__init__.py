"""Methods: LightningModules, one file a paper."""

from mlcv.methods.base import MultiLabelModule, Optim
from mlcv.methods.classifier import Classifier

__all__ = ["Classifier", "MultiLabelModule", "Optim"]
