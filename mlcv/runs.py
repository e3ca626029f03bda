"""A run's folder, and the way back from its checkpoint to its data and settings."""

import copy
import functools
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcv.data.base import MultiLabelDataModule
from mlcv.errors import ConfigError
from mlcv.files import read_checkpoint
from mlcv.fingerprints import weights_fingerprint
from mlcv.methods.base import MultiLabelModule, written_by
from mlcv.methods.checkpoints import method_of
from mlcv.models.backbones import image_statistics
from mlcv.places import above, find_files
from mlcv.plain_config import build, parse, plain, spec
from mlcv.posthoc.calibrated import FILE_NAME, Calibration

logger = logging.getLogger(__name__)

CONFIG_KEY = "mlcv_config"
"""Under which a checkpoint of `mlcv fit` keeps its configuration, as YAML."""

GREY_KEY = "mlcv_grey"
"""Under which it says whether the images that it was trained on are grey."""


FOLDER_KEY = "mlcv_folder"
"""Under which it says from where the training was started: relative paths of its configuration are from there."""


def run_folder(checkpoint: Path) -> Path:
    """Of the run that a checkpoint is of."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def new_run_folder(parent: Path) -> Path:
    """Makes the next numbered folder under a parent; of runs that start together each gets its own.

    Raises:
        ConfigError: if none can be made.
    """
    check_writable(parent)
    numbers = [int(path.name) for path in parent.iterdir() if path.name.isdecimal()]
    number = max(numbers, default=-1) + 1
    while True:
        try:
            (parent / str(number)).mkdir()
        except FileExistsError:  # noqa: PERF203  # another run was faster
            number += 1
        else:
            return parent / str(number)


def check_writable(folder: Path, option: str = "--run_dir") -> None:
    """Makes a folder, and tries to write there.

    Args:
        folder: of a run, or of a file.
        option: that it is chosen by.

    Raises:
        ConfigError: if it cannot be written.
    """
    whose = "run's " if option == "--run_dir" else ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"the {whose}folder {folder} cannot be written ({error.strerror}); choose one with {option}"
        ) from error


def check_new(folder: Path) -> None:
    """Refuses a folder that holds the checkpoints of another run, which a new one would replace.

    Raises:
        ConfigError: if it does.
    """
    held = sorted([*(folder / "checkpoints").glob("*.ckpt"), *folder.glob("hpc_ckpt_*.ckpt")])
    if held:
        raise ConfigError(
            f"{folder} holds the checkpoints of a run, such as {held[0].name}, which a new one would replace: leave "
            f"--run_dir out for a folder of its own, or resume that run with --ckpt_path {folder}/checkpoints/last.ckpt"
        )


def load_data(config: dict[str, Any]) -> MultiLabelDataModule:
    """The data of a checkpoint's configuration, with what its backbone expects of images.

    Args:
        config: from `Run.config`.

    Raises:
        ConfigError: if it cannot be built here.
    """
    data = config["data"]
    given = {"statistics": image_statistics(config["model"]), **data["init_args"]}
    built: MultiLabelDataModule = build({**data, "init_args": given}, MultiLabelDataModule)
    return built


_OF_FIT = {"test_after_fit": bool, "patience": int, "logger": str, "compile": str, "compile_dynamic": bool}
"""What a training goes on with as it began, and what it is; whatever else its configuration may say."""


@dataclass
class Run:
    """The run that a checkpoint is of: the way back to its method and its data. The file is read once.

    Args:
        checkpoint: path of a checkpoint of `mlcv fit`.
        option: what the user calls it, for errors.
    """

    checkpoint: Path
    option: str = "--ckpt_path"

    @property
    def folder(self) -> Path:
        """Where its results are."""
        return run_folder(self.checkpoint)

    @functools.cached_property
    def contents(self) -> dict[str, Any]:
        """Of the file.

        Raises:
            ConfigError: as `read_checkpoint`.
        """
        return read_checkpoint(self.checkpoint, self.option)

    @property
    def where(self) -> str:
        """The file, for errors."""
        return written_by(self.contents, f"{self.option}: {self.checkpoint}")

    def method(self) -> MultiLabelModule:
        """With its weights, in evaluation mode.

        Raises:
            ConfigError: as `method_of`.
        """
        contents = dict(self.contents)
        if isinstance(contents.get("hyper_parameters"), dict):
            contents["hyper_parameters"] = self._with_files(contents["hyper_parameters"])
        return method_of(contents, self.where)

    def config(self, trainer: Callable[[Any, str], dict[str, Any]] | None = None) -> dict[str, Any]:
        """Of the configuration in it what a stranger may say: `model`, `data` and the seed.

        Args:
            trainer: takes what it lets pass of the Trainer's settings, given with their place, for a `trainer`, too
                (see `mlcv.trainer_settings`), beside what `mlcv fit` has of its own: whether a test follows, patience,
                where it is logged and how it is compiled.

        Raises:
            ConfigError: if it carries none, or one that is no plain data: see `mlcv.plain_config`.
        """
        text, where = self.contents.get(CONFIG_KEY), self.where
        if text is None:
            raise ConfigError(f"{where} carries no configuration (it is not from `mlcv fit`); name one with --config")
        tree = parse(text, f"{where}: its configuration")
        config: dict[str, Any] = {
            "model": spec(tree.get("model"), MultiLabelModule, f"{where}: model"),
            "data": spec(tree.get("data"), MultiLabelDataModule, f"{where}: data"),
        }
        config = self._with_files(config)
        if trainer is not None:
            config["trainer"] = trainer(tree.get("trainer"), f"{where}: trainer")
            config |= {name: tree[name] for name, kind in _OF_FIT.items() if isinstance(tree.get(name), kind)}
        if tree.get("seed_everything") is not None:
            config["seed_everything"] = plain(tree["seed_everything"], bool | int, f"{where}: seed_everything")
        return config

    def _with_files(self, given: dict[str, Any]) -> dict[str, Any]:
        """With relative paths as they are from here."""
        config, started = copy.deepcopy(given), self.contents.get(FOLDER_KEY)
        folders = [Path(started)] if isinstance(started, str) and Path(started).is_absolute() else []
        for note in find_files(config, [*folders, *above(self.checkpoint)]):
            logger.info(note)
        return config

    def data(self, **changes: Any) -> MultiLabelDataModule:
        """What it was trained on, with what its backbone expects of images; the sources where `prepared` is gone.

        Args:
            changes: arguments that differ from the configuration's; those that are None do not.

        Raises:
            ConfigError: as `config` and `load_data`.
        """
        config = self.config()
        given = {name: value for name, value in changes.items() if value is not None}
        config["data"]["init_args"] = {**config["data"]["init_args"], **given}
        data = load_data(config)
        if data.prepared is not None and not data.prepared.is_dir():
            data.prepared = None
        return data

    def fingerprint(self) -> str:
        """Of its weights."""
        return weights_fingerprint(self.contents["state_dict"])

    def calibration(self, named: str | None, class_names: tuple[str, ...]) -> Calibration | None:
        """As `find_calibration`."""
        return find_calibration(named, self.checkpoint, class_names, self.fingerprint())


def calibration_file(named: str | None, checkpoint: Path) -> Path:
    """The one that was named, or where that of the checkpoint's run is, if there is one."""
    return Path(named) if named is not None else run_folder(checkpoint) / FILE_NAME


def find_calibration(
    named: str | None, checkpoint: Path, class_names: tuple[str, ...], model: str | None
) -> Calibration | None:
    """The one that was named, or that of the checkpoint's run; None if there is none, or `none` was named.

    Args:
        named: path of a file, or `none`.
        checkpoint: whose decisions are asked for.
        class_names: C names.
        model: fingerprint of the checkpoint's weights.

    Raises:
        ConfigError: for a file that cannot be read, is of other classes, or was made of another model's predictions.
    """
    path = calibration_file(named, checkpoint)
    if named == "none" or (named is None and not path.is_file()):
        return None
    calibration = Calibration.load(path, class_names)
    if calibration.model not in (None, model):
        raise ConfigError(
            f"{path} was made of the predictions of another model ({calibration.model}; {checkpoint} is {model}). Make "
            f"it again (mlcv validate --ckpt_path {checkpoint}, then mlcv calibrate), or go without: --calibration none"
        )
    logger.info("calibrated by %s: thresholds for %s", path, calibration.goal)
    return calibration
