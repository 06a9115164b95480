"""Real views with depth: two of NYU Depth v2, and one with what a published network says of it."""

from pathlib import Path

import numpy as np
import pytest

from waferlens.errors import InputError
from waferlens.load.nyu import load_nyu
from waferlens.ops.depth_metrics import depth_metrics

pytestmark = pytest.mark.real_data


def test_fastdepth_has_its_published_errors(real_data: Path) -> None:
    folder = real_data / "rgbd" / "fastdepth"
    views = load_nyu(folder)
    assert views.rgb.shape == (1, 224, 224, 3)
    assert (views.rgb.min(), views.rgb.max()) == (0, 255)
    pred = np.load(folder / "pred.npy")[0]
    told = depth_metrics(pred, views.depth_m)
    assert round(told["rmse"], 4) == 0.6180
    assert round(told["delta1"], 4) == 0.7773
    assert round(told["abs_rel"], 4) == 0.1405
    assert told["valid"] == 1.0


def test_nyu_is_read_in_metres_and_paired(real_data: Path) -> None:
    views = load_nyu(real_data / "rgbd" / "nyu")
    assert [entry.name for entry in views.entries] == ["rgb_00000", "rgb_00050"]
    assert views.rgb.shape == (2, 480, 640, 3)
    valid = (views.depth_m > 0).mean(axis=(1, 2))
    assert valid == pytest.approx([0.7328, 0.7506], abs=1e-4)
    assert np.isclose(views.depth_m.max(axis=(1, 2)), [6.625, 8.266]).all()
    # a depth map against itself, holes and all
    assert depth_metrics(views.depth_m, views.depth_m)["rmse"] == 0


def test_views_without_rooms_cannot_be_split(real_data: Path) -> None:
    with pytest.raises(InputError, match="does not tell its room"):
        load_nyu(real_data / "rgbd" / "nyu", "train")
