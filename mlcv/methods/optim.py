"""The optimizer of a training, and its learning rates."""

import dataclasses
import difflib
import math
from typing import Any, Literal

from timm.optim import (  # type: ignore[attr-defined]  # not in its __all__
    create_optimizer_v2,
    list_optimizers,
    param_groups_weight_decay,
)
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR, LinearLR, LRScheduler, OneCycleLR, SequentialLR

from mlcv.errors import ConfigError, one_line


@dataclasses.dataclass(frozen=True)
class Optim:
    """The optimizer and its schedule. Norms and biases never decay.

    Args:
        name: any of timm's optimizers (adamw, adam, sgd, lamb, ...).
        lr: peak learning rate, > 0.
        weight_decay: decoupled or L2, as the optimizer has it, >= 0.
        backbone_lr_scale: factor on the backbone's learning rate, > 0; to freeze it, see `mlcv.models.Backbone`.
        schedule: `onecycle` (rise and fall, both cosine), `cosine` (linear rise, cosine fall) or `constant` (linear
            rise), stepped after every batch.
        warmup: part of the training in which the rate rises, in [0, 1).
        horizon_epochs: plan the schedule for this many epochs though fewer are trained (as ASL's recipe does: planned
            for 80, stopped at 40); None plans for what is trained.
    """

    name: str = "adamw"
    lr: float = 1e-4
    weight_decay: float = 1e-4
    backbone_lr_scale: float = 1.0
    schedule: Literal["onecycle", "cosine", "constant"] = "onecycle"
    warmup: float = 0.2
    horizon_epochs: int | None = None

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.weight_decay < 0 or self.backbone_lr_scale <= 0:
            raise ConfigError("optim: lr > 0, weight_decay >= 0 and backbone_lr_scale > 0 are needed")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optim.warmup is a part of the training, in [0, 1); got {self.warmup}")

    def optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimizer of parameter groups that have their own rates.

        Raises:
            ConfigError: if timm has none of that name, or it needs what is not on this machine.
        """
        if "adahessian" in self.name.lower():
            raise ConfigError("model.optim.name: adahessian needs second derivatives, which no training here computes")
        known: list[str] = [str(name) for name in list_optimizers()]
        if self.name.lower().removeprefix("lookahead_") not in known:
            near = ", ".join(difflib.get_close_matches(self.name.lower(), known, n=3) or ["adamw", "adam", "sgd"])
            raise ConfigError(f"model.optim.name: timm has no optimizer {self.name!r}; it has {near}, ...")
        try:
            return create_optimizer_v2(groups, opt=self.name, lr=self.lr, weight_decay=self.weight_decay)
        except (ValueError, TypeError, RuntimeError, AssertionError, ImportError) as error:
            raise ConfigError(f"model.optim.name: {self.name} cannot be used here ({one_line(error)})") from error

    def planned_steps(self, total: float, epochs: int | None, steps_before: int | None = None) -> int:
        """Of the schedule, which may go on beyond the training's end.

        Args:
            total: steps of the training.
            epochs: of the training, if it is planned by these.
            steps_before: those of a training that goes on by a schedule of its own.

        Raises:
            ConfigError: for a training without an end, or a horizon before it.
        """
        if math.isinf(total):
            raise ConfigError("the schedule needs an end: set trainer.max_epochs or trainer.max_steps")
        if steps_before is not None:
            return max(math.ceil(total) - steps_before, 2)
        planned = self.horizon_epochs
        if planned is not None and epochs:
            if planned < epochs:
                raise ConfigError(
                    f"model.optim.horizon_epochs is {planned}, and trainer.max_epochs {epochs}: plan the schedule for "
                    "at least the epochs that are trained"
                )
            total = total * planned / epochs
        return max(math.ceil(total), 2)

    def scheduler(self, optimizer: Optimizer, steps: int) -> LRScheduler:
        """The schedule of so many steps, at least 2."""
        if self.schedule == "onecycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            # A rise of exactly one step divides by zero in torch; it may as well be none.
            rise = self.warmup if abs(self.warmup * steps - 1) > 1e-6 else 0.0
            has_momentum = bool({"momentum", "betas"} & set(optimizer.defaults))
            return OneCycleLR(optimizer, peaks, total_steps=steps, pct_start=rise, cycle_momentum=has_momentum)
        start = max(round(steps * self.warmup), 1)
        warmup = LinearLR(optimizer, start_factor=1 / (start + 1), total_iters=start)
        after: LRScheduler = CosineAnnealingLR(optimizer, T_max=max(steps - start, 1))
        if self.schedule == "constant":
            after = ConstantLR(optimizer, factor=1.0)
        return SequentialLR(optimizer, [warmup, after], milestones=[start])


def parameter_groups(method: nn.Module, backbone: nn.Module, optim: Optim) -> list[dict[str, Any]]:
    """Backbone and rest of a method, each with and without weight decay; what is frozen is left out."""
    named: Any = getattr(backbone, "no_weight_decay", tuple)
    inside = {id(parameter) for parameter in backbone.parameters()}
    outside = nn.Module()
    for number, (name, parameter) in enumerate(method.named_parameters()):
        if id(parameter) not in inside:
            outside.register_parameter(f"{number}_{name.replace('.', '_')}", parameter)
    of_backbone = param_groups_weight_decay(backbone, optim.weight_decay, no_weight_decay_list=named())
    rest = param_groups_weight_decay(outside, optim.weight_decay)
    for part, groups, scale in (("backbone", of_backbone, optim.backbone_lr_scale), ("head", rest, 1.0)):
        for group in groups:
            decays = "" if group["weight_decay"] else "_no_decay"
            group.update(lr=optim.lr * scale, name=part + decays)
    return [group for group in of_backbone + rest if group["params"]]
