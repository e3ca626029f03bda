"""What element-wise losses share: precision, the meaning of unknown entries, the reduction, one pass over all."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.forward_ad import unpack_dual

from mlcv.errors import ConfigError
from mlcv.labels.states import UnknownAs, known, resolve_unknown
from mlcv.numerics import at_least_float32, full_precision

_AT_ONCE = 2**16
"""Entries that a CPU works on at a time: a dozen such arrays stay in the cache of a core."""


class ElementwiseLoss(nn.Module):
    """A loss that is a sum over images and classes; a subclass writes `elementwise` alone.

    The sum over classes is averaged over images. Official code of this field differs here: ASL, Hill and SPLC sum
    over images too (a factor B), the single-positive family averages over classes as well (a factor 1 / C). Learning
    rates and weight decay move with it.

    A subclass may add `with_slopes`, the same losses with their derivatives written out. Then the forward pass computes
    both, and one array (B, C) is all that is kept for the backward pass; under `torch.compile`, and for a second
    derivative, `elementwise` is differentiated all the same.

    Args:
        unknown: what an entry that nobody annotated counts as, see `mlcv.labels.resolve_unknown`; by default it
            changes neither the value nor any gradient.
        smoothing: probability of presence for `unknown="smoothed"`.

    Shape:
        logits (B, C), raw scores of any float type; targets (B, C) in [0, 1], or -1 where unknown. Returns a
        scalar in float32 (float64 for float64 logits), 0 for an empty batch.
    """

    knows_unknown: ClassVar[bool] = True
    _has_slopes: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        # Who writes another `elementwise`, a mixin's too, inherits no derivatives of the first.
        latest = next(kind for kind in cls.__mro__ if not {"with_slopes", "elementwise"}.isdisjoint(vars(kind)))
        cls._has_slopes = latest is not ElementwiseLoss and "with_slopes" in vars(latest)

    def __init__(self, unknown: UnknownAs = "ignore", smoothing: float = 0.1) -> None:
        super().__init__()
        self.unknown, self.smoothing = unknown, smoothing

    def on_labels(self, targets: Tensor, class_names: Sequence[str]) -> None:
        """Looks at all training labels; a method shows them before training.

        Args:
            targets: (N, C), see `mlcv.labels`.
            class_names: C names.

        Raises:
            ConfigError: if only positives are known and all else is ignored, by which everything would be present.
        """
        if self.unknown == "ignore":
            check_knows_negatives(targets)

    def elementwise(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of each entry (B, C), from logits in full precision and targets in [0, 1] without unknowns."""
        raise TypeError(f"{type(self).__name__} must define elementwise")

    def with_slopes(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """What `elementwise` returns, and its derivative by the logits, both (B, C) and new tensors."""
        raise TypeError(f"{type(self).__name__} has no derivatives of its own")

    def resolve(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The targets that the formula gets, and the weight of each entry; of images, one by one.

        Shape:
            targets (B, C), or -1 where unknown; returns two tensors (B, C).
        """
        return resolve_unknown(targets, self.unknown, self.smoothing)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        with full_precision(logits):
            is_wanted = self._has_slopes and logits.requires_grad and torch.is_grad_enabled()
            if is_wanted and not torch.compiler.is_compiling() and not self._needs_formula(logits, targets):
                total: Tensor = _InOnePass.apply(logits, targets, self)[0]
            else:
                total = self._total(logits, targets)
            return total / max(len(logits), 1)

    def _needs_formula(self, logits: Tensor, targets: Tensor) -> bool:
        """Whether more is differentiated than the logits, or otherwise than backwards, or by `torch.func`."""
        if targets.requires_grad or any(parameter.requires_grad for parameter in self.parameters()):
            return True
        is_dual: bool = unpack_dual(logits).tangent is not None  # type: ignore[no-untyped-call]
        return is_dual or bool(torch._C._are_functorch_transforms_active())

    def _total(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = at_least_float32(logits)
        filled, weights = self.resolve(targets.to(logits.dtype))
        return (self.elementwise(logits, filled) * weights).sum()


class _InOnePass(torch.autograd.Function):
    """The sum of a loss over all entries, with the slopes computed beside it, some images at a time on a CPU."""

    @staticmethod
    def forward(logits: Tensor, targets: Tensor, loss: ElementwiseLoss) -> tuple[Tensor, Tensor]:
        images = max(_AT_ONCE // max(logits.shape[1], 1), 1) if logits.device.type == "cpu" else max(len(logits), 1)
        slopes = torch.empty_like(logits, dtype=torch.promote_types(logits.dtype, torch.float32))
        sums, parts = [], (torch.split(every, images) for every in (logits, targets, slopes))
        for some, answers, out in zip(*parts, strict=True):
            filled, weights = loss.resolve(answers.to(slopes.dtype))
            losses, derivatives = loss.with_slopes(at_least_float32(some), filled)
            torch.mul(derivatives, weights, out=out)
            sums.append(losses.flatten().dot(weights.flatten()))
        return torch.stack(sums).sum(), slopes

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.loss = inputs[2]
        ctx.save_for_backward(*inputs[:2], output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, gradient: Any, _: Any) -> tuple[Tensor, None, None]:
        logits, targets, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is to be differentiated in its turn
            (slopes,) = torch.autograd.grad(ctx.loss._total(logits, targets), logits, create_graph=True)
        return (slopes * gradient).to(logits.dtype), None, None


def add_buffer_of_labels(loss: nn.Module, name: str, empty: Tensor, persistent: bool = True) -> None:
    """Registers a buffer that has no size before labels are shown; a checkpoint brings its size with its values."""
    loss.register_buffer(name, empty, persistent)
    loss.register_load_state_dict_pre_hook(partial(_size_as_stored, name))  # type: ignore[no-untyped-call]


def _size_as_stored(name: str, loss: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    stored, ours = state.get(prefix + name), getattr(loss, name)
    if isinstance(stored, Tensor) and stored.ndim == ours.ndim:
        setattr(loss, name, ours.new_empty(stored.shape))


def check_knows_negatives(targets: Tensor) -> None:
    """Refuses labels from which a loss that ignores unknown ones learns that everything is present.

    Args:
        targets: (N, C), those of all training images.

    Raises:
        ConfigError: if all that is known is positive, and not all is known.
    """
    is_known = known(targets)
    if is_known.any() and not is_known.all() and (targets[is_known] == 1).all():
        raise ConfigError(
            "all known training labels are positive, and the loss ignores unknown ones, so it would learn that "
            "everything is present. Set model.loss.unknown to weak_negative or negative, or take a loss of positive "
            "labels: PUMLCLoss, EPRLoss, ROLELoss, LargeLoss, SPLCLoss"
        )


def may_see(loss: nn.Module, targets: Tensor) -> bool:
    """Whether a loss knows what -1 is, or there is none.

    A loss of this project has `knows_unknown`; so must one of somebody's own, as a sign that its author thought of it.
    """
    return getattr(loss, "knows_unknown", False) or bool(known(targets).all())


def check_may_see(loss: nn.Module, targets: Tensor) -> None:
    """Refuses a loss that would take -1 for a number; see `may_see`.

    Raises:
        ConfigError: naming the loss.
    """
    if not may_see(loss, targets):
        name = f"{type(loss).__module__}.{type(loss).__qualname__}"
        raise ConfigError(
            f"model.loss: {name} does not say that it knows unknown labels (-1), and there are some, which it would "
            "take for numbers. Take a loss of mlcv.losses (BCELoss is binary cross-entropy), or give one of your own "
            "that handles them the attribute knows_unknown = True"
        )
