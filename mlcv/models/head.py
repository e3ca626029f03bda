"""What a classifier needs to know of a head."""

import math
import warnings
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn
from typing_extensions import deprecated

from mlcv.models.backbones import Backbone


class Head(nn.Module):
    """From a backbone's features to logits (B, C).

    A head is built as `head(num_features, num_classes)`; other arguments have defaults. `features` says what it
    reads: `pooled` (B, D), or `patches` (B, N, D). One that can tell where it sees a class overrides `maps`.
    """

    features: Literal["pooled", "patches"] = "pooled"

    def maps(self, patches: Tensor) -> Tensor | None:  # for those that override it
        """Where each class is seen, the higher the more, on any scale.

        Args:
            patches: of the backbone (B, N, D), whatever the head reads, row by row of a square.

        Returns:
            (B, M, C), M a square number, too; None where these patches say nothing.
        """
        return None

    @property
    def class_bias(self) -> Tensor | None:
        """What is added to the logit of each class (C,), and learns; None of a head that adds nothing."""
        found = getattr(self, "bias", getattr(getattr(self, "classifier", None), "bias", None))
        return found if isinstance(found, Tensor) and found.ndim == 1 else None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = vars(cls)
        if "class_maps" in own and "maps" not in own:
            warnings.warn(f"{cls.__name__}.class_maps is called maps since mlcv 0.2", FutureWarning, stacklevel=2)
            cls.maps = own["class_maps"]  # type: ignore[method-assign]

    @deprecated("class_maps is called maps since mlcv 0.2", category=FutureWarning)
    def class_maps(self, patches: Tensor) -> Tensor | None:
        """As `maps`."""
        return self.maps(patches)

    @property
    def has_maps(self) -> bool:
        """Whether it overrides `maps`."""
        return type(self).maps is not Head.maps


def build_head(head: Callable[[int, int], Head], backbone: Backbone, num_classes: int) -> Head:
    """A head for a backbone.

    It is built to tell what it reads; few networks have patches of another width than their pooled vector.
    """
    built = head(backbone.pooled_features, num_classes)
    if built.features == "patches" and backbone.patch_features != backbone.pooled_features:
        built = head(backbone.patch_features, num_classes)
    return built


def as_grid(maps: Tensor) -> Tensor:
    """Values of patches (B, N, C), of a square image row by row, as maps (B, C, h, w)."""
    batch, count, classes = maps.shape
    return maps.transpose(1, 2).reshape(batch, classes, math.isqrt(count), -1)
