"""How well the auto-focus track lets a height be known at all: the Cramer-Rao bound of the sensor's own model.

The sensor reads each column once, and of several surfaces mostly the highest. How the reading is shared between them is
taken to be known; where it is not, the share is a bias that no number of samples takes away.

Source: S. M. Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory" (1993), chapter 3; derivation in
docs/optical-limits.md.
"""

from __future__ import annotations

import math

import numpy as np

from waferlens.records import COUNTS_PER_UM
from waferlens.simulate.wafer.af import LEAST_SIGNAL, AfSensor
from waferlens.simulate.wafer.height_bound import bound_um, remaining_information

FULL_SIGNAL = 0.3
"""At which the sensor has its stated noise."""
LEAST_SCALE, GREATEST_SCALE = 0.5, 3.0
"""Of the noise, where light is plenty and where it is missing."""


def sample_noise_um(sensor: AfSensor, signal: float) -> float:
    """Standard deviation of one sample [um]

    Args:
        sensor: The sensor.
        signal: Light that comes back, mean over the column.
    """
    scale = np.clip(math.sqrt(FULL_SIGNAL / max(signal, LEAST_SIGNAL)), LEAST_SCALE, GREATEST_SCALE)
    return float(sensor.noise_counts * scale / COUNTS_PER_UM)


def track_height_bound_um(
    sensor: AfSensor, *, length_um: float, signal: float, share: float = 1.0, highest: bool = True
) -> float:
    """Least standard deviation of the height of a surface from what the sensor reads over it.

    The height before it is not known, and the low-pass carries it in. Shares and lag are taken to be known; dropouts
    are left out.

    Args:
        sensor: The sensor.
        length_um: Of the surface along the scan [um]
        signal: Light that comes back, mean over the column.
        share: Of the column's light, what comes from this surface.
        highest: Whether it is the highest of its columns; any other shows in the plain mean only.

    Returns:
        The bound, infinite where the reading does not depend on it [um]
    """
    count = math.floor(length_um / sensor.step_um)
    gain = (1.0 - sensor.mean_share) * highest + sensor.mean_share * share
    spread = sample_noise_um(sensor, signal)
    if count < 1 or spread == 0:
        return math.inf if count < 1 or gain == 0 else 0.0
    keep = math.exp(-1e3 / sensor.rate_hz / sensor.lag_ms) if sensor.lag_ms > 0 else 0.0
    before = keep ** np.arange(1, count + 1)
    return bound_um(remaining_information(gain * (1.0 - before) / spread, [before]))
