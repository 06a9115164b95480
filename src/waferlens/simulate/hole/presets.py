"""Frozen evaluation sets: the same pixels for everybody, and a hash that says so."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from waferlens.errors import InputError, UsageError
from waferlens.simulate.hole.dataset import Preset, Written, hole_world, write_pairs

PRESETS = {
    "eval-v1": Preset("sim", 2000, 20_260_101, 0.2, "2d46158c6d9164ffc0369873f56c4c235c9d3768fd70edb50d05f687678d118a"),
    "continuous-v1": Preset(
        "continuous", 2000, 20_260_102, 0.2, "089e555eb2c3f0493582a7cbaee686b76afef2075ae454c06db7ab76d1b195dd"
    ),
}
"""`eval-v1` is the set every figure of the hole station is quoted on; `continuous-v1` is its twin without cases."""


def write_preset(
    out: Path, name: str, workers: int = 1, advance: Callable[[int], None] | None = None, structures: int | None = None
) -> Written:
    """Writes a frozen set and checks that it is the frozen set.

    Args:
        out: Folder; must not hold another data set.
        name: Name of the preset.
        workers: Processes.
        advance: Called with the number of images written since the last call.
        structures: Write fewer, for a quick look; such a set is not frozen and is not checked.

    Raises:
        UsageError: there is no such preset.
        InputError: this machine's arithmetic gives other pixels; figures on them would not compare.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1, cutoff=0.4)
        hint = f"did you mean '{near[0]}'?" if near else f"one of {', '.join(PRESETS)}"
        raise UsageError(f"--preset {name}: there is no such preset; {hint}")
    preset = PRESETS[name]
    if structures is not None and structures != preset.structures:
        preset = replace(preset, structures=structures, pixels_sha256="")
    written = write_pairs(
        out, hole_world(preset.world, preset.nuisance), preset.structures, preset.seed, workers, advance
    )
    if preset.pixels_sha256 and written.pixels_sha256 != preset.pixels_sha256:
        raise InputError(
            out,
            f"preset {name} gives other pixels here (sha256 {written.pixels_sha256[:12]}…, frozen "
            f"{preset.pixels_sha256[:12]}…): another version of NumPy or of the maths library? "
            "Do not compare figures on it with published ones",
        )
    return written
