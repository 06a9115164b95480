"""Statistics of images against NumPy, one by one."""

import numpy as np
import pytest

from waferlens.ops.image_statistics import PERCENTILES, STATISTICS, image_statistics

RANDOM = np.random.default_rng(8)


def reference(image: np.ndarray) -> list[float]:
    image = image.astype(np.float64)
    away = image - image.mean()
    return [
        image.mean(),
        image.std(),
        *np.percentile(image, PERCENTILES),
        np.abs(np.diff(image, axis=1)).mean(),
        np.abs(np.diff(image, axis=0)).mean(),
        (away[:, 1:] * away[:, :-1]).mean() / image.var(),
    ]


@pytest.mark.parametrize("steps", [1, 257])
@pytest.mark.parametrize("number", [1, 33, 70])
def test_they_are_numpys(steps, number):
    images = (RANDOM.integers(0, 255 * steps + 1, (number, 72, 48)) / steps).astype(np.float32)
    images = np.sort(images, axis=2)  # some correlation
    found = image_statistics(images)
    assert found.shape == (number, len(STATISTICS))
    np.testing.assert_allclose(found, [reference(image) for image in images], rtol=2e-5, atol=2e-5)


def test_float_grey_is_close():
    images = RANDOM.uniform(0, 255, (4, 72, 48)).astype(np.float32)
    np.testing.assert_allclose(image_statistics(images), [reference(image) for image in images], atol=3e-3)


def test_an_image_without_contrast_is_no_trouble():
    found = image_statistics(np.full((1, 72, 48), 100.0, np.float32))[0]
    assert found.tolist() == [100, 0, 100, 100, 100, 100, 100, 0, 0, 1]
