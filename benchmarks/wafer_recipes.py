"""What does each network of the wafer station reach, and what must it be told for that? Prints a table in Markdown.

    python benchmarks/wafer_recipes.py FOLDER [NAME=]BUNDLE … [--data NAME=DIR …] [--fields N] [--real-fields N]

Every bundle is judged on every data set, told the image alone, then the product, the AF track, both, and both with the
objective's height; of a network that is told nothing beside the image there is one row. Beside them stand what needs no
network: the track copied to every row, the product's top everywhere, the carrier, and the best constant in hindsight.

Without `--data` these are `eval-v1` and fields of the `real` domain, simulated into FOLDER where they are not there
yet. Each evaluation is kept in FOLDER/figures with the fingerprints of bundle and data, so the script goes on where it
was stopped and judges again what has changed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from waferlens.bundle.files import Bundle, open_bundle
from waferlens.bundle.wafer import WaferSession
from waferlens.evaluate.sites import SEED_VARIABLE
from waferlens.evaluate.wafer import evaluate_wafer, inputs_of
from waferlens.evaluate.wafer_truth import judged_fields
from waferlens.lab.bench import machine
from waferlens.load.wafer import manifest

TOLD = {
    "image": "image",
    "+ product": "image,product",
    "+ track": "image,track",
    "+ both": "image,product,track",
    "+ both, objective": "image,objective,product,track",
}
REAL_SEED = 20_251_127
CARRIERS = ("dark", "bright")
BASELINES = {
    "track copied to every row": "mae_track_copied_um",
    "product's top everywhere": "mae_nominal_top_um",
    "carrier everywhere": "mae_carrier_um",
    "best constant, in hindsight": "mae_constant_um",
}
COLUMNS = {
    "MAE [um]": ("mae_um", 1.0, 1),
    "p95 die top [um]": ("p95_die_top_um", 1.0, 1),
    "within ±50 um [%]": ("in_capture_range", 100.0, 1),
    "missing found [%]": ("missing_recall", 100.0, 1),
    "falsely missing [%]": ("false_missing_rate", 100.0, 2),
    "in 90 % interval [%]": ("coverage_90", 100.0, 1),
    "the same, missing dies [%]": ("coverage_90_missing", 100.0, 1),
}
"""Heading, name in the evaluation, factor, digits; each has a value for dark and one for bright carriers."""


def simulated(folder: Path, fields: int, real_fields: int) -> dict[str, Path]:
    """The data sets that figures are quoted on, simulated where they are not there yet."""
    sets = {"eval-v1": folder / f"eval-v1-{fields or 'all'}", "real": folder / f"real-{real_fields}"}
    told = {
        "eval-v1": ["--preset", "eval-v1", *(["--fields", str(fields)] if fields else [])],
        "real": ["--domain", "real", "--fields", str(real_fields), "--grid", "684", "--seed", str(REAL_SEED)],
    }
    workers = str(len(os.sched_getaffinity(0)))
    for name, path in sets.items():
        if not (path / "manifest.json").exists():
            command = [sys.executable, "-m", "waferlens", "simulate", "wafer", str(path), *told[name]]
            subprocess.run([*command, "--workers", workers], check=True, stdout=sys.stderr)
    os.environ.setdefault(SEED_VARIABLE, str(REAL_SEED))
    return sets


def judged(folder: Path, name: str, bundle: Bundle, data_name: str, data: Path) -> dict[str, dict[str, Any]]:
    """The evaluation of a bundle on a data set by what it is told; each only if its result is not there yet."""
    session, results = WaferSession(bundle, threads=len(os.sched_getaffinity(0))), {}
    sums = {"bundle": bundle.fingerprint, "data": manifest(data)["pixels_sha256"]}
    for label, words in TOLD.items():
        if any(word != "image" and word not in session.known for word in words.split(",")):
            continue
        path = folder / "figures" / f"{name}-{data_name}-{words.replace(',', '+')}.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        if any(kept.get(key) != value for key, value in sums.items()):
            began = time.perf_counter()
            result = evaluate_wafer(session, judged_fields(data), inputs_of(words, session))
            kept = {**sums, "seconds": round(time.perf_counter() - began, 1), "result": result, **machine()}
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".part")
            beside.write_text(json.dumps(kept, indent=1) + "\n")
            beside.replace(path)
            print(f"{name} on {data_name}, told {words}: {kept['seconds']} s", file=sys.stderr)
        results[label] = kept["result"]
    return results


def table(data_name: str, networks: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """One data set in Markdown."""
    first = next(iter(next(iter(networks.values())).values()))
    sites = first["sites"]
    lines = [
        f"### {data_name}: {first['fields']} fields of {first['wafers']} wafers, {sites['present']} dies, "
        f"{sites['missing']} missing",
        "",
        "Each cell: dark carriers / bright carriers; in brackets the 95 % interval over wafers.",
        "",
        "| network | told | " + " | ".join(COLUMNS) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for name, results in networks.items():
        for label, result in results.items():
            cells = [_cell(result[key], scale, digits, key == "mae_um") for key, scale, digits in COLUMNS.values()]
            lines.append(f"| {name} | {label} | " + " | ".join(cells) + " |")
    for name, key in BASELINES.items():
        cell = _cell(first["baselines"][key], 1.0, 1, interval=True)
        lines.append(f"| {name} | | {cell} |" + " |" * (len(COLUMNS) - 1))
    return [*lines, ""]


def _cell(told: dict[str, Any], scale: float, digits: int, interval: bool = False) -> str:
    parts = []
    for group in CARRIERS:
        if told.get(group) is None:
            parts.append("-")
            continue
        text = f"{scale * told[group]:.{digits}f}"
        if interval and f"{group}_95" in told:
            low, high = told[f"{group}_95"]
            text += f" [{scale * low:.{digits}f}, {scale * high:.{digits}f}]"
        parts.append(text)
    return " / ".join(parts) if any(part != "-" for part in parts) else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("bundles", nargs="+", help="path or shipped name, NAME= before it to call it otherwise")
    parser.add_argument("--data", action="append", default=[], help="NAME=DIR; may be repeated")
    parser.add_argument("--fields", type=int, default=0, help="of eval-v1, all 500 unless told")
    parser.add_argument("--real-fields", type=int, default=150)
    told = parser.parse_args()
    told.folder.mkdir(parents=True, exist_ok=True)
    sets = {}
    for one in told.data:
        name, equals, path = one.partition("=")
        if not equals:
            parser.error(f"--data {one}: as NAME=DIR")
        sets[name] = Path(path)
    sets = sets or simulated(told.folder, told.fields, told.real_fields)
    bundles = {}
    for one in told.bundles:
        name, equals, path = one.rpartition("=")
        bundle = open_bundle(path)
        bundles[name if equals else bundle.name] = bundle
    for data_name, data in sets.items():
        networks = {name: judged(told.folder, name, one, data_name, data) for name, one in bundles.items()}
        print("\n".join(table(data_name, networks)))


if __name__ == "__main__":
    main()
