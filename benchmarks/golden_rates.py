"""Does a golden template keep the false-alarm rate it states, and how small a defect does it find?

    OMP_NUM_THREADS=1 python benchmarks/golden_rates.py FOLDER [--recipe golden-template] [--set a.b=c …] [--world sim]
        [--products 10] [--fit 500] [--test 2000] [--defective 300] [--small] [--workers 1] [--out result.json]
        [--figure pod.png]

A product is a field of 2 x 3 holes with a design, a material and a microscope of its own. For each, the recipe is
fitted to good fields and judged on other good ones: the observed rates beside the stated one. Then on fields with one
planted defect and on their twins, the same draws without it: what is found at its place, by size and contrast, and
whether the twins alarm at the stated rate.

A threshold that is set by n good images has a true rate of its own, a Beta variable about the stated one: the alarms
of a repetition are beta-binomial, and that is the verdict. The plain binomial, right for one known rate, is told
beside it.

The fields are drawn once, 13-19 CPU-milliseconds a picture, into FOLDER (the full run: 31,000 pictures, 640 MB); what
is there already is kept, so the script goes on where it was stopped. `--small` takes little of everything: a minute.
Judging takes some 6 ms a picture.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from waferlens import __version__
from waferlens.errors import InputError, UsageError
from waferlens.evaluate.curves import Pod, binned_pod, clopper_pearson, fit_pod
from waferlens.evaluate.findings import check_rate, false_alarm_rate, pair_up
from waferlens.lab.bench import machine
from waferlens.ops.conformal import Guarantee
from waferlens.prepare.golden import fit_images
from waferlens.prepare.good import divided
from waferlens.recipe import load_recipe
from waferlens.recipe.golden import GoldenRecipe
from waferlens.records import Finding, Image
from waferlens.simulate.hole.dataset import hole_world, world_fingerprint
from waferlens.simulate.hole.defects import KIND_NAMES
from waferlens.simulate.hole.field import FieldSpec, Role
from waferlens.simulate.hole.twins import field_images

SPEC = FieldSpec(rows=2, columns=3)
SHARD = 250
"""Fields a file, and so what an interruption loses."""
SMALL = {"products": 3, "fit": 150, "test": 100, "defective": 50}
CONTRASTS_GREY = (10.0, 20.0, 40.0, 80.0)
"""Contrasts at which the size that is found nine times of ten is told [grey]"""
SIZE_EDGES = (2.0, 3.0, 4.0, 6.0, 8.0, 11.0, 16.0)
CONTRAST_EDGES = (6.0, 10.0, 16.0, 25.0, 40.0, 80.0)
FIXED_SIZE = ("missing",)
"""Kinds as large as a hole: their size says nothing."""


@dataclass(frozen=True, slots=True)
class Task:
    """One product: what is drawn of it, and what judges it."""

    product: int
    folder: Path
    world: str
    recipe: GoldenRecipe
    fit: int
    test: int
    defective: int


@dataclass(slots=True)
class Judged:
    """What came of one product."""

    product: int
    guarantee: Guarantee
    factor: float
    template: int
    refused: int
    """Images of all that were tested which could not be registered; they alarm."""
    alarmed: int
    """Of the good images that were tested."""
    twins_alarmed: int
    find_ms: float
    """CPU time of an image from pixels to findings [ms]"""
    defects: list[dict[str, Any]] = field(default_factory=list)
    """Each planted defect, whether it was found at its place, and whether the image alarmed."""


def draw(task: Task, role: Role, count: int) -> Iterator[str]:
    """Draws what is not in the folder yet; yields the ends of the names of the files that make the set."""
    for first in range(0, count, SHARD):
        last = min(first + SHARD, count)
        end = f"{first:05d}-{last:05d}"
        names = [role.name.lower()] + (["twin"] if role is Role.DEFECTIVE else [])
        if not all((task.folder / f"{name}-{end}.npy").exists() for name in names):
            world = hole_world(task.world)
            images = list(field_images(world, task.product, last - first, spec=SPEC, role=role, start=first))
            truth = [asdict(one.defect) | {"box": one.box} for image in images for one in image.planted]
            if truth:
                (task.folder / f"truth-{end}.json").write_text(json.dumps(truth) + "\n")
            for name in names:
                # under another name first: half a file is never taken for a whole one
                unfinished = task.folder / f"unfinished-{name}.npy"
                stack = [image.pixels if name != "twin" else image.twin for image in images]
                np.save(unfinished, np.stack([one for one in stack if one is not None]))
                unfinished.replace(task.folder / f"{name}-{end}.npy")
        yield end


def claim(task: Task) -> None:
    """Refuses fields of another world: a folder holds one."""
    told = {"world": world_fingerprint(hole_world(task.world)), "product": task.product, "field": asdict(SPEC)}
    task.folder.mkdir(parents=True, exist_ok=True)
    file = task.folder / "fields.json"
    if file.exists() and json.loads(file.read_text()) != told:
        raise InputError(file, "tells of other fields than are asked for now; name another folder, or remove this one")
    file.write_text(json.dumps(told) + "\n")


def judged(task: Task) -> Judged:
    """Draws a product's fields, fits the recipe, and tests it."""
    claim(task)
    good = list(draw(task, Role.GOOD, task.fit + task.test))
    bad = list(draw(task, Role.DEFECTIVE, task.defective))

    def images(name: str, ends: Sequence[str]) -> list[Image]:
        stacks = [np.load(task.folder / f"{name}-{end}.npy") for end in ends]
        return [Image(pixels, 255.0, path=f"{name} {n}") for n, pixels in enumerate(np.concatenate(stacks))]

    all_good = images("good", good)
    template, calibration = divided(task.recipe, all_good[: task.fit], task.folder)
    session, guarantee, *_ = fit_images(task.recipe, template, calibration)
    if not isinstance(guarantee, Guarantee):
        raise UsageError(f"{task.recipe.name} states no rate an image; set threshold.false_alarm_rate and .per=image")
    began, refused = time.process_time(), 0

    def critical(image: Image) -> list[Finding] | None:
        """The findings that count; None where the image was not compared."""
        nonlocal refused
        found = session.find(image)
        refused += bool(found.compared.reason)
        return None if found.compared.reason else [one for one in found.findings if one.critical]

    def alarms(some: Sequence[Image]) -> int:
        return sum(found is None or len(found) > 0 for found in map(critical, some))

    alarmed = alarms(all_good[task.fit :])
    twins_alarmed = alarms(images("twin", bad)) if bad else 0
    truth = [one for end in bad for one in json.loads((task.folder / f"truth-{end}.json").read_text())]
    defects = []
    for image, told in zip(images("defective", bad) if bad else [], truth, strict=True):
        found = critical(image)
        at = Finding(told["kind"], told["box"], 1.0, 0.0, told["contrast_grey"], "light", True)
        matched, _ = pair_up(found or [], [at], rule="centre")
        defects.append(told | {"found": bool((matched >= 0).any()), "alarmed": found is None or len(found) > 0})
    find_ms = 1e3 * (time.process_time() - began) / (task.test + 2 * task.defective)
    return Judged(
        task.product, guarantee, session.factor, len(template), refused, alarmed, twins_alarmed, find_ms, defects
    )  # fmt: skip


def rate_check(counts: Sequence[int], images: int, guarantee: Guarantee) -> dict[str, Any]:
    """Alarms of all repetitions against the statement: as thresholds were fitted, and as if one rate were known."""
    fitted, plain = check_rate(counts, images, guarantee), check_rate(counts, images, guarantee.rate)
    low, high = clopper_pearson(np.array(counts), images)
    pooled = false_alarm_rate(sum(counts), images * len(counts))
    return {
        "alarmed": list(counts),
        "images_each": images,
        "observed": pooled.value,
        "binomial_95_of_all": [pooled.low, pooled.high],
        "binomial_95_of_each": np.column_stack((low, high)).tolist(),
        "each_holds_the_stated_rate": int(((low <= guarantee.rate) & (guarantee.rate <= high)).sum()),
        "each_not_above_the_stated_rate": int((low <= guarantee.rate).sum()),
        "beta_binomial": asdict(fitted),
        "binomial": asdict(plain),
    }


def detection(defects: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares found of each kind and of all that have sizes, and where nine of ten are found."""
    told: dict[str, Any] = {}
    groups = {kind: [one for one in defects if one["kind"] == kind] for kind in KIND_NAMES}
    groups = {"all but missing": [one for one in defects if one["kind"] not in FIXED_SIZE]} | groups
    for kind, some in groups.items():
        if not some:
            continue
        size, contrast, hit = columns(some)
        grid = binned_pod({"size": size, "contrast": contrast}, hit, {"size": SIZE_EDGES, "contrast": CONTRAST_EDGES})
        entry: dict[str, Any] = {
            "defects": len(some),
            "found": int(hit.sum()),
            "planted_px": [size.min(), size.max()],
            "planted_grey": [contrast.min(), contrast.max()],
            "alarmed": sum(one["alarmed"] for one in some),
            "bins": {"size_px": SIZE_EDGES, "contrast_grey": CONTRAST_EDGES}
            | {"found": grid.hits.tolist(), "of": grid.total.tolist()},
        }
        try:
            entry |= reached(kind, size, contrast, hit)
        except UsageError as wrong:
            entry["why_no_a90"] = str(wrong)
        told[kind] = entry
    return told


def reached(kind: str, size: np.ndarray, contrast: np.ndarray, hit: np.ndarray) -> dict[str, Any]:
    """a90 and a90/95 of a kind: sizes at given contrasts, or the contrast where the size is the hole's."""
    if kind in FIXED_SIZE:
        value, bound = fit_pod({"contrast": contrast}, hit).reach("contrast")
        return {"a90_grey": finite(value), "a90_95_grey": finite(bound)}
    pod = fit_pod({"size": size, "contrast": contrast}, hit)
    at = [grey for grey in CONTRASTS_GREY if contrast.min() <= grey <= 1.05 * contrast.max()]
    ends = {f"{grey:g}": pod.reach("size", contrast=grey) for grey in at}
    return {
        "log_odds": dict(zip(("1", *pod.names), pod.coefficients.tolist(), strict=True)),
        "a90_at_contrast": {grey: [finite(value), finite(bound)] for grey, (value, bound) in ends.items()},
    }


def columns(defects: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, contrasts without their sign, and whether it was found."""
    size, contrast = (np.array([one[name] for one in defects]) for name in ("size_px", "contrast_grey"))
    return size, np.abs(contrast), np.array([one["found"] for one in defects])


def table(result: dict[str, Any]) -> str:
    """The figures as a person reads them."""
    lines = [f"{'':18}{'observed':>10}{'95 % binomial':>18}{'expected range':>18}   verdict"]
    for name, key in (("good images", "good"), ("twins", "twins")):
        if key not in result:
            continue
        check = result[key]
        fitted, plain = check["beta_binomial"], check["binomial"]
        low, high = check["binomial_95_of_all"]
        lines.append(
            f"{name:18}{check['observed']:>10.3%}{f'{low:.3%}-{high:.3%}':>18}"
            f"{'{low:.3%}-{high:.3%}'.format(**fitted):>18}   kept {yes(fitted['kept'])}, "
            f"consistent {yes(fitted['consistent'])}; plain binomial: kept {yes(plain['kept'])}, "
            f"{check['each_not_above_the_stated_rate']} of {len(check['alarmed'])} repetitions not above it"
        )
        lines.append(f"{'':18}alarms a repetition: {', '.join(map(str, check['alarmed']))}")
    for kind, one in result.get("detection", {}).items():
        px, grey = (partial(up_to, most=one[key][1]) for key in ("planted_px", "planted_grey"))
        reach = one.get("a90_at_contrast", {})
        ends = "  ".join(f"{at}: {px(value)} ({px(bound)})" for at, (value, bound) in reach.items())
        if "a90_grey" in one:
            ends = f"a90 at {grey(one['a90_grey'])} ({grey(one['a90_95_grey'])}) grey"
        lines.append(f"{kind:18}{one['found']:>5} of {one['defects']:<5} {ends or one.get('why_no_a90', '')}")
    lines.append("a90 (a90/95) in px at contrasts of so many grey; beyond what was planted, only that is said")
    return "\n".join(lines)


def draw_figure(path: Path, defects: Sequence[dict[str, Any]]) -> None:
    """What was found and what was not, by size and contrast, with the line of a90: one panel a kind."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    kinds = [kind for kind in KIND_NAMES if kind not in FIXED_SIZE]
    panels: list[tuple[str, Callable[[dict[str, Any]], bool]]] = [
        ("all", lambda one: one["kind"] not in FIXED_SIZE),
        *((kind, lambda one, kind=kind: one["kind"] == kind) for kind in kinds),
    ]
    figure, axes = plt.subplots(2, 3, figsize=(11, 7), sharex=True, sharey=True, layout="constrained")
    for axis, (name, chosen) in zip(axes.flat, panels, strict=True):
        size, contrast, hit = columns([one for one in defects if chosen(one)])
        axis.scatter(contrast[hit], size[hit], s=5, color="tab:blue", alpha=0.4, linewidths=0, label="found")
        axis.scatter(contrast[~hit], size[~hit], s=8, color="tab:red", alpha=0.7, linewidths=0, label="missed")
        try:
            pod: Pod | None = fit_pod({"size": size, "contrast": contrast}, hit)
        except UsageError:  # all were found, or none
            pod = None
        if pod is not None:
            grey = np.geomspace(contrast.min(), contrast.max(), 25)
            ends = np.array([pod.reach("size", contrast=float(one)) for one in grey])
            axis.plot(grey, ends[:, 0], color="black", label="a90")
            axis.plot(grey, ends[:, 1], color="black", linestyle=":", label="a90/95")
        axis.set(title=f"{name}: {hit.sum()} of {hit.size}", xscale="log", yscale="log", ylim=(1.9, 20))
        axis.set_xticks([6, 10, 20, 40, 80], ["6", "10", "20", "40", "80"])
        axis.set_yticks([2, 4, 8, 16], ["2", "4", "8", "16"])
        axis.minorticks_off()
    axes[0, 0].legend(loc="upper right", fontsize=8)
    figure.supxlabel("contrast [grey]")
    figure.supylabel("size [px]")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def up_to(value: float | None, most: float) -> str:
    return f">{most:.0f}" if value is None or value > most else f"{value:.1f}"


def yes(is_so: bool) -> str:
    return "yes" if is_so else "NO"


def finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def progress(done: Judged) -> Judged:
    found = sum(one["found"] for one in done.defects)
    print(
        f"product {done.product}: threshold {done.factor:.3f}, {done.alarmed} false alarms, {done.twins_alarmed} of "
        f"twins, {found} of {len(done.defects)} defects, {done.find_ms:.1f} ms an image",
        file=sys.stderr,
        flush=True,
    )
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--recipe", default="golden-template")
    parser.add_argument("--set", dest="settings", action="append", default=[], metavar="a.b=c")
    parser.add_argument("--world", default="sim")
    for name, count in {"products": 10, "fit": 500, "test": 2000, "defective": 300}.items():
        parser.add_argument(f"--{name}", type=int, default=None, help=f"{count}, or {SMALL[name]} with --small")
        parser.set_defaults(**{f"full_{name}": count})
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--figure", type=Path, default=None)
    told = parser.parse_args()
    sizes = {
        name: getattr(told, name) or (SMALL[name] if told.small else getattr(told, f"full_{name}")) for name in SMALL
    }
    recipe = load_recipe(told.recipe, told.settings)
    assert isinstance(recipe, GoldenRecipe)
    products = range(1, 1 + sizes.pop("products"))
    tasks = [Task(one, told.folder / f"product-{one:02d}", told.world, recipe, **sizes) for one in products]
    began = time.perf_counter()
    if told.workers > 1:
        with ProcessPoolExecutor(told.workers, get_context("spawn")) as pool:
            done = list(map(progress, pool.map(judged, tasks)))
    else:
        done = [progress(judged(task)) for task in tasks]
    guarantee = done[0].guarantee
    defects = [one for product in done for one in product.defects]
    check = partial(rate_check, guarantee=guarantee)
    result: dict[str, Any] = {
        "question": "false-alarm rate against the stated one, and what is detected",
        "recipe": recipe.model_dump(mode="json"),
        "world": told.world,
        "fields": {"width_px": SPEC.columns * 48, "height_px": SPEC.rows * 72, **sizes},
        "stated": asdict(guarantee),
        "factors": [one.factor for one in done],
        "tied": [one.guarantee.tied for one in done],
        "not_compared": sum(one.refused for one in done),
        "good": check([one.alarmed for one in done], sizes["test"]),
    }
    if defects:
        result["twins"] = check([one.twins_alarmed for one in done], sizes["defective"])
        result["detection"] = detection(defects)
    result |= {
        "find_cpu_ms": round(float(np.median([one.find_ms for one in done])), 2),
        "seconds": round(time.perf_counter() - began),
        "taken": time.strftime("%Y-%m-%d"),
        "waferlens": __version__,
        **machine(),
    }
    print(table(result))
    text = json.dumps(result, indent=2)
    if told.out is not None:
        told.out.parent.mkdir(parents=True, exist_ok=True)
        told.out.write_text(text + "\n")
    if told.figure is not None:
        draw_figure(told.figure, defects)


if __name__ == "__main__":
    main()
