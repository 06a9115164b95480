"""What does not fit together in a recipe of the wafer station is told with its line and what to set."""

from __future__ import annotations

from pathlib import Path

import pytest

from waferlens.errors import RecipeError
from waferlens.recipe import load_recipe


@pytest.mark.parametrize(
    ("parent", "written", "said"),
    [
        ("wafer-fcrn", "target: {sigma: true}", "target.sigma = true: fcrn tells no spread; set target.sigma=false"),
        ("depth-cnn", "target: {sigma: true}", "target.sigma = true: depth-cnn tells no spread"),
        ("wafer-fcrn", "model: {bottleneck_channels: 24}", "model.bottleneck_channels = 24: should be a multiple"),
        ("wafer-fcrn", "train: {crop_px: 128}", "train.crop_px = 128: fcrn takes images of one size"),
        ("wafer-fcrn", "input: {known: [track]}", "fcrn is shown the image alone; set input.known=[]"),
        ("wafer-unet", "input: {width_px: 100}", "input.width_px = 100: 4 levels need a multiple of 8"),
        ("wafer-unet", "target: {classes: true}", "unet tells heights only"),
        ("wafer-fast", "input: {normalise: imagenet}", "wafer-fast has no weights of others"),
        ("wafer-fast", "input: {pitch_um: null}", "input.pitch_um = null: wafer-fast takes images of any size"),
        ("wafer-fast", "model: {blocks: [1, 1]}", "5 widths need as many blocks"),
        ("wafer-fast", "model: {widths: [8, 8, 8, 8, 8, 8], blocks: [1, 1, 1, 1, 1, 1]}", "may fold 64 px at the most"),
        ("depth-cnn", "loss: {mask_zero: false}", "set loss.mask_zero=true"),
        ("depth-cnn", "loss: {supervision: track}", "NYU Depth v2 has no auto-focus track; set dense"),
        ("wafer-unet", "loss: {sigma_weight: 0.1}", "needs target.sigma: true"),
    ],
)
def test_what_does_not_fit(parent: str, written: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {parent}\nname: mine\n{written}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path))
    assert "mine.yaml:3: " in str(caught.value)
    assert said in str(caught.value)


def test_all_faults_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe("wafer-fcrn", ["target.sigma=true", "target.classes=true", "input.known=[track]"])
    assert len(caught.value.faults) == 3
