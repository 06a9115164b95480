"""A contact sheet of a wafer domain: pictures, heights and the sensor's label side by side, to be looked at."""

from __future__ import annotations

import numpy as np
from jaxtyping import UInt8

from waferlens.recipe.wafer_world import WaferWorld
from waferlens.records import COUNTS_PER_UM
from waferlens.simulate.hole.contact_sheet import Strip, contact_sheet
from waferlens.simulate.wafer.camera import FULL_SCALE
from waferlens.simulate.wafer.field import LABEL_PX, Z_FULL_COUNTS, draw_field, label_strip, reduced

GRID = 684
SPAN_UM = (-20.0, 820.0)
"""What the two ends of the colours stand for: the same on every sheet, so that sheets compare [um]"""


def world_sheet(world: WaferWorld, seed: int, columns: int = 6, *, labels: bool = True) -> UInt8[np.ndarray, "y x 3"]:
    """The sheet of a world: the first field of each wafer, its heights, and S0's label of the sensor below them.

    Args:
        world: The domain.
        seed: Seed of the drawn set.
        columns: How many wafers.
        labels: Whether to show the label.
    """
    made = [draw_field(world, seed, number * world.fields_per_wafer, GRID) for number in range(columns)]
    images = [np.rint(reduced(one.image) * (255.0 / FULL_SCALE)).astype(np.uint8) for one in made]
    z_ref = world.af.z_ref_um
    # the label's grey back into heights, so that it compares with them
    told = [z_ref - (1 - label_strip(one.trace) / 255.0) * (Z_FULL_COUNTS / COUNTS_PER_UM) for one in made]
    strips = [
        Strip(f"{world.name}: one field of each wafer, {LABEL_PX} px of {GRID}", np.stack(images)),
        Strip("height above the carrier", np.stack([reduced(one.height_um) for one in made]), True, SPAN_UM),
    ]
    if labels:
        strips.append(Strip("what the auto-focus sensor says", np.stack(told), True, SPAN_UM))
    return contact_sheet(strips, zoom=1)
