"""What does each recipe of the hole station reach on `eval-v1` at the same small budget? Trains, exports, evaluates.

Usage: python benchmarks/hole_recipes.py FOLDER [recipe …]

Every run, bundle and evaluation in FOLDER that is already there is kept, so the script goes on where it was stopped.
The data is that of the trial a plain U-Net is quoted from: 900 training structures of `sim`, four cases, two images.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from waferlens.lab.bench import machine

STRUCTURES = 1125  # 80 % of them train
EPOCHS = 6
RECIPES = {
    "trial-unet": ("hole-unet-3", ["model.base_channels=16"]),
    "hole-autoencoder": ("hole-autoencoder", []),
    "hole-fast": ("hole-fast", []),
    "hole-unet-2": ("hole-unet-2", []),
    "hole-unet-3": ("hole-unet-3", []),
    "hole-pix2pix": ("hole-pix2pix", []),
    "hole-unet-4": ("hole-unet-4", []),
    "hole-pix2pix-3": ("hole-pix2pix-3", []),
}


def waferlens(*words: str | Path) -> str:
    """One command line, its standard output."""
    done = subprocess.run([sys.executable, "-m", "waferlens", *map(str, words)], check=True, stdout=subprocess.PIPE)
    return done.stdout.decode()


def reached(folder: Path, label: str) -> dict[str, object]:
    """Trains, exports and evaluates one recipe; each step only if its result is not there yet."""
    recipe, overrides = RECIPES[label]
    run, bundle, figures = folder / f"run-{label}", folder / f"bundle-{label}", folder / f"figures-{label}.json"
    if not (run / "weights.safetensors").exists():
        settings = [f"train.epochs={EPOCHS}", "train.schedule=onecycle", *overrides]
        threads = len(os.sched_getaffinity(0))  # more threads than cores would wait for each other
        waferlens("train", recipe, *settings, "--data", folder / "data", "--out", run, "--threads", threads)
    if not bundle.exists():
        waferlens("export", run, "--out", bundle)
    if not figures.exists():
        figures.write_text(waferlens("evaluate", bundle, "--data", folder / "eval", "--no-baselines", "--json"))
    told, card = json.loads(figures.read_text()), json.loads((run / "runcard.json").read_text())
    return {
        "recipe": label,
        "cpu_minutes": round(card["results"]["cpu_seconds"] / 60, 1),
        "parameters": card["results"]["network"]["parameters"],
        "gflops": card["results"]["network"]["gflops"],
        **{key: round(told[key], 3) for key in ("rmse_255", "rmse_structure", "rmse_level")},
    }


def main() -> None:
    """Runs what was asked for and prints the table as JSON."""
    folder, labels = Path(sys.argv[1]), sys.argv[2:] or list(RECIPES)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "data").exists():
        waferlens("simulate", "hole", folder / "data", "--structures", STRUCTURES, "--seed", 2, "--workers", 2)
    if not (folder / "eval").exists():
        waferlens("simulate", "hole", folder / "eval", "--preset", "eval-v1", "--structures", 500, "--workers", 2)
    rows = [reached(folder, label) for label in labels]
    print(
        json.dumps(
            {"question": "recipes at one small budget, 500 structures of eval-v1", "rows": rows, **machine()}, indent=2
        )
    )


if __name__ == "__main__":
    main()
