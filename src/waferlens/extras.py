"""Optional parts of the installation: asked for where they are used, named in full when they are missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from waferlens.errors import MissingExtraError

EXTRAS = {
    "train": "training or export",
    "formats": "reading further instruments' files",
    "serve": "the review station in the browser",
    "openvino": "the OpenVINO runtime",
    "sam": "finding regions by Segment Anything",
    "diffusion": "making synthetic defects by diffusion",
    "scale": "inspecting lots larger than a machine",
    "parquet": "writing Parquet tables",
}
"""Extra -> what it is for, as in pyproject.toml."""


def require(extra: str, module: str) -> ModuleType:
    """Import a module that only an extra installs.

    Args:
        extra: the extra that brings it, a key of `EXTRAS`.
        module: dotted name of the module.

    Raises:
        MissingExtraError: it, or something it needs itself, is not installed; says what to install.
    """
    assert extra in EXTRAS, f"no such extra: {extra}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "waferlens":
            raise  # a module of ours is missing: no extra would bring it
        raise MissingExtraError(missing(extra, error.name or module)) from error


def available(module: str) -> bool:
    """Whether a module could be imported; it is not imported to find out."""
    return importlib.util.find_spec(module.partition(".")[0]) is not None


def missing(extra: str, module: str) -> str:
    """The sentence that says what is missing and how to get it."""
    return f"'{module}' is not installed, and {EXTRAS[extra]} cannot do without it: pip install 'waferlens[{extra}]'"
