"""Pictures as bytes, and a reader of them."""

import cv2
import numpy as np
import pytest

from mlcv.data.images import read_image


@pytest.fixture
def read(tmp_path):
    def read(data, **options):
        path = tmp_path / "picture"  # the name says nothing: the content does
        path.write_bytes(data)
        return read_image(path, **options)

    return read


@pytest.fixture
def pixels(numpy_rng):
    """A smooth picture that uses all of its range, so that turned or swapped channels are far from it."""
    rough = numpy_rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = cv2.resize(rough, (70, 50), interpolation=cv2.INTER_CUBIC)
    smooth[0, 0], smooth[0, 1] = 0, 255
    return smooth
