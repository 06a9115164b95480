"""The demonstration: a small lot simulated, inspected, held against its truth, fields compared with a good part,
a wafer scanned, a tray of packages judged, a surface measured, one page written.

It needs no torch and no network, and takes less than a minute. What is bad in the lot is there on purpose: files
that are no images, and holes of another microscope, which a calibrated bundle has to set aside.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from waferlens import __version__
from waferlens.bundle.files import Bundle, open_bundle
from waferlens.bundle.session import Session
from waferlens.errors import InputError, UsageError
from waferlens.evaluate.hole import evaluate_pairs
from waferlens.evaluate.pictures import write_evaluation
from waferlens.evaluate.sites import evaluate_sites
from waferlens.formats.heightmap import read_height_map, write_height_map
from waferlens.inspect import InspectResult, inspect_paths
from waferlens.lab.golden import GOOD, LOT_DEFECTIVE, LOT_GOOD, GoldenPart, compare_with_good
from waferlens.lab.package import DEVICES, TrayPart, judge_tray
from waferlens.lab.wafer import FIELDS, WaferPart, scan_wafer
from waferlens.load.challenge import load_sim, scan
from waferlens.measure.surface import measure_surface
from waferlens.records import HeightMap, RunCard
from waferlens.report.page import write_report
from waferlens.simulate.hole.dataset import hole_world, write_pairs, write_sites

BUNDLE, WAFER_BUNDLE, PACKAGE_BUNDLE = "hole-fast", "wafer-fast", "package-fast"
LIMITS = ("depth=110:135nm", "cd50_area=37.5:41.5nm")
"""The plateaus of the simulated cases give depths of 113, 123, 133 and 143 nm: OK, OK, at the limit, NG."""
STRUCTURES, SITES, HOLES_PER_SITE = 16, 4, 8
SEED = 7
PAGE, CARD, LOG = "report.html", "runcard.json", "log.txt"
_OURS = (
    "lot",
    "inspected",
    "evaluated",
    "fields",
    "golden",
    "compared",
    "swaths",
    "scanned",
    "tray",
    "judged",
    "surface",
    PAGE,
    CARD,
    LOG,
)

SURFACE_SQ_NM, SURFACE_TILT_UM_MM = 40.0, (3.0, -1.5)
"""What the simulated surface is made with: roughness, and rise along x and y."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """Where to look, and what is to be seen there."""

    out: str
    report: str
    images: int
    quarantined: int
    verdicts: dict[str, int]
    images_per_second: float
    rmse_grey: float
    """Of the depth maps against the truth."""
    coverage_90: float | None
    """Share of the pixels inside their 90 % interval."""
    depth_bias_nm: float | None
    site_rmse_nm: float | None
    """Mean depth of the sites of the other microscope."""
    golden: GoldenPart
    """Fields that were compared with a good part."""
    wafer: WaferPart
    """A swath of a wafer that was scanned."""
    packages: TrayPart
    """A tray of packages that was judged."""
    surface_sq_nm: float
    surface_sq_true_nm: float
    seconds: float

    def lines(self) -> list[str]:
        """Eight lines for people."""
        verdicts = ", ".join(f"{count} {verdict}" for verdict, count in self.verdicts.items())
        bias = "unknown" if self.depth_bias_nm is None else f"{self.depth_bias_nm:+.2f} nm"
        covered = "unknown" if self.coverage_90 is None else f"{100 * self.coverage_90:.1f} %"
        return [
            f"inspected  {self.images} images at {self.images_per_second:,.0f} a second: {verdicts}",
            f"set aside  {self.quarantined} files that cannot be measured, each with its reason",
            f"truth      RMSE {self.rmse_grey:.2f} grey, depth bias {bias}, 90 % intervals cover {covered} of pixels",
            self.golden.line(),
            self.wafer.line(),
            self.packages.line(),
            f"surface    Sq {self.surface_sq_nm:.1f} nm after levelling, made with {self.surface_sq_true_nm:.1f} nm",
            f"look at    {self.report}",
        ]


def run_demo(
    out: str | Path,
    bundle: str | Path = BUNDLE,
    *,
    structures: int = STRUCTURES,
    sites: int = SITES,
    holes_per_site: int = HOLES_PER_SITE,
    good_fields: int = GOOD,
    lot_fields: tuple[int, int] = (LOT_GOOD, LOT_DEFECTIVE),
    swath_fields: int = FIELDS,
    devices: int = DEVICES,
    seed: int = SEED,
    tell: Callable[[str], None] = lambda text: None,
) -> DemoResult:
    """Tells the whole story once.

    Args:
        out: folder; a former demonstration in it is replaced, anything else is not.
        bundle: a shipped name or a path.
        structures: simulated structures with truth; eight images each.
        sites: sites of the other microscope.
        holes_per_site: images of each site.
        good_fields: good fields that the golden template is fitted to.
        lot_fields: good and defective fields that are compared with it.
        swath_fields: fields along the swath of a wafer.
        devices: packages on the tray, each in three lights.
        seed: of everything that is drawn.
        tell: called with a line when a step begins.

    Raises:
        UsageError: the folder holds something else.
        BundleError: there is no such bundle.
        InputError: something cannot be written.
    """
    began = time.perf_counter()
    out = Path(out)
    opened = open_bundle(bundle)
    _make_folder(out)
    log: list[str] = []

    def step(text: str) -> None:
        log.append(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}")
        tell(text)

    step(f"simulating {structures * 8} images with truth and {sites * holes_per_site} of another microscope")
    pixel_nm = _simulate(out / "lot", structures, sites, holes_per_site, seed)
    step(f"inspecting them with {opened.name}")
    inspected = inspect_paths([out / "lot"], opened, out / "inspected", limits=LIMITS, pixel_nm=pixel_nm)
    step("comparing with the truth")
    figures = _evaluate(opened, out)
    step(f"fitting a golden template to {good_fields} good fields, and comparing {sum(lot_fields)} others with it")
    golden = compare_with_good(out / "fields", out / "golden", out / "compared", seed, good=good_fields, lot=lot_fields)
    step(f"scanning {swath_fields} fields of a wafer with auto-focus, and mapping its heights and dies")
    wafer = scan_wafer(out / "swaths", out / "scanned", open_bundle(WAFER_BUNDLE), seed, fields=swath_fields)
    step(f"judging a tray of {devices} packages, each in three lights")
    tray = judge_tray(out / "tray", out / "judged", open_bundle(PACKAGE_BUNDLE), seed, devices=devices)
    step("measuring a rough, tilted surface with invalid points and a spike")
    surface, sq_nm = _surface(out / "surface", seed)
    step("writing the page")
    page = write_report(
        [out / "inspected", out / "evaluated", out / "compared", out / "scanned", out / "judged", surface],
        out / PAGE,
        "Demonstration lot",
    )
    result = _result(out, page, inspected, figures, golden, wafer, tray, sq_nm, time.perf_counter() - began)
    sizes = {
        "structures": structures, "sites": sites, "holes_per_site": holes_per_site,
        "good_fields": good_fields, "lot_fields": list(lot_fields), "swath_fields": swath_fields, "devices": devices,
    }  # fmt: skip
    _write_card(out, opened, result, seed, sizes)
    (out / LOG).write_text("".join(f"{line}\n" for line in log), "utf-8")
    return result


def rough_surface(seed: int, h: int = 256, w: int = 320, pitch_um: float = 0.5) -> HeightMap:
    """A tilted rough surface as an instrument would hand it over: invalid points, and one spike of dust.

    The roughness is Gaussian with a Gaussian correlation of 4 µm; without tilt and spike its Sq is `SURFACE_SQ_NM`.

    Args:
        seed: of the roughness and of the points that are lost.
        h: rows.
        w: columns.
        pitch_um: distance of neighbouring points [um]
    """
    rng = np.random.default_rng([seed, 0x5F])
    fy, fx = np.meshgrid(np.fft.fftfreq(h, pitch_um), np.fft.fftfreq(w, pitch_um), indexing="ij")
    spectrum = np.exp(-((np.pi * 4.0) ** 2) * (fx**2 + fy**2) / 2)
    rough = np.fft.ifft2(np.fft.fft2(rng.standard_normal((h, w))) * spectrum).real
    y, x = np.mgrid[:h, :w] * pitch_um
    basis = np.column_stack([np.ones(h * w), x.ravel(), y.ravel()])
    # without its own plane the roughness has exactly the Sq it is made with, and the tilt is exactly the tilt
    rough -= (basis @ np.linalg.lstsq(basis, rough.ravel(), rcond=None)[0]).reshape(h, w)
    rough *= SURFACE_SQ_NM * 1e-3 / rough.std()
    tilt_x, tilt_y = SURFACE_TILT_UM_MM
    heights = rough + 1e-3 * (tilt_x * x - tilt_y * y)  # y of a tilt points up the picture
    valid = rng.random((h, w)) > 0.002
    valid &= ((x - 118.0) / 14.0) ** 2 + ((y - 38.0) / 9.0) ** 2 > 1.0  # where light was lost
    heights += 1.1 * np.exp(-((x - 47.0) ** 2 + (y - 88.0) ** 2) / 0.9)  # dust
    return HeightMap(
        np.where(valid, heights, np.nan).astype(np.float32), valid, "um", pitch_um, pitch_um, "um",
        origin={"format": "simulated", "channel": "Height", "remarks": []},
    )  # fmt: skip


def _make_folder(out: Path) -> None:
    """Makes the folder; removes a former demonstration, and nothing else.

    Raises:
        UsageError: it is a file, or holds what is not ours.
        InputError: it cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; --out names a folder")
    if out.exists() and any(out.iterdir()):
        card = out / CARD
        strangers = sorted(entry.name for entry in out.iterdir() if entry.name not in _OURS)
        if strangers or not _is_demo(card):
            named = strangers[0] if strangers else f"no {CARD} of a demonstration"
            raise UsageError(f"{out}: holds something else than a demonstration ({named}); name a new folder")
    try:
        for name in _OURS:
            if (out / name).is_dir():
                shutil.rmtree(out / name)
            else:
                (out / name).unlink(missing_ok=True)
        out.mkdir(parents=True, exist_ok=True)
        # written first: a demonstration that was interrupted is still known as one, and replaced by the next
        (out / CARD).write_text(json.dumps({"kind": "demo", "results": {"state": "unfinished"}}) + "\n", "utf-8")
    except OSError as wrong:
        raise InputError(out, f"cannot be made: {wrong.strerror or wrong}") from wrong


def _is_demo(card: Path) -> bool:
    if not card.is_file():
        return False
    try:
        return json.loads(card.read_text("utf-8")).get("kind") == "demo"
    except (ValueError, AttributeError) as wrong:
        raise UsageError(f"{card}: is no run card ({wrong}); name another folder") from wrong


def _simulate(lot: Path, structures: int, sites: int, holes_per_site: int, seed: int) -> float:
    """Writes the lot with what is bad in it; returns its pixel size [nm]"""
    world = hole_world("sim")
    write_pairs(lot / "sim", world, structures, seed)
    write_sites(lot / "real", hole_world("real"), sites, holes_per_site, seed)
    strays = lot / "strays"
    strays.mkdir()
    whole = min((lot / "sim").rglob("*_itr0.png")).read_bytes()
    (strays / "truncated.png").write_bytes(whole[: len(whole) // 3])
    (strays / "notes.png").write_text("recipe 12, second cassette\n", "utf-8")
    _, wide = cv2.imencode(".png", np.full((96, 96), 128, np.uint8))
    (strays / "other_size.png").write_bytes(wide.tobytes())
    return world.pixel_nm


def _evaluate(bundle: Bundle, out: Path) -> dict[str, Any]:
    """The bundle on the images whose truth is known, and on the sites whose mean depth is."""
    session, calibration = Session(bundle, threads=2), bundle.calibration
    pairs = load_sim(scan(out / "lot" / "sim"))
    nm_per_grey = (bundle.recipe.get("depth") or {}).get("nm_per_grey")
    found = evaluate_pairs(session, calibration, pairs, nm_per_grey=nm_per_grey)
    result = {"bundle": bundle.name, "data": "the simulated part of the lot", "split": "all", **found.summary}
    if nm_per_grey is not None:  # else depths are in grey, and those of the sites in nm
        result["sites"] = evaluate_sites(session, calibration, scan(out / "lot" / "real"), nm_per_grey)
    write_evaluation(out / "evaluated", result, found.worst, found.table)
    return result


def _surface(folder: Path, seed: int) -> tuple[Path, float]:
    """Writes the surface, and measures what was written; returns its file, and Sq without the spike [nm]"""
    folder.mkdir()
    path = folder / "rough-tilted.x3p"
    write_height_map(path, rough_surface(seed))
    rows = measure_surface(read_height_map(path), outliers=True)
    return path, next(1e3 * row.value for row in rows if row.name == "Sq" and row.value is not None)


def _result(
    out: Path,
    page: Path,
    inspected: InspectResult,
    figures: dict[str, Any],
    golden: GoldenPart,
    wafer: WaferPart,
    tray: TrayPart,
    sq_nm: float,
    seconds: float,
) -> DemoResult:
    return DemoResult(
        out=str(out),
        report=str(page),
        images=inspected.images,
        quarantined=inspected.quarantined,
        verdicts=inspected.verdicts,
        images_per_second=inspected.images_per_second,
        rmse_grey=figures["rmse_255"],
        coverage_90=figures.get("coverage_90"),
        depth_bias_nm=figures.get("depth", {}).get("bias_nm"),
        site_rmse_nm=figures.get("sites", {}).get("rmse_nm"),
        golden=golden,
        wafer=wafer,
        packages=tray,
        surface_sq_nm=round(sq_nm, 3),
        surface_sq_true_nm=SURFACE_SQ_NM,
        seconds=round(seconds, 3),
    )


def _write_card(out: Path, bundle: Bundle, result: DemoResult, seed: int, sizes: dict[str, Any]) -> None:
    card = RunCard(
        kind="demo",
        recipe=bundle.recipe,
        seeds={"demo": seed},
        versions={"waferlens": __version__, "python": platform.python_version(), "numpy": np.__version__},
        data={
            "bundle": bundle.name, "fingerprint": bundle.fingerprint, "limits": list(LIMITS), **sizes,
        },
        results={"state": "done", **asdict(result)},
        machine={"machine": platform.machine(), "cores": os.cpu_count()},
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=result.seconds,
    )  # fmt: skip
    (out / CARD).write_text(json.dumps(asdict(card), indent=1, ensure_ascii=False) + "\n", "utf-8")
