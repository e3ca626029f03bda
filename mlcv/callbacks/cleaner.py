"""Labels that look wrong become unknown, class by class."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import normalize

from mlcv.distributed import global_sum
from mlcv.errors import ConfigError
from mlcv.labels.states import NEGATIVE, POSITIVE, UNKNOWN, known
from mlcv.losses.memory import Memory

logger = logging.getLogger(__name__)

_CLEANS = {"negatives": (NEGATIVE,), "positives": (POSITIVE,), "all": (POSITIVE, NEGATIVE)}
_DECAY = 0.99
"""Of the sums of features, a step."""
_AT_MOST = 10_000
"""Entries that a mixture is fitted to; all are judged by it."""


class Cleaner(Callback):
    """Takes labels whose loss is high for what they are and what class they are of as unknown, from an epoch on.

    Networks learn right labels before wrong ones. So of each entry of the training labels the cross-entropy with its
    given value is kept, as it was when the image was last seen. At the start of each epoch a mixture of two Gaussians
    is fitted to those of each class and given value, scaled to [0, 1]; entries that belong to the component of the
    higher losses are unknown (-1) in the batches of that epoch. It is DivideMix's division (Li et al., ICLR 2020, arXiv
    2002.07394) class by class, after the idea of CPC (Huang et al., arXiv 2212.10766), for several labels an image.

    Right entries that are hard go, too: of all negatives rather more than are wrong, and of a network that has learnt
    nothing yet about half. Clean positives only if a good part of them is wrong. The log says in each epoch how many
    entries were left out.

    Args:
        start_epoch: finished epochs before the first cleaning, at least 1.
        clean: `negatives`, where positives are missing; `positives`, where labels are given falsely; or `all`.
        threshold: least probability of the component of lower losses with which an entry is kept, in (0, 1).
        unknown: what unknown entries of the data are: `ignore` leaves them, `negative` makes negatives of them, which
            can then be cleaned. The loss is to leave out unknown entries either way.
        prototypes: divide by the image's features, too: by how much nearer (in cosine) they are to the mean of those of
            the class's entries with the same value than with the other, among those that are held clean.
        min_entries: of a class and value, for a mixture of their own; fewer are judged by one over all classes.
    """

    def __init__(
        self,
        start_epoch: int = 3,
        clean: Literal["negatives", "positives", "all"] = "negatives",
        threshold: float = 0.5,
        unknown: Literal["ignore", "negative"] = "ignore",
        prototypes: bool = False,
        min_entries: int = 20,
    ) -> None:
        if start_epoch < 1 or min_entries < 2 or not 0 < threshold < 1:
            raise ConfigError(
                "Cleaner needs start_epoch >= 1, min_entries >= 2 and a threshold in (0, 1), got "
                f"{start_epoch}, {min_entries} and {threshold}"
            )
        if clean not in _CLEANS or unknown not in ("ignore", "negative"):
            raise ConfigError(
                f"Cleaner: clean is one of {', '.join(_CLEANS)}, unknown is ignore or negative; got {clean} and "
                f"{unknown}"
            )
        self.start_epoch, self.clean, self.threshold = start_epoch, clean, threshold
        self.unknown, self.prototypes, self.min_entries = unknown, prototypes, min_entries
        more: dict[str, Any] = {"nearness": torch.float16} if prototypes else {}
        self.memory = Memory(losses=torch.float16, dropped=torch.bool, visited=(torch.bool, ()), **more)
        self.sums = torch.zeros(2, 0, 0)  # of unit features, of negatives and positives (2, C, D)
        self._targets = torch.zeros(0, 0)
        self._given: Tensor | None = None  # of the batch at work, before cleaning
        self._logits: Tensor | None = None
        self._features: Tensor | None = None
        self._hooks: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        data: Any = getattr(trainer, "datamodule", None)
        loader: Any = trainer.fit_loop._data_source.instance  # which a Trainer was given in Python
        dataset: Any = getattr(data, "datasets", {}).get("train", getattr(loader, "dataset", None))
        if not isinstance(getattr(dataset, "targets", None), Tensor):
            raise ConfigError("Cleaner needs the training labels, and the training data have no `targets`")
        loss = getattr(pl_module, "loss", None)
        taken_as = getattr(loss, "unknown", "ignore")
        if taken_as not in ("ignore", "latent"):
            raise ConfigError(
                f"Cleaner makes entries unknown, and {type(loss).__name__} takes those for labels (unknown: "
                f"{taken_as}): choose model.loss, or its unknown, such that they are left out (ignore; latent of "
                "ImpreciseLoss). If unknown entries of the data are to be negatives until they are cleaned, set "
                "unknown of the Cleaner to negative"
            )
        if self.prototypes and not hasattr(pl_module, "head"):
            raise ConfigError(f"Cleaner: prototypes are of what a head reads, and {type(pl_module).__name__} has none")
        if self.unknown == "negative":  # in the data, so that whoever looks at all labels sees them so, too
            dataset.targets = torch.where(known(dataset.targets), dataset.targets, NEGATIVE)
        self._targets = dataset.targets.cpu()
        self.memory.begin(self._targets)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if 0 <= (trainer.max_epochs or -1) <= self.start_epoch:
            logger.warning(
                "Cleaner begins after %d epochs, and there are no more: nothing is cleaned", self.start_epoch
            )
        self._hooks = [pl_module.register_forward_hook(self._see_logits)]
        if self.prototypes:
            self._hooks.append(cast("Any", pl_module.head).register_forward_pre_hook(self._see_features))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def _see_logits(self, _module: Any, _given: Any, output: Any) -> None:
        """The first of the whole batch: under DDP a step is a forward pass, too, and mixed images may follow."""
        if self._given is not None and self._logits is None and getattr(output, "shape", None) == self._given.shape:
            self._logits = output.detach()

    def _see_features(self, _head: Any, given: tuple[Tensor, ...]) -> None:
        if self._given is not None and self._features is None and len(given[0]) == len(self._given):
            features = given[0].detach().float()
            self._features = normalize(features.mean(dim=1) if features.ndim == 3 else features, dim=1)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch >= self.start_epoch:
            self.refit()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._given, self._logits, self._features = batch["target"], None, None
        dropped = self.memory.read("dropped", batch["index"], self._given) > 0
        batch["target"] = torch.where(dropped, UNKNOWN, self._given)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        given, logits, index = self._given, self._logits, batch["index"]
        self._given = None
        if given is None or logits is None:
            raise ConfigError(
                f"Cleaner: a step of {type(pl_module).__name__} does not call the method itself on the batch, so that "
                "the logits of its entries are not known; leave the callback out"
            )
        logits = cast("Any", pl_module).exact_logits(logits)
        losses = cross_entropy(logits, given.to(logits).clamp(min=0), reduction="none")
        self.memory.write("losses", index, losses.clamp(max=torch.finfo(torch.float16).max))
        self.memory.write("visited", index, torch.ones_like(index, dtype=torch.bool))
        if self.prototypes:
            self._compare(index, given, batch["target"])

    def _compare(self, index: Tensor, given: Tensor, kept: Tensor) -> None:
        """How much nearer an image is to others of an entry's value than to those of the other value."""
        if self._features is None:
            raise ConfigError("Cleaner: the head was not called on the batch, so there are no features for prototypes")
        sides = torch.stack([kept == NEGATIVE, kept == POSITIVE]).float()
        batch_sums = global_sum(sides.transpose(1, 2) @ self._features)  # (2, C, D)
        self.sums = _DECAY * self.sums.to(batch_sums) + batch_sums if self.sums.numel() else batch_sums
        negative, positive = self._features @ normalize(self.sums, dim=2).transpose(1, 2)  # a mean's length is nothing
        self.memory.write("nearness", index, torch.where(given == POSITIVE, positive - negative, negative - positive))

    def refit(self) -> None:
        """Fits the mixtures to what is remembered, and says which entries are dropped from now on."""
        names = ["losses", "nearness"] if self.prototypes else ["losses"]
        numbers = torch.stack([self.memory[name].float() for name in names], dim=2).cpu().numpy()  # (N, C, 1 or 2)
        visited, dropped = self.memory["visited"].cpu(), torch.zeros(self._targets.shape, dtype=torch.bool)
        told = []
        for value in _CLEANS[self.clean]:
            of_value = ((self._targets == value) & visited[:, None]).numpy()
            for rows, number, probability in self._judged(numbers, of_value):
                dropped[rows, number] = torch.from_numpy(probability < self.threshold)
            count, all_ = int(dropped[torch.from_numpy(of_value)].sum()), int(of_value.sum())
            name = "positives" if value == POSITIVE else "negatives"
            told.append(f"{count} of {all_} {name} ({100 * count / max(all_, 1):.1f} %)")
        self.memory["dropped"].copy_(dropped)
        logger.info("Cleaner: %s are left out as unknown", ", ".join(told))

    def _judged(
        self, numbers: NDArray[Any], of_value: NDArray[Any]
    ) -> Iterator[tuple[NDArray[Any], int, NDArray[Any]]]:
        """Of each class its entries of a value: their rows, the class, their probabilities of being clean."""
        shared = None
        for number in range(of_value.shape[1]):
            rows = np.flatnonzero(of_value[:, number])
            if len(rows) >= self.min_entries:
                yield rows, number, clean_probabilities(numbers[rows, number])
            elif len(rows):
                if shared is None:
                    shared = np.ones(of_value.shape)
                    if of_value.sum() >= self.min_entries:
                        shared[of_value] = clean_probabilities(numbers[of_value])
                yield rows, number, shared[rows, number]

    def state_dict(self) -> dict[str, Any]:
        return {"memory": self.memory.state(), "sums": self.sums.cpu()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.memory.load(state_dict["memory"])
        self.sums = state_dict["sums"]


def clean_probabilities(values: NDArray[Any]) -> NDArray[Any]:
    """Of each entry, of the component of lower losses in a mixture of two Gaussians.

    Args:
        values: (M, 1) losses, or (M, 2) with a second number, on any scale.

    Returns:
        (M,); ones where all losses are equal.
    """
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415  # half a second that no other training needs
    from sklearn.mixture import GaussianMixture  # noqa: PLC0415

    low, span = values.min(axis=0), np.ptp(values, axis=0)
    if not span[0] > 0:
        return np.ones(len(values))
    scaled = (values - low) / np.where(span > 0, span, 1)  # else the least variance would rule
    some = scaled[:: -(-len(scaled) // _AT_MOST)]
    middle, precisions = some.mean(axis=0)[1:], np.diag(1 / (some.var(axis=0, ddof=1) + 1e-6))
    mixture: Any = cast("Any", GaussianMixture)(
        2, tol=1e-5, max_iter=200, init_params="random", random_state=0, weights_init=[0.5, 0.5],
        means_init=[[0.0, *middle], [1.0, *middle]], precisions_init=[precisions, precisions],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(some)
    found: NDArray[Any] = mixture.predict_proba(scaled)[:, int(mixture.means_[:, 0].argmin())]
    return found
