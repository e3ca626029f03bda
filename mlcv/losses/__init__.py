"""Losses, called as `loss(logits, targets)`; targets are in [0, 1], or -1 where unknown."""

from mlcv.losses.asymmetric import AsymmetricLoss
from mlcv.losses.auc_margin import AUCMarginLoss
from mlcv.losses.balanced import ClassBalancedLoss, DistributionBalancedLoss, LogitAdjustedLoss
from mlcv.losses.bce import BCELoss, PartialBCELoss
from mlcv.losses.elr import ELRLoss
from mlcv.losses.em import EMLoss
from mlcv.losses.focal import FocalLoss
from mlcv.losses.hill import HillLoss, SPLCLoss
from mlcv.losses.imprecise import ImpreciseLoss
from mlcv.losses.large_loss import LargeLoss
from mlcv.losses.pseudo_labels import PseudoLabels
from mlcv.losses.pu import PUMixup, PUMLCLoss
from mlcv.losses.role import EPRLoss, ROLELoss
from mlcv.losses.selective import SelectiveLoss
from mlcv.losses.two_way import TwoWayLoss

__all__ = [
    "AUCMarginLoss",
    "AsymmetricLoss",
    "BCELoss",
    "ClassBalancedLoss",
    "DistributionBalancedLoss",
    "ELRLoss",
    "EMLoss",
    "EPRLoss",
    "FocalLoss",
    "HillLoss",
    "ImpreciseLoss",
    "LargeLoss",
    "LogitAdjustedLoss",
    "PUMLCLoss",
    "PUMixup",
    "PartialBCELoss",
    "PseudoLabels",
    "ROLELoss",
    "SPLCLoss",
    "SelectiveLoss",
    "TwoWayLoss",
]
