"""Where the good part of each image of a lot is, for detectors that are shown both."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from waferlens.bundle.package import PackageSession
from waferlens.errors import InputError, UsageError
from waferlens.prepare.beside_reference import beside, read_8_bits
from waferlens.recipe.pairing import forms_of, is_compared, reference_path


@dataclass(frozen=True, slots=True)
class Good:
    """How the good part of an image is found."""

    pair_by: str | None
    """As `{}_test.jpg:{}_temp.jpg`; None where one file is the good part of all."""
    reference: Path | None = None
    """A good part for all, or a folder of them; None where they lie beside the images."""

    def options(self) -> dict[str, Any]:
        """As a run's card has it."""
        return {"reference": None if self.reference is None else str(self.reference), "pair_by": self.pair_by}

    def takes(self, path: str) -> bool:
        """Whether an image of the lot is inspected; good parts are not."""
        if self.pair_by is not None:
            return is_compared(path, self.pair_by, elsewhere=self.reference is not None)
        return os.path.abspath(path) != os.path.abspath(self.reference or "")  # noqa: PTH100 - may not be there

    def beside(self, path: str, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """An image together with its good part.

        Args:
            path: Of the image.
            image: Its pixels [grey]

        Raises:
            InputError: its good part is not there, or cannot be read.
            UnlikeError: they do not lie on each other.
        """
        where = self.reference if self.pair_by is None else reference_path(path, self.pair_by, self.reference)
        assert where is not None  # one of the two is told
        return beside(image, read_8_bits(where), Path(path))


def good_parts(session: PackageSession, name: str, reference: str | Path | None, pair_by: str | None) -> Good | None:
    """How the good parts of a lot are found; None for a network that is shown images alone.

    Args:
        session: Of the bundle.
        name: Of the bundle.
        reference: A good part, or a folder of them; beside the images if None.
        pair_by: How the name of an image gives that of its good part; as the recipe says if None.

    Raises:
        UsageError: an option is wrong, or means nothing to this network.
        InputError: the reference does not exist.
    """
    if session.reference is None:
        if reference is not None or pair_by is not None:
            option = "--reference" if reference is not None else "--pair-by"
            raise UsageError(f"{option} means nothing to {name}: its network is shown images without a good part")
        return None
    where = None if reference is None else Path(reference)
    if where is not None and not where.exists():
        raise InputError(where, "no such image or folder")
    if where is not None and not where.is_dir():
        if pair_by is not None:
            raise UsageError(
                f"--pair-by {pair_by} gives each image a reference of its own, and --reference {where} is one for all; "
                "leave one of them out, or name the folder that the references lie in"
            )
        return Good(None, where)
    pattern = pair_by or session.reference
    ours, theirs = forms_of(pattern)
    if ours == theirs and where is None:
        raise UsageError(f"--pair-by {pattern}: makes every image its own reference")
    return Good(pattern, where)
