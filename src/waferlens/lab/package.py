"""The demonstration's packages: a tray of devices in three lights is judged, and held against its truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from waferlens.bundle.files import Bundle
from waferlens.formats import package_set
from waferlens.inspect import inspect_paths
from waferlens.simulate.package.dataset import package_world, write_devices

DEVICES = 12
"""Devices of the tray, each in three lights."""
PITCH_UM = 2.0
"""Of the simulated camera [um]"""


@dataclass(frozen=True, slots=True)
class TrayPart:
    """What came of it."""

    devices: int
    images: int
    verdicts: dict[str, int]
    """How many devices are OK, review and NG."""
    defective: int
    """Devices that are truly cracked, turned or without a die."""
    passed: int
    """Of them told OK."""
    alarmed: int
    """Good devices told NG."""
    angle_rms_deg: float
    """Of the angles of dies that were measured, against their truth [deg]"""

    def line(self) -> str:
        """For people."""
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.items())
        good = self.devices - self.defective
        return (
            f"packages   {self.devices} devices: {verdicts}; {self.passed} of {self.defective} defective ones passed, "
            f"{self.alarmed} of {good} good ones alarmed; die angles to {self.angle_rms_deg:.3f} deg"
        )


def judge_tray(tray: Path, out: Path, bundle: Bundle, seed: int, *, devices: int = DEVICES) -> TrayPart:
    """Simulates a tray, inspects it, and holds the verdicts against the truth.

    Args:
        tray: Folder for the images.
        out: Folder for the run.
        bundle: Of the package station.
        seed: Of everything that is drawn.
        devices: How many.

    Raises:
        InputError: something cannot be written.
    """
    write_devices(tray, package_world("sim"), devices, seed)
    done = inspect_paths([tray / "images"], bundle, out, pitch_um=PITCH_UM)
    said = {one["device"]: one for one in done.devices}
    errors, defective, passed, alarmed = [], 0, 0, 0
    for number in package_set.devices(tray):
        device = package_set.read_device(tray, number)
        told = said[device.images["bf"].stem.removesuffix("-bf").removesuffix("_bf")]
        good = device.verdict == "good"
        defective += not good
        passed += not good and told["verdict"] == "OK"
        alarmed += good and told["verdict"] == "NG"
        if told["die_angle_deg"] is not None and device.theta_die_deg is not None:
            errors.append(told["die_angle_deg"] - device.theta_die_deg)
    return TrayPart(
        devices=devices,
        images=done.images,
        verdicts=done.device_verdicts,
        defective=defective,
        passed=passed,
        alarmed=alarmed,
        angle_rms_deg=float(np.sqrt(np.mean(np.square(errors)))) if errors else float("nan"),
    )
