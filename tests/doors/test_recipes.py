"""The shipped recipes, and what ties their sections together."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from waferlens.errors import RecipeError
from waferlens.recipe import HoleRecipe, Recipe, as_yaml, load_recipe, recipe_names
from waferlens.sources import SOURCES, cite

HOLE = {"hole-fast", "hole-unet-2", "hole-unet-3", "hole-unet-4", "hole-pix2pix", "hole-autoencoder"}

PACKAGE = {
    "package-yolov7-tiny", "package-yolov7-tiny-nwd", "package-yolov7-tiny-nwd-coord", "package-yolov7-tiny-nwd-slim",
    "roi-yolov5n", "roi-yolov5n-seg", "roi-yolov5s-seg", "roi-opencv", "roi-edges", "roi-yolov5n-sam",
}  # fmt: skip


def told(name: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, overrides)
    return [fault.what for fault in caught.value.faults]


def test_every_system_has_its_recipe() -> None:
    assert set(recipe_names()) >= HOLE | PACKAGE


@pytest.mark.parametrize("name", recipe_names())
def test_a_shipped_recipe_is_whole(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert recipe.name == name
    assert recipe.source in SOURCES
    written = tmp_path / "recipe.yaml"
    written.write_text(as_yaml(recipe))
    assert load_recipe(written) == recipe


def test_a_child_of_unet_2_differs_in_its_levels_only() -> None:
    base, child = load_recipe("hole-unet-2"), load_recipe("hole-unet-3")
    assert isinstance(base, HoleRecipe)
    assert isinstance(child, HoleRecipe)
    assert base.model.kind == child.model.kind == "unet"
    assert (base.model.levels, child.model.levels) == (2, 3)  # type: ignore[union-attr]
    assert base.train == child.train
    assert base.loss == child.loss


def test_every_field_says_what_it_means() -> None:
    def fields(model: type) -> list[str]:
        named = [f"{model.__name__}.{name}" for name, field in model.model_fields.items() if not field.description]
        for base in model.__subclasses__():
            named += fields(base)
        return named

    from waferlens.recipe.sections import Section

    ours = [name for name in fields(Section) if not name.startswith("Section.")]
    assert ours == []


def test_parts_that_do_not_fit_are_told_together() -> None:
    assert told("hole-unet-2", "loss.pixel=nll", "loss.gan=bce") == [
        "loss.pixel = nll: needs a network with sigma: true; unet here has none",
        "loss.gan = bce: needs a discriminator: model.kind = pix2pix, not unet",
    ]


def test_limits_in_the_wrong_order_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "limits.yaml"
    path.write_text("extends: hole-unet-2\nlimits:\n  depth: {low: 130, high: 110, unit: nm}\n  cd_x: {unit: nmm}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert [str(fault) for fault in caught.value.faults] == [
        f"{path}:3: limits.depth.low = 130: is above high = 110; exchange them",
        f"{path}:4: limits.cd_x.unit = nmm: unit 'nmm' is unknown; did you mean 'nm'?",
    ]


def test_limits_keep_the_table_spelling_of_their_unit() -> None:
    recipe = load_recipe("hole-unet-2", ["limits.depth={low: 0.11, unit: µm}"])
    assert isinstance(recipe, HoleRecipe)
    assert recipe.limits["depth"].unit == "um"


def test_a_misspelt_station_does_not_hide_the_rest() -> None:
    assert told("hole-unet-2", "station=hoel", "train.lr=-1") == [
        "station = hoel: not one of the choices, did you mean 'hole'?",
        "train.lr = -1: should be greater than 0",
    ]


def test_an_unknown_station_names_the_known() -> None:
    known = "hole, golden, wafer, package"
    assert told("hole-unet-2", "station=moon") == [f"station = moon: unknown station; one of {known}"]


def test_shipped_files_are_named_as_they_are_called() -> None:
    for entry in (resources.files("waferlens") / "recipes").iterdir():
        assert entry.name.removesuffix(".yaml") in recipe_names()


def test_sources_are_cited_in_full() -> None:
    assert "pix2pix" in str(cite("S1"))
    assert all(source.title and source.authors and source.used for source in SOURCES.values())
