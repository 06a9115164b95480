"""The folder of a run: what stands in it, whom it belongs to, and the card that says how to make it again."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from waferlens import __version__
from waferlens.bundle.files import CALIBRATION, Bundle
from waferlens.errors import InputError, UsageError
from waferlens.inspect.plan import Plan, write_plan
from waferlens.records import RunCard

DATABASE, RESULTS, QUARANTINE = "results.sqlite", "results.csv", "quarantine.csv"
RUNCARD, LOG, PLAN = "runcard.json", "log.txt", "images.jsonl"
FINDINGS, COCO, DEVICES = "findings.csv", "findings.json", "devices.csv"
MAPS, OVERLAYS, STITCHED = "maps", "overlays", "stitched"
_OURS = (
    DATABASE, f"{DATABASE}-journal", RESULTS, QUARANTINE, FINDINGS, COCO, DEVICES, RUNCARD, LOG, PLAN, MAPS, OVERLAYS,
    STITCHED,
)  # fmt: skip
_STEM_BYTES = 200
_PART = ".part"  # ends the names of files that are not whole yet


def make_folder(out: Path, fresh: bool, store: str | None) -> None:
    """Makes the folder, or makes sure that it is empty or holds a run; removes that run if asked to.

    Raises:
        UsageError: it holds something else.
        InputError: it cannot be made.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; --out names a folder")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise InputError(out, f"cannot be made: {wrong.strerror or wrong}") from wrong
    for part in (*out.glob(f"*{_PART}"), *(out / MAPS).glob(f"*{_PART}"), *(out / OVERLAYS).glob(f"*{_PART}")):
        # of a run that was killed while it wrote
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()
    strangers = sorted(entry.name for entry in out.iterdir() if entry.name not in _OURS)
    if strangers and not (out / RUNCARD).exists():
        raise UsageError(f"{out}: holds other files ({strangers[0]} …) and no run; name a new folder")
    if not fresh:
        return
    former = _former_card(out)
    if former is not None and store is not None:
        from waferlens.store.results import Store  # only where used: it takes a fifth of a second to import

        with Store(store) as database:
            database.forget(former["data"]["run"])
    for name in _OURS:
        path = out / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def overlay_name(item: int, path: str) -> str:
    """The file of an image's overlay: its place in the lot, and as much of its name as every file system takes."""
    stem = Path(path).stem.encode("utf-8", "replace")[:_STEM_BYTES].decode("utf-8", "ignore")
    return f"{item:06d}_{stem}.png"


def make_plan(paths: Sequence[str | Path], out: Path, chunk: int, takes: Callable[[str], bool]) -> Plan:
    """The list of images; that of a former run is kept until it is known to be the same.

    Raises:
        InputError: there are no images.
        UsageError: the folder holds a run over other images.
    """
    temporary = out / f"{PLAN}{_PART}"
    try:
        plan = write_plan(paths, temporary, chunk, takes)
        former = _former_card(out)
        if former is not None and former["data"]["images_sha256"] != plan.sha256:
            count = former["data"]["images"]
            raise UsageError(
                f"{out}: holds a run over other images ({count} then, {plan.items} now); "
                "name the same images to resume it, another --out, or --fresh to remove it"
            )
        temporary.replace(out / PLAN)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Plan(out / PLAN, plan.items, plan.chunk, plan.sha256, plan.offsets)


def _former_card(out: Path) -> dict[str, Any] | None:
    path = out / RUNCARD
    if not path.exists():
        return None
    try:
        card = json.loads(path.read_text("utf-8"))
        if card["kind"] == "inspect" and {"run", "images_sha256", "images"} <= card["data"].keys():
            return card
    except (ValueError, KeyError, TypeError, AttributeError) as wrong:
        raise UsageError(f"{path}: is no run card of an inspection ({wrong}); name another --out") from wrong
    raise UsageError(f"{path}: belongs to a run of another kind; name another --out")


def make_card(
    bundle: Bundle, options: Mapping[str, Any], plan: Plan, paths: Sequence[str | Path], out: Path
) -> RunCard:
    """The run's card: the former one if the run is resumed, else a new one, written before the first result.

    Raises:
        UsageError: the folder holds a run with another bundle or other options.
    """
    former = _former_card(out)
    if former is not None:
        told = former["data"]
        changed = [
            f"{name}: {told['options'].get(name)} then, {value} now"
            for name, value in options.items()
            if told["options"].get(name) != value
        ]
        if told["fingerprint"] != bundle.fingerprint:
            changed.insert(0, f"bundle: {told['bundle']} then, {bundle.name} now, and their contents differ")
        if changed:
            raise UsageError(
                f"{out}: holds a run with other options ({'; '.join(changed)}); "
                "give the same to resume it, another --out, or --fresh to remove it"
            )
        return RunCard(**former)
    card = RunCard(
        kind="inspect",
        recipe=bundle.recipe,
        seeds={},
        versions={
            "waferlens": __version__,
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("numpy", "onnxruntime")},
        },
        data={
            "run": uuid.uuid4().hex,
            "images": plan.items,
            "images_sha256": plan.sha256,
            "inputs": [str(path) for path in paths[:20]],  # a shell may have named a hundred thousand
            "bundle": bundle.name,
            "fingerprint": bundle.fingerprint,
            "calibration": bundle.calibrated_on,
            **_threshold(bundle),
            **_score_limits(bundle),
            "options": dict(options),
        },
        sources=[part for part in (bundle.recipe.get("source"),) if part] + list(bundle.recipe.get("builds_on") or []),
        results={"state": "unfinished"},
        machine={"machine": platform.machine(), "cores": os.cpu_count()},
        started=now(),
    )
    write_card(out, card)
    return card


def _threshold(bundle: Bundle) -> dict[str, Any]:
    """The threshold of a fitted bundle, what it promises, and when it was set; nothing where a bundle has none."""
    told = bundle.threshold
    return {"threshold": {**told, "set": bundle.runcard.get("started", "")}} if told else {}


def _score_limits(bundle: Bundle) -> dict[str, Any]:
    """Of a calibrated package bundle, from which score a finding counts and what that promises; else nothing."""
    told = bundle.json(CALIBRATION) if CALIBRATION in bundle.files else {}
    return {"score_limits": told["limits"], "promises": told["promises"]} if told.get("kind") == "package" else {}


def write_card(out: Path, card: RunCard) -> None:
    """Writes the card, at once or not at all."""
    temporary = out / f"{RUNCARD}{_PART}"
    temporary.write_text(json.dumps(asdict(card), indent=1, ensure_ascii=False) + "\n", "utf-8")
    temporary.replace(out / RUNCARD)


def now() -> str:
    """The time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Log:
    """`log.txt`: a line an event, of all calls one after the other."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", errors="backslashreplace")

    def __call__(self, text: str) -> None:
        self._file.write(f"{now()} {text}\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
