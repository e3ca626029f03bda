"""How sure a share is."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Z = 1.959963984540054
"""Standard deviations on either side of 95 % of a normal distribution."""


def wilson(share: ArrayLike, cases: ArrayLike) -> NDArray[np.float64]:
    """Wilson's 95 % interval of a share (...,) of so many cases, which need not be whole (JASA 22, 1927).

    Returns:
        lower and upper end (..., 2); 0 and 1 of no cases.
    """
    part, count = np.nan_to_num(np.asarray(share, np.float64), nan=0.5), np.asarray(cases, np.float64)
    middle = count * part + Z**2 / 2
    half = Z * np.sqrt(count * part * (1 - part) + Z**2 / 4)
    ends = np.stack([middle - half, middle + half], axis=-1) / (count + Z**2)[..., None]
    return np.clip(ends, 0.0, 1.0)
