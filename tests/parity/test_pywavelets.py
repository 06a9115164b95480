"""The Haar transform against NumPy slices, and against PyWavelets where it is installed."""

import numpy as np
import pytest

from waferlens.ops.wavelet import haar2d, modulus

RANDOM = np.random.default_rng(12)
SHAPES = [(64, 64), (48, 80), (33, 57), (1, 9), (7, 1)]


def by_slices(image: np.ndarray) -> tuple[np.ndarray, ...]:
    padded = np.pad(image.astype(np.float64), [(0, n % 2) for n in image.shape], mode="edge")
    a, b, c, d = padded[::2, ::2], padded[::2, 1::2], padded[1::2, ::2], padded[1::2, 1::2]
    return (a + b + c + d) / 2, (a + b - c - d) / 2, (a - b + c - d) / 2, (a - b - c + d) / 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_it_is_numpys(shape, dtype):
    image = RANDOM.uniform(0, 255, shape).astype(dtype)
    haar = haar2d(image, 3)
    smooth = image
    for detail in haar.details:
        smooth, *expected = by_slices(smooth)
        np.testing.assert_allclose(detail, expected, atol=1e-3)
    np.testing.assert_allclose(haar.smooth, smooth, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES[:3])
def test_it_is_pywavelets(shape):
    pywt = pytest.importorskip("pywt", reason="PyWavelets is not installed")
    image = RANDOM.uniform(0, 255, shape).astype(np.float32)
    haar = haar2d(image, 3)
    # `constant` repeats the last pixel, and for an even size nothing
    smooth, *details = pywt.wavedec2(image, "haar", mode="constant", level=3)
    np.testing.assert_allclose(haar.smooth, smooth, rtol=1e-5)
    for ours, theirs in zip(haar.details, reversed(details), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_modulus_is_that_of_pywavelets_stationary_transform():
    pywt = pytest.importorskip("pywt", reason="PyWavelets is not installed")
    image = RANDOM.uniform(0, 255, (64, 64)).astype(np.float32)
    found = modulus(image, 3)
    theirs = pywt.swt2(image, "haar", level=3)[::-1]
    for j, (_, details) in enumerate(theirs, start=1):
        expected = np.sqrt(sum(detail**2 for detail in details)) / 2**j
        # theirs stands at the first pixel of a square, ours at its middle; and theirs goes round at the border
        moved = np.roll(expected, (2**j // 2 - 1,) * 2, (0, 1))
        np.testing.assert_allclose(found[j - 1, 8:-8, 8:-8], moved[8:-8, 8:-8], rtol=1e-4, atol=1e-3)
