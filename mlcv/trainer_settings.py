"""What a checkpoint may say of the Trainer: numbers and words, and a few callbacks when its training goes on."""

import re
from typing import Any

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from mlcv.callbacks.cleaner import Cleaner
from mlcv.callbacks.ema import EMA
from mlcv.errors import ConfigError
from mlcv.plain_config import arguments, plain, resolve
from mlcv.trust import trusted

_EVERY_VERB = ("enable_progress_bar", "enable_model_summary", "deterministic", "benchmark", "inference_mode")
_FIT = (
    *_EVERY_VERB, "accelerator", "strategy", "devices", "num_nodes", "precision", "fast_dev_run", "max_epochs",
    "min_epochs", "max_steps", "min_steps", "max_time", "limit_train_batches", "limit_val_batches",
    "overfit_batches", "val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps",
    "log_every_n_steps", "enable_checkpointing", "accumulate_grad_batches", "gradient_clip_val",
    "gradient_clip_algorithm", "use_distributed_sampler", "detect_anomaly", "barebones", "sync_batchnorm",
    "reload_dataloaders_every_n_epochs",
)  # fmt: skip
_CALLBACKS: dict[str, type[Callback]] = {
    cls.__name__: cls for cls in (Cleaner, EMA, EarlyStopping, LearningRateMonitor, ModelCheckpoint)
}
# Words, and in braces metrics as plain numbers: Python would make a slash of {step:c}, and a path of many.
_NAME = re.compile(r"(?:[\w =+-]|\.(?!\.)|(?<=\w)/(?=\w)|\{\w[\w/-]*(?::0?\d{0,2}(?:\.\d{1,2})?[dfeg]?)?\})*")
_OWN = "if the run is yours, give its configuration, too: --config <run>/config.yaml"


def settings_for_evaluation(given: Any, where: str) -> dict[str, Any]:
    """What is shown; nothing of how the checkpoint was trained binds who evaluates it.

    Args:
        given: the section of a checkpoint's configuration.
        where: the place, for errors.

    Raises:
        ConfigError: for what is neither a number nor a word.
    """
    return _plain(given, _EVERY_VERB, where)


def settings_for_training(given: Any, where: str) -> dict[str, Any]:
    """All that a training needs to go on as it began, but for what names a class or a place; as the other.

    Raises:
        ConfigError: likewise, and for a logger, profiler, plugin or callback beside Cleaner, EMA,
            EarlyStopping, LearningRateMonitor and ModelCheckpoint (in the run's own folder).
    """
    settings = _plain(given, _FIT, where)
    for name in ("logger", "profiler", "plugins"):
        value = (given or {}).get(name)
        if value is not None and not isinstance(value, bool):
            raise ConfigError(f"{where}.{name} is not taken from a checkpoint, which names no classes here; {_OWN}")
    settings["logger"] = (given or {}).get("logger")
    callbacks = (given or {}).get("callbacks") or []
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    settings["callbacks"] = [_callback(one, f"{where}.callbacks[{n}]") for n, one in enumerate(listed)] or None
    return settings


def _plain(given: Any, names: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(given, dict | None):
        raise ConfigError(f"{where} is no mapping of settings")
    settings = given or {}
    return {name: plain(settings[name], Any, f"{where}.{name}") for name in names if name in settings}


def _callback(given: Any, where: str) -> dict[str, Any]:
    name, options = (given.get("class_path"), given.get("init_args")) if isinstance(given, dict) else (given, None)
    module, _, last = str(name).rpartition(".")
    cls = _CALLBACKS.get(last) if module.startswith(("mlcv", "lightning.pytorch")) else None
    if cls is None and not trusted():
        listed = ", ".join(sorted(_CALLBACKS))
        raise ConfigError(
            f"{where}: of callbacks a checkpoint may ask for {listed}, not {str(name)[:60]!r}; if it is of a package "
            f"that you trust, add --trust PACKAGE, and {_OWN}"
        )
    cls = cls or resolve(name, Callback, where)
    checked = arguments(cls, options or {}, where)
    for key, value in checked.items():
        if isinstance(value, str) and (key == "dirpath" or _NAME.fullmatch(value) is None):
            raise ConfigError(f"{where}.{key}: a checkpoint does not say where files are written, got {value[:60]!r}")
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": checked}
