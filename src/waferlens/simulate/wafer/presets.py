"""Frozen evaluation sets of the wafer station: their pixels are hashed, so that figures compare across versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from waferlens.errors import InputError, UsageError
from waferlens.simulate.wafer.dataset import Written, wafer_world, write_fields


@dataclass(frozen=True, slots=True)
class Preset:
    """Everything that decides the bytes of a set, and what they must hash to."""

    domain: str
    fields: int
    grid: int
    seed: int
    pixels_sha256: str
    """Over all images and height maps in order, as pixels."""


PRESETS = {
    "eval-v1": Preset("sim", 500, 684, 20_251_126, "f6480ec5cabaf781ddb65b1598cbd30565810528ef10d7f0c47b1b530ae11426")
}


def write_preset(
    out: Path,
    name: str,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
    fields: int | None = None,
) -> Written:
    """Writes a frozen set, or its first fields.

    Args:
        out: Folder; must not hold another data set.
        name: Of the preset.
        workers: Processes.
        advance: Called with the number of fields written since the last call.
        fields: Fewer than all; then nothing is compared with the frozen hash.

    Raises:
        UsageError: there is no such preset, or it has fewer fields.
        InputError: the pixels are not those that were frozen.
    """
    if name not in PRESETS:
        raise UsageError(f"preset '{name}' is unknown; one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if fields is not None and fields > preset.fields:
        raise UsageError(f"preset {name} has {preset.fields} fields, {fields} are asked for")
    count = preset.fields if fields is None else fields
    written = write_fields(out, wafer_world(preset.domain), count, preset.grid, preset.seed, workers, advance)
    if count == preset.fields and written.pixels_sha256 != preset.pixels_sha256:
        raise InputError(
            out,
            f"its pixels hash to {written.pixels_sha256}, preset {name} is frozen at {preset.pixels_sha256}: another "
            "version of NumPy, SciPy or OpenCV draws it differently; figures on it do not compare",
        )
    return written
