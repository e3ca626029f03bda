"""LightningCLI with this project's conventions: run folders, links, checkpoints that know their configuration."""

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, cast

from jsonargparse import Namespace, set_parsing_settings
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from torch import Tensor

from mlcv import __version__
from mlcv.allocator import keep_freed_memory
from mlcv.callbacks.choice import judging, shown
from mlcv.callbacks.loggers import Tracker, loggers
from mlcv.callbacks.non_finite import StopOnNonFiniteLoss
from mlcv.callbacks.patience import MONITOR
from mlcv.callbacks.predictions import PredictionWriter
from mlcv.callbacks.random_state import KeepRandomState
from mlcv.callbacks.results import ResultsWriter
from mlcv.callbacks.resuming import TRAINED_ON, Resuming
from mlcv.checkpoint_arguments import CommandLine, read_command_line
from mlcv.commands.config_keeper import ConfigKeeper
from mlcv.commands.mistakes import blaming_options, check_values, class_list, part_to_list
from mlcv.commands.parser import Parser, with_usual_loss
from mlcv.commands.starting import check_start, plan_more_epochs, start_from
from mlcv.data.base import MultiLabelDataModule
from mlcv.data.image_files import ImageFilesDataModule
from mlcv.data.samples import Split
from mlcv.errors import ConfigError, Stopped, find_user_error, one_line
from mlcv.fingerprints import fingerprint_of, weights_fingerprint
from mlcv.launchers import RUN_DIR_VARIABLE, run_dir_of_first, starts_apart
from mlcv.methods.base import OF_THE_DATA, MultiLabelModule
from mlcv.methods.compiling import CompileMode, compile_steps
from mlcv.models.backbones import image_statistics
from mlcv.models.starting_weights import weights_of
from mlcv.places import above, find_files
from mlcv.posthoc.calibrated import Calibration
from mlcv.runs import (
    Run,
    calibration_file,
    check_new,
    check_writable,
    find_calibration,
    new_run_folder,
    run_folder,
)
from mlcv.stopping import request
from mlcv.terminal import set_up_logging
from mlcv.trust import TRUST_HELP

logger = logging.getLogger(__name__)

_NO_MATTER = ("batch_size", "num_workers", "check", "on_error")
"""Of the data's arguments, those that no prediction depends on."""


class TrainingCLI(LightningCLI):
    """`mlcv fit | validate | test | predict`; see `mlcv.cli` for what comes before it."""

    fresh_folder: ClassVar[Path | None] = None
    """Of a run that has just begun."""
    state: dict[str, Tensor] | None = None
    """The weights of the checkpoint, if one is given."""
    calibrated_by: str | None = None
    resumable: ClassVar[bool] = True
    """Whether each epoch leaves a checkpoint to go on from."""
    first_step: int | None = None
    """Of a training that goes on in its folder."""

    @classmethod
    def run(cls, arguments: list[str]) -> None:
        """Parses and runs a command.

        Args:
            arguments: what stands behind `mlcv` on the command line.
        """
        set_up_logging()
        keep_freed_memory()
        # A second lock: no class may stand where a type hint is open, and what runs commands is never imported.
        set_parsing_settings(instantiate_subclass_spec_in_any=False, import_path_denylist=[])
        arguments = ["--help" if argument == "--help_all" else argument for argument in arguments]
        cls.fresh_folder, line = None, read_command_line(arguments)
        try:
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
                args=cast("Any", line),
            )
        finally:
            if cls.fresh_folder is not None:
                with suppress(OSError):
                    cls.fresh_folder.rmdir()  # which works as long as nothing has been written there

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Without what Lightning offers and this project decides."""
        ours = {"weights_only", "verbose", "return_predictions"}
        return {verb: skipped | ours for verb, skipped in LightningCLI.subcommands().items()}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument(
            "--run_dir",
            type=str | None,
            default=None,
            help="The run's folder; by default runs/<config>/<next number>, or the checkpoint's.",
        )
        parser.epilog = TRUST_HELP
        parser.add_argument(
            "--test_after_fit", type=bool, default=False, help="Test the best checkpoint when training is done."
        )
        parser.add_argument(
            "--start_from",
            type=str | None,
            default=None,
            help="Checkpoint whose weights a new training begins with, where they fit; classes are matched by name.",
        )
        parser.add_argument(
            "--more_epochs",
            type=int | None,
            default=None,
            help="Train a checkpoint so many epochs further than it was planned, by a schedule of their own.",
        )
        parser.add_argument(
            "--patience",
            type=int | None,
            default=None,
            help=f"Stop training after so many validations in a row without a new best {MONITOR}.",
        )
        parser.add_argument(
            "--logger", type=Tracker | None, default=None, help="A tracker of experiments, beside the run's own files."
        )
        parser.add_argument(
            "--compile",
            type=CompileMode | None,
            default=None,
            help="Compile forward pass and objective by torch.compile: minutes at the start, faster steps.",
        )
        parser.add_argument(
            "--compile_dynamic",
            type=bool | None,
            default=None,
            help="Compile for batches of all sizes at once (true), anew for each (false), or as torch.compile decides.",
        )
        parser.add_argument(
            "--untrained", type=bool, default=False, help="Evaluate the network as the config starts it."
        )
        parser.add_argument(
            "--predictions",
            type=str | None,
            default=None,
            help="File that predict writes: .csv, .jsonl, or .npy to learn from; by default predictions.csv in the "
            "run's folder.",
        )
        parser.add_argument(
            "--split",
            type=Split,
            default="test",
            help="The split that predict shows, always as an evaluation would see it.",
        )
        parser.add_argument(
            "--calibration",
            type=str | None,
            default=None,
            help="File of `mlcv calibrate` for test and predict, or none; by default the run's own, but for .npy.",
        )
        for name in OF_THE_DATA:
            parser.link_arguments(f"data.{name}", f"model.init_args.{name}", apply_on="instantiate")
        parser.link_arguments("model", "data.init_args.statistics", compute_fn=image_statistics, apply_on="parse")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.line = args if isinstance(args, CommandLine) else CommandLine(args)
        if self.line.config is not None:
            self._subcommand_parsers[self.line.arguments[0]].set_defaults(self.line.config)
        Parser.arguments = self.line.arguments
        self.config = parser.parse_args(with_usual_loss(parser, self.line.arguments))

    def instantiate_classes(self) -> None:
        """A checkpoint brings all weights, so that none are looked for elsewhere."""
        for part in ("model", "data", "trainer"):
            check_values(self._get(self.config, part).as_dict(), part)
        trainer = self._get(self.config, "trainer")
        for name in ("accumulate_grad_batches", "check_val_every_n_epoch"):
            if trainer.get(name) is not None and trainer[name] < 1:
                raise ConfigError(f"option 'trainer.{name}' is at least 1, got {trainer[name]}")
        with weights_of(self.state), blaming_options():
            super().instantiate_classes()
        self.model.more_epochs, start = (self._get(self.config, name) for name in ("more_epochs", "start_from"))
        if start is not None:
            start_from(self.model, Path(start))
        if (mode := self._get(self.config, "compile")) is not None:
            logger.info("compiling with the first batches, which may take minutes")
            compile_steps(self.model, mode, self._get(self.config, "compile_dynamic"))

    def _parse_ckpt_path(self) -> None:
        """Lightning reads a checkpoint's hyperparameters here; `read_command_line` has read its whole config."""

    def find_files(self, config: Namespace) -> None:
        """Replaces relative paths that lie where a config does, see `mlcv.places`, and says which."""
        files = [Path(str(entry)) for entry in config.get("config") or []]
        typed = {argument.partition("=")[0].lstrip("-").rpartition(".")[2] for argument in self.line.arguments}
        for note in find_files(config, [folder for file in reversed(files) for folder in above(file)], typed):
            logger.info(note)

    def before_instantiate_classes(self) -> None:
        config = self.config[self.subcommand]
        self.find_files(config)
        path = config.get("ckpt_path")
        # Checked before Lightning reads it.
        run = (self.line.run or Run(Path(path))) if path else None
        self.state = run.contents["state_dict"] if run is not None else None
        self.trained_on = run.contents.get(TRAINED_ON, {}) if run is not None else None
        check_start(config)
        plan_more_epochs(config, run)
        self.line = CommandLine(self.line.arguments)  # the rest of the checkpoint need not stay in memory
        if self.subcommand != "fit" and not path and not config.untrained:
            raise ConfigError(
                f"mlcv {self.subcommand} needs --ckpt_path <run>/checkpoints/best.ckpt: weights are random without. "
                "For a network as its config starts it (a CLIP's zero-shot result) say --untrained true"
            )
        self.run_dir = self._run_dir(config)
        goes_on = run is not None and run.folder.resolve() == self.run_dir.resolve()
        self.first_step = run.contents.get("global_step") if run is not None and goes_on else None
        config.run_dir = str(self.run_dir)
        config.trainer.default_root_dir = str(self.run_dir)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        given = self._get(self.config_init, "trainer")
        fitting = self.subcommand == "fit"
        if given.get("logger") in (None, True):
            name, parts = self._get(self.config, "logger"), ("model", "data", "trainer")
            config = {part: self._get(self.config, part).as_dict() for part in parts}
            kwargs["logger"] = loggers(self.run_dir, self.first_step, name, config) if fitting else False
        elif fitting and self._get(self.config, "logger") is not None:
            raise ConfigError("--logger stands beside the run's own files: give that or trainer.logger, not both")
        state = self.model.state_dict() if self.state is None else self.state
        model = None if fitting else weights_fingerprint(state)
        calibration = self._calibration(model) if self.subcommand in ("test", "predict") else None
        decide = calibration.decide if calibration is not None else None
        own = given.get("callbacks") or []
        own = own if isinstance(own, list) else [own]  # as a Trainer takes one by itself, too
        results = ResultsWriter(self.run_dir, decide, model, self.calibrated_by, None if fitting else self.trained_on)
        callbacks = [*shown(given, own), *own, results]
        if self.subcommand == "predict":
            path = Path(self._get(self.config, "predictions") or self.run_dir / "predictions.csv")
            writer = PredictionWriter(path, decide, model, self._made_by(model, calibration))
            callbacks.append(writer)
            self.datamodule.predict_split = self._get(self.config, "split")
            if isinstance(self.datamodule, ImageFilesDataModule):
                self.datamodule.done = writer.done()
        if fitting:
            callbacks += [StopOnNonFiniteLoss(), KeepRandomState(), Resuming()]
            callbacks += judging(self.run_dir, given, self._get(self.config, "patience"), resumable=self.resumable)
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def _calibration(self, model: str | None) -> Calibration | None:
        """The one that was asked for, or the run's, but for what is to learn from; None without one."""
        named, checkpoint, path = (self._get(self.config, key) for key in ("calibration", "ckpt_path", "predictions"))
        if named is None and (not checkpoint or str(path).endswith(".npy")):
            return None
        found = find_calibration(named, path := Path(checkpoint or "."), tuple(self.datamodule.class_names), model)
        self.calibrated_by = None if found is None else f"{calibration_file(named, path)}: {found.about()}"
        return found

    def _made_by(self, model: str | None, calibration: Calibration | None) -> str:
        """Of all that a prediction depends on, but for the image's own content."""
        data = self._get(self.config, "data").as_dict()
        given = {name: value for name, value in data["init_args"].items() if name not in _NO_MATTER}
        precision = self._get(self.config, "trainer").precision
        method = dict(self.model.hparams)
        split = self._get(self.config, "split")
        return fingerprint_of(model, calibration, data["class_path"], given, split, method, precision, __version__)

    def fit(self, **kwargs: Any) -> None:
        """Trains; if it is stopped, says how to resume."""
        last = self.run_dir / "checkpoints" / "last.ckpt"
        begun = self._get(self.config, "ckpt_path")
        logger.info("run: %s%s", self.run_dir, f", which goes on from {begun}" if begun else "")
        if self._tests_after_fit:
            self.datamodule.setup("test")  # what is wrong there is said before the first epoch
        nothing = "Nothing to resume from: last.ckpt follows an epoch"
        resume = f"To resume: mlcv fit --ckpt_path {last}"
        self._call(self.trainer.fit, lambda: resume if last.is_file() else nothing, kwargs)

    @property
    def _tests_after_fit(self) -> bool:
        config = self.config[self.subcommand]
        return bool(config.test_after_fit and not config.trainer.fast_dev_run)

    def after_fit(self) -> None:
        """Tests the best checkpoint, or the last weights where no validation chose one, if asked to."""
        if self._tests_after_fit:
            best = self.run_dir / "checkpoints" / "best.ckpt"
            last = best.with_name("last.ckpt")  # without validation there is no best
            path = next((str(one) for one in (best, last) if one.is_file()), None)
            given = {"model": self.model, "datamodule": self.datamodule, "ckpt_path": path, "verbose": False}
            self._call(self.trainer.test, lambda: f"To test: mlcv test --ckpt_path {best}", given)

    def validate(self, **kwargs: Any) -> None:
        """Evaluates on the validation split."""
        self._call(self.trainer.validate, str, {**kwargs, "verbose": False})

    def test(self, **kwargs: Any) -> None:
        """Evaluates on the test split."""
        self._call(self.trainer.test, str, {**kwargs, "verbose": False})

    def predict(self, **kwargs: Any) -> None:
        """Predicts images, or a split."""
        self._call(
            self.trainer.predict,
            lambda: "What is predicted is kept: give the same command again to go on",
            {**kwargs, "return_predictions": False},
        )

    def _call(self, run: Callable[..., Any], advice: Callable[[], str], arguments: dict[str, Any]) -> None:
        """Calls one of the Trainer's methods, as what a user can understand if it ends early."""
        connector, asked = self.trainer._signal_connector, request()
        asked.waits = lambda: bool(connector._original_handlers)  # the Trainer's own handler ends the step first
        before = signal.getsignal(signal.SIGINT)
        try:
            if arguments.get("ckpt_path") is None:  # else Lightning would take a cluster's, unread by this project
                self.trainer._checkpoint_connector._user_managed = True
            run(**{**arguments, "weights_only": True})
        except (SystemExit, KeyboardInterrupt):
            raise Stopped(asked.signum or signal.SIGINT, advice()) from None
        except Exception as error:
            if asked.signum is not None:  # the workers were asked, too, and ended first
                raise Stopped(asked.signum, advice()) from None
            is_restoring = bool(self.trainer._checkpoint_connector._loaded_checkpoint)
            if not is_restoring or find_user_error(error) is not None:
                raise
            raise ConfigError(
                f"--ckpt_path: the checkpoint does not fit this model and training ({one_line(error)})"
            ) from error
        finally:
            if signal.getsignal(signal.SIGINT) != before:  # after Ctrl-C Lightning ignores the next ones
                signal.signal(signal.SIGINT, before)

    def _run_dir(self, config: Namespace) -> Path:
        told = run_dir_of_first()
        if told is not None:
            return Path(told)
        checkpoint = config.get("ckpt_path")
        resumed = run_folder(Path(checkpoint)) if checkpoint else None
        path = Path(config.run_dir) if config.run_dir is not None else resumed
        if path is None and starts_apart():
            raise ConfigError("processes that are started apart, as by torchrun or srun, need one --run_dir")
        if path is None:
            path = TrainingCLI.fresh_folder = new_run_folder(Path("runs") / _experiment(config))
        check_writable(path)
        if self.subcommand == "fit" and (resumed is None or path.resolve() != resumed.resolve()):
            check_new(path)  # on all processes alike: none writes before all have met
        os.environ[RUN_DIR_VARIABLE] = str(path)
        return path


def main(arguments: list[str]) -> None:
    """Runs one of Lightning's subcommands, the first argument, with its options.

    Raises:
        UserError: for whatever a user can mend.
    """
    if part := part_to_list(arguments):
        print(class_list(part))  # noqa: T201  # help is for the terminal
        return
    TrainingCLI.run(arguments)


def _experiment(config: Namespace) -> str:
    """A name for the run's folder: that of the last config file with its folder, else of the method."""
    for entry in reversed(config.get("config") or []):
        path = Path(str(entry))
        if path.name == "config.yaml" and path.parent.name.isdigit():  # a run's own
            return path.parent.parent.name
        return path.stem if path.parent.name in ("", ".", "configs") else f"{path.parent.name}-{path.stem}"
    return str(config.model.class_path).rpartition(".")[2].lower()
