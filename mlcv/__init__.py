"""mlcv: multi-label image classification on imperfect labels, with PyTorch Lightning."""

import importlib
from typing import Any

__version__ = "0.2.0"

# Where public names live; importing them waits for their first use, since some take seconds.
_HOMES = {
    "CLIPPretraining": "mlcv.methods",
    "Classifier": "mlcv.methods",
    "COCODataModule": "mlcv.data",
    "CSVDataModule": "mlcv.data",
    "CheXpertDataModule": "mlcv.data",
    "DigitScenesDataModule": "mlcv.data",
    "Distillation": "mlcv.methods",
    "LabelProjector": "mlcv.methods",
    "MetaRescaling": "mlcv.methods",
    "MultiLabelDataModule": "mlcv.data",
    "MultiLabelModule": "mlcv.methods",
    "NIHDataModule": "mlcv.data",
    "Optim": "mlcv.methods",
    "PUMLC": "mlcv.methods",
    "PatchCT": "mlcv.methods",
    "Policy": "mlcv.labels",
    "Protocol": "mlcv.labels",
    "UMultiClass": "mlcv.methods",
    "UserError": "mlcv.errors",
    "VOCDataModule": "mlcv.data",
    "audit": "mlcv.commands.audit",
    "bench": "mlcv.commands.bench",
    "calibrate": "mlcv.commands.calibrate",
    "configs": "mlcv.commands.configs",
    "data_sheet": "mlcv.commands.data_sheet",
    "ensemble": "mlcv.commands.ensemble",
    "evaluate": "mlcv.commands.evaluate",
    "export": "mlcv.commands.export",
    "features": "mlcv.commands.features",
    "init": "mlcv.commands.init",
    "merge": "mlcv.commands.merge",
    "multilabel_scores": "mlcv.metrics",
    "predict": "mlcv.commands.predict",
    "prepare": "mlcv.commands.prepare",
    "preview": "mlcv.commands.preview",
    "report": "mlcv.commands.report",
    "self_train": "mlcv.commands.self_train",
    "study": "mlcv.commands.study",
}

__all__ = [*_HOMES, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mlcv' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
