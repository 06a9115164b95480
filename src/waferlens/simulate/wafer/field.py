"""One field from its seed: scene, focus, light, camera, and the trace of the auto-focus beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, UInt16

from waferlens.ops.area import area_mean
from waferlens.recipe.wafer_world import WaferWorld
from waferlens.records import COUNTS_PER_UM, Die, Product, StageTrace
from waferlens.simulate.streams import Stream, stream, uniform
from waferlens.simulate.wafer.af import AfSensor, af_track, followed_focus
from waferlens.simulate.wafer.camera import Camera, acquire
from waferlens.simulate.wafer.canvas import Raster
from waferlens.simulate.wafer.design import RADIUS_UM, Design, draw_design
from waferlens.simulate.wafer.optics import Edges, defocused
from waferlens.simulate.wafer.otf import Lens
from waferlens.simulate.wafer.raster import rasterize
from waferlens.simulate.wafer.scene import FIELD_UM, draw_scene

LABEL_PX = 228
"""Side of S0's network input and label [px]"""
Z_FULL_COUNTS = 25_000
"""Readings that S0's label clamps to [count]"""


@dataclass(frozen=True, slots=True, eq=False)
class SimulatedField:
    """A field with all that is known of it."""

    image: UInt16[np.ndarray, "h w"]
    height_um: Float32[np.ndarray, "h w"]
    """Truth: above the carrier, positive up [um]"""
    trace: StageTrace
    dies: list[Die]
    design: Design
    pitch_um: float
    direction: int

    @property
    def product(self) -> Product:
        """The nominal stack."""
        return self.design.product


def draw_field(world: WaferWorld, root: int, number: int, grid: int, *, noise: bool = True) -> SimulatedField:
    """The field of a number: `fields_per_wafer` fields in a row are of one wafer.

    Args:
        world: The domain.
        root: Seed of the data set.
        number: Which field.
        grid: Rows and columns [px]
        noise: Whether camera and sensor are noisy.
    """
    wafer, field = divmod(number, world.fields_per_wafer)
    return _drawn(world, root, wafer, field, rows=grid, columns=grid, fields=1, noise=noise, direction=None)


def draw_swath(
    world: WaferWorld, root: int, wafer: int, fields: int, grid: int, direction: int, *, noise: bool = True
) -> SimulatedField:
    """A swath of several fields along the scan, on a vacuum chuck; columns beyond the wafer's edge are dark.

    Args:
        world: The domain.
        root: Seed of the data set.
        wafer: Which wafer.
        fields: Fields along the scan.
        grid: Rows, and columns of each field [px]
        direction: 1 along +x, -1 against it; the same scene, scanned again.
        noise: Whether camera and sensor are noisy.
    """
    return _drawn(
        world, root, wafer, 0, rows=grid, columns=fields * grid, fields=fields, noise=noise, direction=direction
    )


def _drawn(
    world: WaferWorld,
    root: int,
    wafer: int,
    field: int,
    *,
    rows: int,
    columns: int,
    fields: int,
    noise: bool,
    direction: int | None,
) -> SimulatedField:
    design = draw_design(world, root, wafer)
    scene = draw_scene(world, design, root, field, columns=fields, chucked=fields > 1)
    pitch = scene.width_um / columns
    raster = rasterize(world, scene, root, field, rows, columns)
    once = 0 if direction is None else direction + 2  # a second scan has its own noise, on the same scene
    instrument = stream(root, world.name, Stream.INSTRUMENT, wafer, field + 1, once)
    spec, share = world.microscope, world.nuisance
    lag = uniform(instrument, world.af.lag_ms, share)
    latency = round(uniform(instrument, world.af.latency_samples, share))
    way = 1 if instrument.random() < 0.5 else -1
    way = way if direction is None else direction
    focus_error = spec.focus_error_um * instrument.standard_normal()
    sensor = AfSensor(
        **{
            **{name: getattr(world.af, name) for name in AfSensor.__dataclass_fields__ if hasattr(world.af, name)},
            "lag_ms": lag,
            "latency_samples": latency,
        }
    )
    x = (np.arange(columns) + 0.5) * pitch
    off = np.hypot(x - 0.5 * scene.width_um + scene.place_um[0], scene.place_um[1]) > RADIUS_UM if fields > 1 else None
    lit, beside = raster.reflectance, raster.under_reflectance
    if off is not None and off.any():
        lit, beside = (np.where(off, np.float32(0), one) for one in (lit, beside))
    trace = af_track(
        raster.surface_um,
        raster.reflectance,
        pitch,
        sensor,
        instrument,
        stream(root, world.name, Stream.NOISE, wafer, field + 1, once, 1) if noise else None,
        direction=way,
        off_wafer=off,
    )
    focus: float | Float64[np.ndarray, " w"] = design.product.level_tops_um[-1] + focus_error
    if design.track_focus:
        focus = followed_focus(trace, design.track_cutoff_hz, x) + focus_error
    objective = np.interp(trace.x_counts / COUNTS_PER_UM, x, np.broadcast_to(focus, x.shape))
    trace = replace(trace, objective_z_um=np.round(objective, 3))
    lens = Lens(spec.magnification, spec.na, spec.wavelength_um)
    light = defocused(lit, raster.over_um, focus, pitch, lens, Edges(raster.share, beside, raster.under_um))
    camera = Camera(**{name: getattr(spec, name) for name in Camera.__dataclass_fields__})
    image = acquire(
        light,
        camera,
        pitch,
        stream(root, world.name, Stream.INSTRUMENT, wafer, field + 1, once, 2),
        stream(root, world.name, Stream.NOISE, wafer, field + 1, once, 2) if noise else None,
    )
    return SimulatedField(image, raster.height_um, trace, scene.records(), design, pitch, way)


def ideal_raster(world: WaferWorld, root: int, number: int, grid: int) -> Raster:
    """The scene of a field before any lens: heights and reflectances."""
    wafer, field = divmod(number, world.fields_per_wafer)
    design = draw_design(world, root, wafer)
    return rasterize(world, draw_scene(world, design, root, field), root, field, grid, grid)


def label_strip(trace: StageTrace, *, side: int = LABEL_PX, width_um: float = FIELD_UM) -> Float32[np.ndarray, "h w"]:
    """S0's label: readings clamped to 0..25,000, turned so that high is 255, the same in every row.

    Args:
        trace: Of one field.
        side: Rows and columns of the label [px]
        width_um: Of the field [um]
    """
    x = trace.x_counts / COUNTS_PER_UM
    clamped = np.clip(trace.z_counts, 0, Z_FULL_COUNTS)
    label = 255.0 * (Z_FULL_COUNTS - clamped) / Z_FULL_COUNTS
    order = np.argsort(x)
    row = np.interp((np.arange(side) + 0.5) * width_um / side, x[order], label[order])
    return np.tile(row.astype(np.float32), (side, 1))


def reduced(image: np.ndarray, side: int = LABEL_PX) -> Float32[np.ndarray, "h w"]:
    """A field on S0's grid: means over areas."""
    h, w = image.shape
    return area_mean(image, np.linspace(0, h, side + 1), np.linspace(0, w, side + 1))
