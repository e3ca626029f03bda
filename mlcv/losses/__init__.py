"""Losses, called as `loss(logits, targets)`; targets are in [0, 1], or -1 where unknown."""

from mlcv.losses.asymmetric import AsymmetricLoss
from mlcv.losses.auc_margin import AUCMarginLoss
from mlcv.losses.balanced import ClassBalancedLoss, DistributionBalancedLoss, LogitAdjustedLoss
from mlcv.losses.bce import BCELoss, PartialBCELoss
from mlcv.losses.elr import ELRLoss
from mlcv.losses.focal import FocalLoss
from mlcv.losses.hill import HillLoss, SPLCLoss
from mlcv.losses.pu import PUMixup, PUMLCLoss
from mlcv.losses.two_way import TwoWayLoss

__all__ = [
    "AUCMarginLoss",
    "AsymmetricLoss",
    "BCELoss",
    "ClassBalancedLoss",
    "DistributionBalancedLoss",
    "ELRLoss",
    "FocalLoss",
    "HillLoss",
    "LogitAdjustedLoss",
    "PUMLCLoss",
    "PUMixup",
    "PartialBCELoss",
    "SPLCLoss",
    "TwoWayLoss",
]
