"""A bundle on disk: one folder or zip that is everything a line needs, with the sum of each file.

model.onnx         the network, normalisation inside; absent where nothing is learned
recipe.yaml        the resolved recipe it was made from
runcard.json       how it was made
boxes.onnx         a detector beside model.onnx whose boxes tell that one where to look; SAM bundles only
boxes.yaml         the resolved recipe of that detector
golden.npz         the good part that images are compared with; golden recipes only
calibration.json   intervals and the limits of its domain, or a threshold, with the data they came from
parity.json        how far ONNX Runtime and the training framework agree
CARD.md            what it is, for people
sha256.json        the sums; written last, checked first
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from waferlens.bundle.calibration import Calibration
from waferlens.errors import BundleError

MODEL, RECIPE, RUNCARD = "model.onnx", "recipe.yaml", "runcard.json"
CALIBRATION, PARITY, CARD, SUMS = "calibration.json", "parity.json", "CARD.md", "sha256.json"
REQUIRED = (RECIPE, RUNCARD)
GOLDEN = "golden.npz"
BOXES, BOXES_RECIPE = "boxes.onnx", "boxes.yaml"
OPTIONAL = (MODEL, BOXES, BOXES_RECIPE, GOLDEN, CALIBRATION, PARITY, CARD)
FORMAT_VERSION = 1
"""Rises when an older waferlens would misread a bundle."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, its sums checked."""

    name: str
    """The shipped name, or the name of the folder or zip without its ending."""
    path: Path
    fingerprint: str
    """sha256 over the sums: two bundles with the same fingerprint measure the same."""
    files: Mapping[str, bytes] = field(repr=False)
    """Everything in it, by name, exactly as it was summed."""

    @cached_property
    def recipe(self) -> dict[str, Any]:
        """The resolved recipe as plain data; it was validated when the bundle was made.

        Raises:
            BundleError: it is no YAML mapping.
        """
        try:
            recipe = yaml.safe_load(self.files[RECIPE].decode())
        except (yaml.YAMLError, UnicodeDecodeError) as wrong:
            raise BundleError(f"{self.path}: {RECIPE} is no YAML: {wrong}") from wrong
        if not isinstance(recipe, dict):
            raise BundleError(f"{self.path}: {RECIPE} should be a mapping, got {type(recipe).__name__}")
        return recipe

    @cached_property
    def runcard(self) -> dict[str, Any]:
        """How the bundle was made."""
        return self.json(RUNCARD)

    @cached_property
    def parity(self) -> dict[str, Any] | None:
        """The agreement of ONNX Runtime with the training framework; None if nothing was exported."""
        return self.json(PARITY) if PARITY in self.files else None

    @cached_property
    def calibration(self) -> Calibration:
        """Intervals and domain; an empty one if the bundle has none.

        Raises:
            BundleError: the file is not a calibration of a version this waferlens knows.
        """
        if CALIBRATION not in self.files:
            return Calibration()
        try:
            return Calibration.from_json(self.json(CALIBRATION))
        except (KeyError, TypeError, ValueError) as wrong:
            told = f"{type(wrong).__name__}: {wrong}"
            raise BundleError(f"{self.path}: {CALIBRATION} is not a calibration this version reads ({told})") from wrong

    @cached_property
    def calibrated_on(self) -> dict[str, Any]:
        """The data its calibration came from; empty if it has none."""
        return dict(self.json(CALIBRATION).get("data") or {}) if CALIBRATION in self.files else {}

    @cached_property
    def threshold(self) -> dict[str, Any]:
        """Of a fitted golden recipe: the factor and what it promises; empty if the bundle states none."""
        return dict(self.json(CALIBRATION).get("threshold") or {}) if CALIBRATION in self.files else {}

    @property
    def model(self) -> bytes:
        """The network.

        Raises:
            BundleError: this bundle has none.
        """
        if MODEL not in self.files:
            raise BundleError(f"{self.path}: there is no {MODEL} in this bundle; nothing in it was learned")
        return self.files[MODEL]

    def json(self, name: str) -> dict[str, Any]:
        """A part of the bundle that is JSON.

        Raises:
            BundleError: it is none.
        """
        try:
            return json.loads(self.files[name])
        except ValueError as wrong:
            raise BundleError(f"{self.path}: {name} is no JSON: {wrong}") from wrong


def shipped() -> list[str]:
    """Names of the bundles in this package."""
    folder = resources.files("waferlens") / "bundles"
    if not folder.is_dir():
        return []
    names = (entry.name.removesuffix(".zip") for entry in folder.iterdir() if not entry.name.startswith(("_", ".")))
    return sorted(names)


def open_bundle(path_or_name: str | Path) -> Bundle:
    """Opens a bundle and checks the sum of every file in it.

    Args:
        path_or_name: a folder, a zip, or the name of a shipped bundle. A path that exists wins over a name. A golden
            recipe (its shipped name, or its YAML file) is a bundle that was fitted to nothing: for direct mode.

    Raises:
        BundleError: there is no such bundle, a file is missing, altered or not listed, or it is of a newer version.
        RecipeError: a YAML file was named, and it has faults.
    """
    path = _located(path_or_name)
    if path is None or path.suffix in (".yaml", ".yml"):
        return _of_recipe(path_or_name)
    files = _read_folder(path) if path.is_dir() else _read_zip(path)
    if SUMS not in files:
        raise BundleError(f"{path}: no {SUMS} in it: not a bundle, or one whose writing was interrupted")
    sums_text = files.pop(SUMS)
    _verify(path, sums_text, files)
    return Bundle(path.name.removesuffix(".zip"), path, hashlib.sha256(sums_text).hexdigest(), files)


def write_bundle(path: str | Path, parts: Mapping[str, bytes | str | Mapping[str, Any] | Calibration]) -> Bundle:
    """Writes a bundle, at once or not at all, and opens it.

    Args:
        path: the folder to make, or a file that ends in `.zip`. A bundle that is there already is replaced; anything
            else that is there is not.
        parts: contents by file name; mappings and calibrations are written as JSON.

    Raises:
        BundleError: a required part is missing, a name is none of a bundle's, or something else stands at the path.
    """
    path = Path(path)
    missing = [name for name in REQUIRED if name not in parts]
    unknown = [name for name in parts if name not in REQUIRED + OPTIONAL]
    if missing or unknown:
        told = [f"{name} is missing" for name in missing] + [f"{name} is no part of a bundle" for name in unknown]
        raise BundleError(f"{path}: {'; '.join(told)}; a bundle has {', '.join(REQUIRED + OPTIONAL)}")
    refuse_occupied(path)
    files = {name: _as_bytes(part) for name, part in parts.items()}
    sums = {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)}
    files[SUMS] = _as_bytes({"format": "waferlens bundle", "version": FORMAT_VERSION, "sha256": sums})
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        _write_zip(path, files)
    else:
        _write_folder(path, files)
    return open_bundle(path)


def refuse_occupied(path: str | Path) -> None:
    """Refuses a place where a bundle cannot be written; worth asking before long work, `write_bundle` asks again.

    Raises:
        BundleError: something else than a bundle is there.
    """
    path = Path(path)
    if path.exists() and not _replaceable(path):
        raise BundleError(f"{path}: something else than a bundle is here; name a new folder, or a file .zip")


def is_bundle(path: str | Path) -> bool:
    """Whether a folder looks like a bundle; `open_bundle` finds out whether it is whole."""
    return (Path(path) / SUMS).is_file()


def copy_bundle(source: str | Path, path: str | Path) -> Bundle:
    """Checks a bundle and writes it again elsewhere: as a folder, or a file that ends in `.zip`.

    Raises:
        BundleError: it is not whole, or something else stands at the path.
    """
    return write_bundle(path, open_bundle(source).files)


def _located(path_or_name: str | Path) -> Path | None:
    """Where a bundle lies; None for the name of a shipped golden recipe."""
    path = Path(path_or_name)
    if path.exists():
        return path
    names = shipped()
    if str(path_or_name) in names:
        folder = Path(str(resources.files("waferlens") / "bundles"))
        return next(found for found in (folder / path, folder / f"{path}.zip") if found.exists())
    unfitted = unfitted_names()
    if str(path_or_name) in unfitted:
        return None
    near = difflib.get_close_matches(str(path_or_name), [*names, *unfitted], n=1, cutoff=0.5)
    known = f"shipped: {', '.join([*names, *unfitted])}" if names else "none is shipped with this installation"
    raise BundleError(
        f"{path_or_name}: no such folder or zip, and no shipped bundle of that name"
        + (f"; did you mean '{near[0]}'?" if near else f" ({known})")
    )


def unfitted_names() -> list[str]:
    """Shipped recipes that can be opened as bundles, because they compare with whatever good part they are shown."""
    folder = resources.files("waferlens") / "recipes"
    told = {entry.name.removesuffix(".yaml"): yaml.safe_load(entry.read_text("utf-8")) for entry in folder.iterdir()}

    def station(name: str) -> str | None:
        recipe = told.get(name) or {}
        return recipe.get("station") or (station(recipe["extends"]) if "extends" in recipe else None)

    return sorted(name for name in told if station(name) == "golden")


def _of_recipe(path_or_name: str | Path) -> Bundle:
    """A recipe as a bundle that was fitted to nothing."""
    from waferlens.recipe import as_yaml, load_recipe  # only where used: bundles carry their recipe as plain data

    recipe = load_recipe(path_or_name)
    if recipe.station != "golden":
        raise BundleError(
            f"{path_or_name}: a recipe of station {recipe.station} has to be trained and exported first; "
            "only golden recipes can be used as they are"
        )
    text = as_yaml(recipe).encode()
    files = {RECIPE: text, RUNCARD: _as_bytes({"kind": "recipe", "recipe": recipe.model_dump(mode="json")})}
    return Bundle(recipe.name, Path(path_or_name), hashlib.sha256(text).hexdigest(), files)


def _replaceable(path: Path) -> bool:
    if path.suffix == ".zip":
        return zipfile.is_zipfile(path)
    return path.is_dir() and ((path / SUMS).is_file() or not any(path.iterdir()))


def _read_folder(path: Path) -> dict[str, bytes]:
    try:
        return {
            entry.name: entry.read_bytes()
            for entry in sorted(path.iterdir())
            if entry.is_file() and not entry.name.startswith(".")
        }
    except OSError as wrong:
        raise BundleError(f"{path}: cannot be read: {wrong.strerror or wrong}") from wrong


def _read_zip(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
            # people zip the folder as well as its contents: one folder around everything is accepted
            return {name.rpartition("/")[2]: archive.read(name) for name in names}
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as wrong:
        raise BundleError(f"{path}: cannot be read as a zip: {wrong}") from wrong


def _verify(path: Path, sums_text: bytes, files: Mapping[str, bytes]) -> None:
    try:
        told = json.loads(sums_text)
        version, sums = told["version"], dict(told["sha256"])
    except (ValueError, KeyError, TypeError) as wrong:
        raise BundleError(f"{path}: {SUMS} is damaged ({type(wrong).__name__}: {wrong})") from wrong
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{path}: a bundle of version {version}, this waferlens reads version {FORMAT_VERSION}; "
            "export it again, or install the waferlens it was made with"
        )
    for name in REQUIRED:
        if name not in sums:
            raise BundleError(f"{path}: {name} is not in {SUMS}; the bundle is not whole")
    for name, expected in sums.items():
        if name not in files:
            raise BundleError(f"{path}: {name} is missing")
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise BundleError(f"{path}: {name} was altered: its sha256 does not fit {SUMS}; take a fresh copy")
    for name in files:
        if name not in sums:
            raise BundleError(f"{path}: {name} is not listed in {SUMS}; remove it, a bundle holds only what was summed")


def _as_bytes(part: bytes | str | Mapping[str, Any] | Calibration) -> bytes:
    if isinstance(part, bytes):
        return part
    if isinstance(part, str):
        return part.encode()
    if isinstance(part, Calibration):
        part = part.to_json()
    return (json.dumps(part, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        for name, data in files.items():
            (temporary / name).write_bytes(data)
        temporary.chmod(0o755)  # mkdtemp makes folders for the owner only
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in files.items():
                # a fixed date: the same parts give the same zip
                entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
