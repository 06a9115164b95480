"""Real pairs: a SEM image and its reference, and boards with their templates, tested ones and others."""

import cv2
import numpy as np
import pytest
import tifffile

from waferlens.ops.registration import register, warped

pytestmark = pytest.mark.real_data


@pytest.mark.parametrize("motion", ["shift", "rigid", "similarity", "affine"])
def test_the_sem_pair_is_shifted_as_known(real_data, motion):
    folder = real_data / "sem_pairs"
    image = tifffile.imread(folder / "case1_inspected_image.tif")
    reference = tifffile.imread(folder / "case1_reference_image.tif")
    found = register(image, reference, motion=motion)
    assert found.reason == ""
    assert found.shift_px == pytest.approx((4, -23), abs=0.5)
    assert abs(found.angle_deg) < 0.05
    assert found.score > 0.9


def test_the_sem_pair_unmoved_is_refused(real_data):
    folder = real_data / "sem_pairs"
    image = tifffile.imread(folder / "case1_inspected_image.tif")
    reference = tifffile.imread(folder / "case1_reference_image.tif")
    assert "do not show the same" in register(image, reference, motion="none").reason


def boards(real_data) -> list:
    return sorted((real_data / "deeppcb" / "PCBData").glob("group*/*/*_temp.jpg"))


def grey(path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)


def test_boards_are_registered_to_their_templates(real_data):
    """All but constant templates, and what is left is less than by the pure shift."""
    rests = []
    for path in boards(real_data)[7::50]:
        reference, image = grey(path), grey(path.with_name(path.name.replace("_temp", "_test")))
        if np.ptp(reference) == 0:
            continue
        found = {motion: register(image, reference, motion=motion) for motion in ("shift", "affine")}
        assert found["affine"].reason == "", path
        assert max(np.abs(found["affine"].shift_px)) < 12
        laid = {motion: warped(reference, found[motion], image.shape)[0] for motion in found}
        rests.append([float(np.abs(image - laid[motion])[12:-12, 12:-12].mean()) for motion in ("shift", "affine")])
    shift, affine = np.median(rests, axis=0)
    assert affine < 0.9 * shift
    assert affine < 5


def test_boards_are_not_registered_to_others(real_data):
    paths = boards(real_data)
    for one, other in ((40, 240), (300, 500), (760, 330)):
        image = grey(paths[one].with_name(paths[one].name.replace("_temp", "_test")))
        assert paths[one].parts[-3] != paths[other].parts[-3]
        for motion in ("shift", "affine"):
            assert register(image, grey(paths[other]), motion=motion).reason, (one, other)
