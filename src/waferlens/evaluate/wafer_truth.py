"""The fields a wafer bundle is judged on: truth as the data set tells it, or drawn again from the evaluation seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.errors import InputError, UsageError
from waferlens.evaluate.sites import SEED_VARIABLE
from waferlens.load.wafer import Field, count_fields, manifest, read_fields
from waferlens.recipe.wafer_world import WaferWorld
from waferlens.simulate.wafer.dataset import field_names, seed_fingerprint
from waferlens.simulate.wafer.field import draw_field


def count_judged(root: Path, keep: Callable[[str], bool] = lambda wafer: True) -> int:
    """How many fields `judged_fields` gives at the most."""
    manifest(root)
    return count_fields(root, keep)


def judged_fields(root: Path, keep: Callable[[str], bool] = lambda wafer: True) -> Iterator[Field]:
    """Fields with truth; where the data set hides it, it is drawn again and the images are compared.

    Raises:
        UsageError: truth is hidden, and `WAFERLENS_EVAL_SEED` is not set or holds another seed.
        InputError: an image was changed since it was made.
    """
    told = manifest(root)
    if "seed_fingerprint" not in told:
        yield from read_fields(root, keep)
        return
    seed = _seed(root, told)
    world = WaferWorld.model_validate(told["world"])
    names, _ = field_names(world, seed, told["fields"])
    number = {name: place for place, name in enumerate(names)}
    for field in read_fields(root, keep):
        made = draw_field(world, seed, number[field.name], told["grid"])
        if not np.array_equal(made.image, field.image):
            raise InputError(root, f"field {field.name} is not what its seed draws: another NumPy or OpenCV?")
        yield replace(field, height_um=made.height_um, dies=made.dies)


def _seed(root: Path, told: dict[str, Any]) -> int:
    text = os.environ.get(SEED_VARIABLE)
    if text is None:
        raise UsageError(f"{root}: its truth is not written; {SEED_VARIABLE} has to hold the seed it was made from")
    if not text.isdecimal():
        raise UsageError(f"{SEED_VARIABLE} should be the whole number the data was simulated from, got {text!r}")
    if "fields" not in told:
        raise UsageError(f"{root}: swaths with hidden truth are not judged; simulate single fields")
    if seed_fingerprint(int(text)) != told["seed_fingerprint"]:
        raise UsageError(f"{SEED_VARIABLE}: {root} was made from another seed")
    return int(text)
