"""LightningCLI with this project's conventions: run folders, links, checkpoints that know their configuration."""

import logging
import os
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

import mlcv.data
from mlcv.allocator import keep_freed_memory
from mlcv.callbacks.non_finite import StopOnNonFiniteLoss
from mlcv.callbacks.predictions import PredictionWriter
from mlcv.callbacks.random_state import KeepRandomState
from mlcv.callbacks.results import Decide, ResultsWriter, keep_earlier
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.image_files import ImageFilesDataModule
from mlcv.errors import ConfigError, find_user_error
from mlcv.explain import explain, option_names
from mlcv.methods.base import MultiLabelModule
from mlcv.methods.checkpoints import CONFIG_KEY, read_checkpoint, run_folder
from mlcv.models.backbones import image_statistics
from mlcv.posthoc.stored import find_calibration

logger = logging.getLogger(__name__)

_OF_EVERY_DATA = ("image_size", "batch_size", "num_workers", "augment", "statistics", "max_megapixels")

RUN_DIR_VARIABLE = "MLCV_RUN_DIR"
"""How the first process tells those it starts where the run's folder is."""


class Parser(LightningArgumentParser):
    """Says what is wrong with an option in one sentence, and which option comes nearest."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        user_error = find_user_error(ex) if ex is not None else None
        raise user_error or ConfigError(explain(message, sys.argv[1:], option_names(self))) from ex


class ConfigKeeper(SaveConfigCallback):
    """Writes the full configuration to the run's folder, and into every checkpoint."""

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        path = Path(trainer.default_root_dir) / "config.yaml"
        keep_earlier(path)
        path.write_text(self._text(), encoding="utf-8")

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[CONFIG_KEY] = self._text()

    def _text(self) -> str:
        text: str = self.parser.dump(self.config, skip_none=False, skip_validation=True)
        return text


class TrainingCLI(LightningCLI):
    """`mlcv fit | validate | test | predict`; see `mlcv.cli` for what comes before it."""

    @classmethod
    def run(cls, arguments: list[str]) -> None:
        """Parses and runs a command.

        Args:
            arguments: what stands behind `mlcv` on the command line.
        """
        set_up_logging()
        keep_freed_memory()
        with tempfile.TemporaryDirectory() as folder:
            sys.argv[1:] = with_checkpoint_config(arguments, Path(folder))
            cls(
                MultiLabelModule,
                MultiLabelDataModule,
                subclass_mode_model=True,
                subclass_mode_data=True,
                save_config_callback=ConfigKeeper,
                save_config_kwargs={"save_to_log_dir": False},
                seed_everything_default=0,
                auto_configure_optimizers=False,
                parser_class=Parser,
            )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="The run's folder; by default runs/<config>/<next number>, or the checkpoint's.",
        )
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="Test the best checkpoint when training is done."
        )
        parser.add_argument(
            "--predictions",
            type=str | None,
            default=None,
            help="File that predict writes, .csv or .jsonl; by default predictions.csv in the run's folder.",
        )
        parser.add_argument(
            "--calibration",
            type=str | None,
            default=None,
            help="File of `mlcv calibrate` for test and predict; by default calibration.json of the run, if any.",
        )
        for name in ("num_classes", "class_names", "image_size"):
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments("model", "data.init_args.statistics", compute_fn=image_statistics, apply_on="parse")

    def _parse_ckpt_path(self) -> None:
        """Lightning reads a checkpoint's hyperparameters here; `with_checkpoint_config` has read its whole config."""

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self.run_dir = self._run_dir(config)
        config.run_dir = str(self.run_dir)
        config.trainer.default_root_dir = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self._get(self.config_init, "trainer")
        fitting = self.subcommand == "fit"
        if given.get("logger") in (None, True):
            kwargs["logger"] = self._loggers() if fitting else False
        decide = self._decide() if self.subcommand in ("test", "predict") else None
        callbacks = [*(given.get("callbacks") or []), ResultsWriter(self.run_dir, decide)]
        if self.subcommand == "predict":
            path = self._get(self.config, "predictions")
            writer = PredictionWriter(path or self.run_dir / "predictions.csv", decide)
            callbacks.append(writer)
            if isinstance(self.datamodule, ImageFilesDataModule):
                self.datamodule.done = writer.done()
        if fitting:
            callbacks += [StopOnNonFiniteLoss(), KeepRandomState()]
            if given.get("enable_checkpointing") is not False:
                callbacks += _checkpoints(self.run_dir)
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def _decide(self) -> Decide | None:
        """What a calibration makes of probabilities, and the labels that it chooses; None without one."""
        named, checkpoint = (self._get(self.config, key) for key in ("calibration", "ckpt_path"))
        path = Path(named) if named else None
        if path is None and not checkpoint:
            return None
        calibration = find_calibration(path, Path(checkpoint or "."), tuple(self.datamodule.class_names))
        return calibration.decide if calibration is not None else None

    def fit(self, **kwargs: Any) -> None:
        """Trains; on Ctrl-C says how to resume."""
        try:
            self.trainer.fit(**{**kwargs, "weights_only": True})
        except SystemExit:
            last = self.run_dir / "checkpoints" / "last.ckpt"
            if self.trainer.is_global_zero and last.is_file():
                sys.stderr.write(f"mlcv: stopped. To resume: mlcv fit --ckpt_path {last}\n")
            raise KeyboardInterrupt from None

    def after_fit(self) -> None:
        """Tests the best checkpoint, or the last weights where no validation chose one, if asked to."""
        config = self.config[self.subcommand]
        if config.test_after_fit and not config.trainer.fast_dev_run:
            best = self.run_dir / "checkpoints" / "best.ckpt"
            path = str(best) if best.is_file() else None  # without validation there is no best
            self.trainer.test(self.model, self.datamodule, ckpt_path=path, verbose=False, weights_only=True)

    def validate(self, **kwargs: Any) -> None:
        """Evaluates on the validation split."""
        self.trainer.validate(**{**kwargs, "verbose": False, "weights_only": True})

    def test(self, **kwargs: Any) -> None:
        """Evaluates on the test split."""
        self.trainer.test(**{**kwargs, "verbose": False, "weights_only": True})

    def predict(self, **kwargs: Any) -> None:
        """Predicts the test split."""
        self.trainer.predict(**{**kwargs, "return_predictions": False, "weights_only": True})

    def _run_dir(self, config: Namespace) -> Path:
        if config.run_dir is not None:
            path = Path(config.run_dir)
        elif config.get("ckpt_path"):
            path = run_folder(Path(config.ckpt_path))
        elif RUN_DIR_VARIABLE in os.environ and "LOCAL_RANK" in os.environ:
            return Path(os.environ[RUN_DIR_VARIABLE])
        else:
            path = _next_run_dir(Path("runs") / _experiment(config))
        _make_writable(path)
        os.environ[RUN_DIR_VARIABLE] = str(path)
        return path

    def _loggers(self) -> list[CSVLogger | TensorBoardLogger]:
        # A resumed run would delete the file of the first part.
        keep_earlier(self.run_dir / "metrics.csv")
        return [CSVLogger(self.run_dir, name="", version=""), TensorBoardLogger(self.run_dir, name="", version="")]


def with_checkpoint_config(arguments: list[str], folder: Path) -> list[str]:
    """Puts the configuration that a checkpoint carries in front of the other arguments, if they name no config.

    Args:
        arguments: subcommand and options.
        folder: where to write the configuration; it must exist until the arguments are parsed.

    Raises:
        ConfigError: if the checkpoint is missing, unreadable, would run code, or carries no configuration.
    """
    options = [argument.split("=")[0] for argument in arguments]
    if {"-c", "--config", "-h", "--help"} & set(options) or "--ckpt_path" not in options:
        return arguments
    place = options.index("--ckpt_path")
    value = arguments[place].partition("=")[2] or "".join(arguments[place + 1 : place + 2])
    checkpoint = read_checkpoint(Path(value))
    config = yaml.safe_load(checkpoint.get(CONFIG_KEY, "null"))
    if config is None:
        raise ConfigError(f"{value} carries no configuration (it is not from `mlcv fit`); name one with --config")
    for own in ("ckpt_path", "weights_only", "run_dir", "test_after_fit", "predictions", "calibration"):
        config.pop(own, None)
    if arguments[0] == "predict" and "--data.path" in options and "--data" not in options:
        config["data"] = _for_images(config["data"], checkpoint)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return [arguments[0], "--config", str(path), *arguments[1:]]


def _for_images(data: dict[str, Any], checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Configuration of images without labels, as the model of a checkpoint expects them."""
    given = data["init_args"]
    kept = {key: given[key] for key in _OF_EVERY_DATA if key in given}
    known = getattr(mlcv.data, data["class_path"].rpartition(".")[2], None)
    names = checkpoint["hyper_parameters"]["class_names"]
    arguments = {**kept, "classes": list(names), "grey": bool(getattr(known, "grey", False)), "path": ""}
    return {"class_path": "mlcv.data.ImageFilesDataModule", "init_args": arguments}


class _Terminal(logging.Handler):
    """Writes to whatever standard error is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def set_up_logging() -> None:
    """This project says what it does; Lightning, only what a user needs."""
    ours = logging.getLogger("mlcv")
    # What every process would say alike, the first says.
    ours.setLevel(logging.INFO if os.environ.get("LOCAL_RANK", "0") == "0" else logging.WARNING)
    if not ours.handlers:
        ours.addHandler(_Terminal())
    # Frozen parts stay in evaluation mode by our own choice.
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
    # Lightning advertises its other products at each start.
    theirs = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    theirs.addFilter(lambda record: "Tip: For seamless" not in record.getMessage())


def _experiment(config: Namespace) -> str:
    """A name for the run's folder: that of the last config file with its folder, else of the method."""
    for entry in reversed(config.get("config") or []):
        path = Path(str(entry))
        return path.stem if path.parent.name in ("", ".", "configs") else f"{path.parent.name}-{path.stem}"
    return str(config.model.class_path).rpartition(".")[2].lower()


def _next_run_dir(parent: Path) -> Path:
    numbers = [int(path.name) for path in parent.glob("*") if path.name.isdigit()] if parent.is_dir() else []
    return parent / str(max(numbers, default=-1) + 1)


def _make_writable(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(
            f"the run's folder {path} cannot be written ({error.strerror}); choose one with --run_dir"
        ) from error


def _checkpoints(run_dir: Path) -> list[ModelCheckpoint]:
    """The best by validation, which `test` takes, and the last epoch's: `save_last` follows new bests only."""
    folder: dict[str, Any] = {"dirpath": run_dir / "checkpoints", "enable_version_counter": False}
    best = ModelCheckpoint(**folder, filename="best", monitor="val/mAP", mode="max")
    last = ModelCheckpoint(**folder, filename="last", save_on_train_epoch_end=True)
    return [best, last]
