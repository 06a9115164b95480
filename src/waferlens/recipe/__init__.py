"""Recipes: one YAML file says one system; pydantic sections say what such a file may hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from waferlens.recipe.golden import GoldenRecipe
from waferlens.recipe.hole import HoleRecipe
from waferlens.recipe.package import PackageRecipe
from waferlens.recipe.package_roi import RoiRecipe
from waferlens.recipe.reading import build, read_model, read_tree, shipped_names
from waferlens.recipe.sections import Recipe
from waferlens.recipe.station import station_model
from waferlens.recipe.wafer import WaferRecipe
from waferlens.recipe.writing import as_yaml

__all__ = [
    "GoldenRecipe",
    "HoleRecipe",
    "PackageRecipe",
    "Recipe",
    "RoiRecipe",
    "WaferRecipe",
    "as_yaml",
    "load_recipe",
    "read_model",
    "recipe_names",
]


def recipe_names() -> list[str]:
    """Names of the recipes shipped with waferlens, sorted."""
    return shipped_names("recipes")


def load_recipe(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe of any station.

    Args:
        name_or_path: a shipped name or the path of a YAML file.
        overrides: `a.b=c` settings written over it.

    Raises:
        RecipeError: all faults of the file, its parents and the overrides at once.
    """
    tree, faults = read_tree(name_or_path, folder_package="recipes", overrides=overrides)
    return build(station_model(tree, faults), tree, faults)
