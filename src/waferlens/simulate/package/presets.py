"""Frozen evaluation sets of the package station: their pixels are hashed, so that figures compare across versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from waferlens.errors import InputError, UsageError
from waferlens.simulate.package.dataset import Written, package_world, write_devices


@dataclass(frozen=True, slots=True)
class Preset:
    """Everything that decides the bytes of a set, and what they must hash to."""

    domain: str
    devices: int
    seed: int
    pixels_sha256: str
    """Over all images and masks in order, as pixels."""


PRESETS = {
    "eval-v1": Preset("sim", 600, 20_251_127, "d0ce31b279261acbd5b05a97b711084851ccbf6f2987205a643e0856f53f759e"),
}


def write_preset(
    out: Path,
    name: str,
    workers: int = 1,
    advance: Callable[[int], None] | None = None,
    devices: int | None = None,
) -> Written:
    """Writes a frozen set, or its first devices.

    Args:
        out: Folder; must not hold another data set.
        name: Of the preset.
        workers: Processes.
        advance: Called with the number of devices written since the last call.
        devices: Fewer than all; then nothing is compared with the frozen hash.

    Raises:
        UsageError: there is no such preset, or it has fewer devices.
        InputError: the pixels are not those that were frozen.
    """
    if name not in PRESETS:
        raise UsageError(f"preset '{name}' is unknown; one of {', '.join(PRESETS)}")
    preset = PRESETS[name]
    if devices is not None and devices > preset.devices:
        raise UsageError(f"preset {name} has {preset.devices} devices, {devices} are asked for")
    count = preset.devices if devices is None else devices
    written = write_devices(out, package_world(preset.domain), count, preset.seed, workers, advance)
    if count == preset.devices and written.pixels_sha256 != preset.pixels_sha256:
        raise InputError(
            out,
            f"its pixels hash to {written.pixels_sha256}, preset {name} is frozen at {preset.pixels_sha256}: another "
            "version of NumPy, SciPy or OpenCV draws it differently; figures on it do not compare",
        )
    return written
