"""Images whose truth is known, for judging findings: good ones, defective ones, and where the defects lie.

    DATA/good/…        good parts
    DATA/twin/…        good parts too: each is a defective image without its defect
    DATA/reference/…   one good part as the reference of direct mode
    DATA/<name>/…      parts with a defect, the folder's name being its class if nothing else says it
    DATA/truth.json    COCO: where the defects lie; without it only whole images are judged

`waferlens simulate field` writes such a folder. A folder of DeepPCB (with `trainval.txt`) is read as it is.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from waferlens.errors import FormatError, InputError
from waferlens.formats import deeppcb
from waferlens.formats.coco import read_coco
from waferlens.load.folder import image_paths
from waferlens.records import Finding

GOOD, TWIN, REFERENCE, TRUTH = "good", "twin", "reference", "truth.json"


@dataclass(frozen=True, slots=True)
class Judged:
    """One image whose truth is known."""

    path: Path
    role: str
    """`good`, `twin`, or `defective`."""
    group: str
    """Images of one group belong together: a board, a device."""
    reference: Path | None = None
    """Its own good part; None where one serves all."""
    truth: list[Finding] | None = None
    """Where its defects lie; None where that is not known."""
    facts: list[dict[str, Any]] = field(default_factory=list)
    """What else is known of each defect: `size_px`, `contrast_grey`."""


def read_judged(data: Path) -> tuple[list[Judged], Path | None]:
    """The images of a folder and the reference that serves all of them, if there is one.

    Raises:
        InputError: the folder holds no such images.
        FormatError: its truth cannot be read.
    """
    if not data.is_dir():
        raise InputError(data, "no such folder")
    if deeppcb.holds(data):
        return [
            Judged(pair.test, "defective", pair.group, pair.template, deeppcb.read_truth(pair.truth))
            for pair in deeppcb.read_pairs(data)
        ], None
    truth, facts = _truth(data)
    images: list[Judged] = []
    inside = [path for path in image_paths(data) if path.parent != data]
    for path in inside:
        name = path.relative_to(data).as_posix()
        folder = name.partition("/")[0]
        if folder == REFERENCE:
            continue
        role = folder if folder in (GOOD, TWIN) else "defective"
        images.append(Judged(path, role, path.stem, None, truth.get(name), facts.get(name, [])))
    if not any(image.role == GOOD for image in images) and not any(image.role == "defective" for image in images):
        raise InputError(data, f"has no folder {GOOD} and none of defective images; see docs/evaluate.md")
    if truth and not any(image.truth is not None for image in images):
        raise FormatError(
            data / TRUTH,
            f"none of its {len(truth)} images is here, the first being {next(iter(truth))}; "
            f"name them as they lie in {data.name}, as scratch/0001.png",
        )
    references = image_paths(data / REFERENCE) if (data / REFERENCE).is_dir() else []
    return images, references[0] if references else None


def _truth(data: Path) -> tuple[dict[str, list[Finding]], dict[str, list[dict[str, Any]]]]:
    """Findings, and whatever else the annotations say, by the image's name; empty without a truth file."""
    path = data / TRUTH
    if not path.exists():
        return {}, {}
    found = {image.path: image.findings for image in read_coco(path)}
    told = json.loads(path.read_text("utf-8"))  # `read_coco` has found it sound
    names = {image["id"]: image["file_name"] for image in told["images"]}
    facts: dict[str, list[dict[str, Any]]] = {}
    for annotation in told["annotations"]:
        facts.setdefault(names[annotation["image_id"]], []).append(annotation)
    return found, facts
