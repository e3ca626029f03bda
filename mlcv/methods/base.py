"""What every method shares: hyperparameters that survive a checkpoint, parameter groups, evaluation."""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR
from typing_extensions import Self

from mlcv import __version__
from mlcv.errors import ConfigError, DataError
from mlcv.files import read_checkpoint
from mlcv.losses.base import check_may_see, may_see
from mlcv.losses.memory import Memory
from mlcv.methods.arguments import class_path, plain_arguments
from mlcv.methods.optim import Optim, parameter_groups
from mlcv.metrics.outputs import EvaluationOutputs, Outputs
from mlcv.metrics.pointing import PointingGame
from mlcv.metrics.scores import Scores, multilabel_scores
from mlcv.metrics.thresholds import choose_thresholds, tuned_f1
from mlcv.models.head import as_grid
from mlcv.models.starting_weights import weights_of
from mlcv.numerics import at_least_float32
from mlcv.plain_config import arguments, construct, parameters

CLASS_KEY = "_class_path"
"""Under which a checkpoint's hyperparameters name the method."""

VERSION_KEY = "mlcv_version"
"""Under which it says what version of mlcv has written it."""

MEMORY_KEY = "memory"
"""Under which it holds what a loss remembers of the training images."""

OF_THE_DATA = ("num_classes", "class_names", "image_size")
"""Arguments of methods that the command line takes from the data."""

Batch = dict[str, Any]
"""`image` (B, 3, H, W), `target` (B, C), `index` (B,); a data set may add to it."""


class MultiLabelModule(LightningModule):
    """Base of all methods: a subclass builds `backbone`, and `loss` if it has one; and `head`, or writes `forward`.

    `BackboneMethod` builds the backbone, too.

    After an evaluation epoch, `scores` holds its results and `evaluated` what they are of, until the next one.
    Validation also chooses the thresholds that are best for CF1 and OF1; they go into the checkpoint, and a test
    reports `CF1_tuned` and `OF1_tuned` by them.

    Args:
        num_classes: label columns C; the command line takes it from the data.
        class_names: C names for tables; numbers if None.
        optim: optimizer and schedule.
        eleven_point: also log VOC 2007's 11-point mAP.
    """

    backbone: nn.Module
    head: nn.Module
    loss: nn.Module | None

    def __init__(
        self,
        num_classes: int,
        class_names: Sequence[str] | None = None,
        optim: Optim = Optim(),  # noqa: B008  # frozen
        eleven_point: bool = False,
    ) -> None:
        super().__init__()
        with warnings.catch_warnings():
            # Lightning advises to leave a loss out; then its default would come back from a checkpoint.
            warnings.filterwarnings("ignore", message="Attribute .* is an instance of `nn.Module`")
            self.save_hyperparameters(logger=False)
        # Arguments of the class itself: not what it gives its base, nor what the command line offers every method.
        taken = {name for name, _ in parameters(cast(Any, type(self)))}
        given = {name: value for name, value in self.hparams.items() if name in taken}
        self.hparams.clear()
        self._set_hparams({**plain_arguments(given), CLASS_KEY: class_path(type(self))})
        self.class_names = tuple(class_names) if class_names is not None else tuple(map(str, range(num_classes)))
        if len(self.class_names) != num_classes:
            raise ConfigError(f"{len(self.class_names)} class names were given for {num_classes} classes")
        self.num_classes, self.optim, self.eleven_point = num_classes, optim, eleven_point
        if not hasattr(type(self), "loss"):  # else it is a method or property of a user's own
            self.loss = None
        self._has_seen_labels = False
        self.collected = EvaluationOutputs()
        self.pointing = PointingGame()
        self.scores: Scores | None = None
        self.evaluated: Outputs | None = None
        self.thresholds: dict[str, float] = {}
        self.more_epochs: int | None = None
        """That a training goes on past its planned end, by a schedule of their own."""
        self._steps_before: int | None = None

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,  # noqa: ARG003  # Lightning's signature
        strict: bool | None = None,
        weights_only: bool | None = None,  # noqa: ARG003
        **kwargs: Any,
    ) -> Self:
        """The method of a checkpoint, as Lightning's own, but that nothing in the file is ever run or imported.

        Args:
            checkpoint_path: of a file that Lightning's Trainer wrote of this class.
            map_location: the device; the CPU if None.
            hparams_file: none is read.
            strict: whether the weights must be exactly the method's; so if None.
            weights_only: always.
            kwargs: arguments of the constructor that differ.

        Raises:
            ConfigError: for a file that cannot be read safely (see `mlcv.plain_config`), or is of another method.
        """
        checkpoint, where = read_checkpoint(Path(checkpoint_path)), f"checkpoint_path: {checkpoint_path}"
        where = written_by(checkpoint, where)
        method = cls.restore(checkpoint, where, strict=strict is not False, **kwargs)
        return method if map_location is None else method.to(map_location)

    @classmethod
    def restore(cls, checkpoint: dict[str, Any], where: str, *, strict: bool = True, **kwargs: Any) -> Self:
        """As `load_from_checkpoint`, of what `mlcv.files.read_checkpoint` has read; `where` it is, for errors."""
        given = checkpoint.get("hyper_parameters")
        if not isinstance(given, dict):
            raise ConfigError(f"{where} holds no hyper_parameters, so it is none of a method of this project")
        own = {name: value for name, value in given.items() if not str(name).startswith("_")}
        own = arguments(cls, own, f"{where}: hyper_parameters")
        with weights_of(checkpoint["state_dict"]):
            method = cls._built(own, kwargs)
        read = dict(checkpoint)  # a method may put in what was left out
        method.on_load_checkpoint(read)
        try:
            method.load_state_dict(read["state_dict"], strict=strict)
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{where} does not hold the weights of this {cls.__name__} ({reason[:200]})") from error
        return method

    @classmethod
    def _built(cls, own: dict[str, Any], more: dict[str, Any]) -> Self:
        """From its arguments, but those that a subclass gives its base itself."""
        try:
            return construct(cls, own, **more)  # type: ignore[no-any-return]
        except ConfigError as error:
            fixed = re.search(r"got multiple values for keyword argument '(\w+)'", str(error))
            if fixed is None or fixed[1] not in own:
                raise
        # Not above: while one exception is handled, CPython calls the next of this kind a KeyError.
        return cls._built({name: value for name, value in own.items() if name != fixed[1]}, more)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Of each class, (B, C) in [0, 1]: in float64 if the logits are, else in float32."""
        return self.exact_logits(logits).sigmoid()

    def exact_logits(self, logits: Tensor) -> Tensor:
        """The logit of each probability, which no rounding of probabilities near 0 or 1 has touched; types as there.

        A loss that weighs classes against each other moves what its optimum says; its `undo` gives logits of the
        labels' own frequencies. A method that overrides `probabilities` overrides this, too.
        """
        logits, undo = at_least_float32(logits), getattr(self.loss, "undo", None)
        return logits if undo is None else undo(logits)

    @torch.no_grad()
    def precise_probabilities(self, logits: Tensor) -> Tensor:
        """What metrics and files get: float64 on the CPU, as other devices may not have it."""
        return self.probabilities(logits.detach().cpu().double())

    @torch.no_grad()
    def ranking_scores(self, logits: Tensor) -> Tensor:
        """What images and classes are ranked by, float64 on the CPU: exact where all probabilities are 1."""
        return self.exact_logits(logits.detach().cpu().double())

    def forward(self, image: Tensor) -> Tensor:
        backbone, head = cast("Any", self.backbone), cast("Any", getattr(self, "head", None))
        if head is None:
            raise ConfigError(f"{type(self).__name__} builds no `head`, so it needs a forward of its own")
        logits: Tensor = head(backbone.features(image, head.features))
        return logits

    def forward_with_maps(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Logits (B, C), and a heat map for each class (B, C, h, w) if the method has any."""
        backbone, head = cast("Any", self.backbone), getattr(self, "head", None)
        if not getattr(head, "has_maps", hasattr(head, "maps")):
            return self(image), None
        head = cast("Any", head)
        pooled, (patches,) = backbone.pooled_and_patches(image)
        maps = head.maps(patches)
        return head(patches if head.features == "patches" else pooled), None if maps is None else as_grid(maps)

    def setup(self, stage: str) -> None:
        """Shows the training labels to `on_labels`, before a checkpoint's state is loaded."""
        if stage == "fit" and self._trainer is not None:
            self._has_seen_labels = False  # those of this training
            data: Any = getattr(self.trainer, "datamodule", None)
            loader = self.trainer.fit_loop._data_source.instance  # which a Trainer was given in Python
            known = getattr(data, "datasets", None)
            self._show_labels(known.get("train") if isinstance(known, dict) else getattr(loader, "dataset", None))

    def _show_labels(self, dataset: Any) -> None:
        targets = getattr(dataset, "targets", None)
        if isinstance(targets, Tensor) and not self._has_seen_labels:
            self._has_seen_labels = True
            self.on_labels(targets)

    def on_labels(self, targets: Tensor) -> None:
        """Looks at the labels of all training images, once, before training: for label graphs, priors and the like.

        They are the `targets` of the training loader's dataset; without such an attribute it is not called.

        Args:
            targets: (N, C), after protocol and policy; see `mlcv.labels`.

        Raises:
            ConfigError: if the loss has no answer to unknown labels, and there are some.
        """
        if self.loss is not None:
            check_may_see(self.loss, targets)
        if hasattr(self.loss, "on_labels"):
            self.loss.on_labels(targets, self.class_names)  # type: ignore[union-attr,operator]

    def on_train_start(self) -> None:
        loader: Any = self.trainer.train_dataloader
        self._show_labels(getattr(loader, "dataset", None))  # of other DataModules, whose loaders were not there before
        if hasattr(self.loss, "plan_epochs"):
            self.loss.plan_epochs(self.trainer.max_epochs)  # type: ignore[union-attr,operator]
        schedule, steps = self.lr_schedulers(), self.trainer.estimated_stepping_batches
        if self.more_epochs is not None:
            for group, fresh in zip(self.trainer.optimizers[0].param_groups, self._fresh_groups, strict=True):
                group.update(fresh)  # the checkpoint's are at their end
            return
        if not isinstance(schedule, OneCycleLR):
            return
        ahead = schedule.last_epoch + steps - self.global_step  # both as the checkpoint says
        if ahead > schedule.total_steps:
            raise ConfigError(
                f"the checkpoint's learning rate was planned for {schedule.total_steps} steps and is at 0 then; "
                f"{ahead} are asked for. Go on past it with --more_epochs N in place of trainer.max_epochs, or begin a "
                "new training with its weights: --start_from"
            )

    def on_train_epoch_start(self) -> None:
        if hasattr(self.loss, "start_epoch"):
            self.loss.start_epoch(self.current_epoch)  # type: ignore[union-attr,operator]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        if self.loss is not None:
            check_may_see(self.loss, batch["target"])  # looks at targets only for losses of other origin
        loss, parts = self.objective(batch)
        if parts and self.is_logged_step:
            self.log_dict({f"train/{name}": value for name, value in parts.items()})
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch["target"]))
        return loss

    def objective(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What a step lowers, and numbers to log with it by their names. It is one graph for `torch.compile`."""
        return self._loss(self(batch["image"]), batch["target"], batch.get("index")), {}

    def _loss(self, logits: Tensor, targets: Tensor, index: Tensor | None = None) -> Tensor:
        """The loss of a batch; with the images' `index`, as training has it, one with a memory reads and writes it."""
        if self.loss is None:
            raise ConfigError(f"{type(self).__name__} has no `loss`, so it needs a training_step of its own")
        remembered = () if self._memory is None else self._memory.rows(index, self.training)
        loss: Tensor = self.loss(logits, targets, *remembered)
        if loss.ndim:
            raise ConfigError(f"model.loss: has shape {tuple(loss.shape)}, and one number is needed, such as the mean")
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        if self.is_logged_step:
            self.log("train/lr", optimizer.param_groups[-1]["lr"])  # the head's, which no factor scales

    @property
    def is_logged_step(self) -> bool:
        """Whether the logger writes this step. Between them nobody reads a diagnostic, and `log` costs half a ms."""
        trainer: Any = self.trainer
        every = trainer.log_every_n_steps
        return bool(every) and (self.global_step + 1) % every == 0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.collected.update(batch["index"], self(batch["image"]), batch["target"])

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        if "boxes" not in batch:
            self.validation_step(batch, batch_idx)
            return
        logits, maps = self.forward_with_maps(batch["image"])
        self.collected.update(batch["index"], logits, batch["target"])
        if maps is not None:
            self.pointing.update(batch["index"], maps, batch["boxes"], batch["target"])

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        return {"index": batch["index"], "probs": self.precise_probabilities(self(batch["image"]))}

    def on_validation_epoch_end(self) -> None:
        self._evaluate("val")

    def on_test_epoch_end(self) -> None:
        self._evaluate("test")

    def _evaluate(self, stage: Literal["val", "test"]) -> None:
        """Scores the whole split at once, so that nothing depends on the batch size or the number of processes."""
        outputs = self.collected.gather()
        self.collected.reset()
        if not len(outputs.index):
            raise DataError(f"no image of the {stage} split can be read, so there is nothing to judge")
        self.evaluated = outputs
        probs, ranks = self.precise_probabilities(outputs.logits), self.ranking_scores(outputs.logits)
        no_number = int(probs.isnan().any(dim=1).sum())
        if no_number:
            raise ConfigError(
                f"the network gives NaN for {no_number} of the {len(probs)} images of the {stage} split: its weights "
                "have become no numbers, so training has diverged. Lower model.optim.lr or model.optim.weight_decay"
            )
        self.scores = multilabel_scores(
            probs, outputs.targets, self.class_names, eleven_point=self.eleven_point, scores=ranks
        )
        if stage == "val":
            self.thresholds = choose_thresholds(probs, outputs.targets)
        else:
            self.scores.summary.update(tuned_f1(probs, outputs.targets, self.thresholds))
            if self.pointing.update_called:
                self.scores.summary["pointing_game"] = float(self.pointing.compute())
                self.pointing.reset()
        summary = {f"{stage}/{name}": value for name, value in self.scores.summary.items()}
        if self.loss is not None and may_see(self.loss, outputs.targets):  # else it has no value
            with torch.no_grad():
                summary[f"{stage}/loss"] = float(self._loss(outputs.logits, outputs.targets))
        headline = f"{stage}/mAP"
        self.log(headline, summary.pop(headline), prog_bar=True, sync_dist=True)
        self.log_dict(summary, sync_dist=True)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Backbone and rest, each with and without weight decay; what is frozen is left out."""
        return parameter_groups(self, self.backbone, self.optim)

    def configure_optimizers(self) -> Any:
        optimizer = self.optim.optimizer(self.parameter_groups())
        total, epochs = self.trainer.estimated_stepping_batches, self.trainer.max_epochs
        schedule = self.optim.scheduler(optimizer, self.optim.planned_steps(total, epochs, self._steps_before))
        self._fresh_groups = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _memory(self) -> Memory | None:
        return getattr(self.loss, "memory", None)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["thresholds"] = self.thresholds
        checkpoint[VERSION_KEY] = __version__
        if self._memory is not None:
            checkpoint[MEMORY_KEY] = self._memory.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        thresholds = checkpoint.get("thresholds", {})
        if not isinstance(thresholds, dict) or not all(type(value) is float for value in thresholds.values()):
            raise ConfigError("the checkpoint's thresholds are no numbers by name; it is damaged")
        self.thresholds = thresholds
        theirs = checkpoint.get("hyper_parameters", {}).get("class_names")
        if theirs is not None and tuple(theirs) != self.class_names:
            raise ConfigError(
                f"the checkpoint knows {len(theirs)} classes ({_some(theirs)}), the data {self.num_classes} "
                f"({_some(self.class_names)}). Use its data set, with the classes in their order, or begin a new "
                "training with its weights: --start_from in place of --ckpt_path"
            )
        if self.more_epochs is not None:
            checkpoint["lr_schedulers"] = []  # they have one of their own
            self._steps_before = int(checkpoint.get("global_step", 0))
            for state in (checkpoint.get("callbacks") or {}).values():
                if isinstance(state, dict) and "wait_count" in state:  # who had lost patience begins anew
                    state.update(wait_count=0, stopped_epoch=0)
        planned = checkpoint.get("lr_schedulers") or [{}]
        is_resumed = self._trainer is not None and self.trainer.state.fn == "fit"
        if is_resumed and self._memory is not None:
            self._memory.load(checkpoint.get(MEMORY_KEY) or {})
        if is_resumed and planned[0] and ("total_steps" in planned[0]) != (self.optim.schedule == "onecycle"):
            raise ConfigError(
                f"model.optim.schedule is {self.optim.schedule}, and the checkpoint's is another: resume with its own"
            )


def written_by(checkpoint: dict[str, Any], where: str) -> str:
    """A checkpoint's place, for errors, and the version that wrote it, if that is another than this."""
    version = checkpoint.get(VERSION_KEY, __version__)  # before 0.2.0 none said
    if version == __version__ or not re.fullmatch(r"\d[\w.+]{0,31}", str(version)):
        return where
    return f"{where} (written by mlcv {version}, this is {__version__}: if it does not open, use that version)"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
