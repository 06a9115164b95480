"""Which work a bundle does on a lot: its recipe's station says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from waferlens.bundle.files import Bundle
from waferlens.errors import BundleError, UsageError
from waferlens.inspect.plan import Item, Plan
from waferlens.store.rows import ImageResult

OPTIONS = {
    "hole": ("limits", "pixel_nm", "depth_nm_per_grey", "level"),
    "golden": ("reference", "pair_by"),
    "wafer": (
        "limits",
        "tracks",
        "product",
        "pitch_um",
        "layout",
        "objective",
        "layer",
        "clearance_um",
        "height_format",
    ),
    "package": ("pitch_um", "device", "lights", "klarf", "e142", "strip", "reference", "pair_by"),
}
"""What may be asked of each station."""
_SPOKEN = {"limits": "limit", "tracks": "track"}  # as the command line calls it


class Work(Protocol):
    """What a station does with a chunk of a lot. Threads share one; it is never changed."""

    @property
    def chunk(self) -> int:
        """Images that are worked on and stored together unless the user says otherwise."""

    @property
    def columns(self) -> Sequence[str]:
        """Names of its measurands in the order of the table's columns."""

    @property
    def finds(self) -> bool:
        """Whether it looks for findings; then there is a table of them, if an empty one."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders of the run that it writes into."""

    def options(self) -> dict[str, Any]:
        """What its results depend on besides bundle and images; a run is only resumed with the same."""

    def takes(self, path: str) -> bool:
        """Whether an image found in a folder belongs to the lot."""

    def require(self, plan: Plan) -> None:
        """Refuses what cannot be done with this lot, before anything is written."""

    def results(self, chunk: int, first: int, items: Sequence[Item]) -> list[ImageResult]:
        """One result an image, in order; images that cannot be used are quarantined with their reason."""

    def finish(self, plan: Plan, images: Iterable[ImageResult]) -> dict[str, list[dict[str, Any]]]:
        """What is left to do when all chunks are stored.

        Args:
            plan: the lot.
            images: all that is stored, in the order of the lot; read only if it is asked for.

        Returns:
            What is said at the end of each of the `swaths` or `devices`; `not_written`: `file` and `reason` of what was
            asked for and could not be made.
        """


def work_of(bundle: Bundle, out: Path, maps: bool, options: Mapping[str, Any]) -> Work:
    """The work of a bundle, its options checked.

    Args:
        bundle: opened.
        out: the run's folder.
        maps: whether pictures are written beside the numbers.
        options: what the user asked for, by name.

    Raises:
        UsageError: an option is wrong, or means nothing to this station.
        BundleError: the bundle cannot be used.
    """
    station = bundle.recipe.get("station")
    if station not in OPTIONS:
        raise BundleError(f"{bundle.path}: its recipe is of station {station!r}; known: {', '.join(OPTIONS)}")
    strange = [name for name in options if name not in OPTIONS[station]]
    if strange:
        spoken = _SPOKEN.get(strange[0], strange[0]).replace("_", "-")
        known = ", ".join(f"--{_SPOKEN.get(name, name).replace('_', '-')}" for name in OPTIONS[station])
        raise UsageError(f"--{spoken} means nothing to {bundle.name}, a bundle of station {station}; it takes {known}")
    if station == "golden":
        from waferlens.inspect.golden import golden_work

        return golden_work(bundle, out, overlays=maps, **options)
    if station == "package":
        from waferlens.inspect.package import package_work

        return package_work(bundle, out, overlays=maps, **options)
    if station == "wafer":
        from waferlens.inspect.wafer import wafer_work

        return wafer_work(bundle, out, maps=maps, **options)
    from waferlens.inspect.hole import hole_work

    return hole_work(bundle, out, maps=maps, **options)
