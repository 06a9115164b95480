"""The failure tree: every error waferlens raises on purpose, and the exit status each one means.

    WaferlensError
    ├── UsageError            2   the command line, an argument or an option is wrong
    │   ├── RecipeError       2   a recipe has faults; all of them are listed at once
    │   └── MissingExtraError 2   an optional part is not installed; says what to install
    ├── InputError            1   a file or folder the user handed in cannot be used
    │   └── FormatError       1   the file is not what its format promises
    ├── BundleError           2   a bundle is broken, altered or of another version
    └── ParityError           1   the exported graph disagrees with the trained network

Anything else that reaches the command line is unexpected and exits with 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class WaferlensError(Exception):
    """Root of all errors raised on purpose."""

    exit_status = 3


class UsageError(WaferlensError):
    """The call itself is wrong: what was asked, and what to ask instead."""

    exit_status = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong in a recipe, with the place it stands."""

    where: str
    """`file:line`, or `command line` for an override."""
    what: str
    """`field: what is wrong, did you mean …`"""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class RecipeError(UsageError):
    """All faults of a recipe at once, one line each."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(str(fault) for fault in self.faults))


class MissingExtraError(UsageError):
    """An optional part is needed and not installed."""


class InputError(WaferlensError):
    """A file the user handed in cannot be used."""

    exit_status = 1

    def __init__(self, path: str | Path, reason: str) -> None:
        self.path = str(path)
        self.reason = reason
        super().__init__(f"{path}: {reason}")


class FormatError(InputError):
    """A file is not what its format promises (truncated, wrong magic, no height channel …)."""


class BundleError(WaferlensError):
    """A bundle is broken, altered or of another version."""

    exit_status = 2


class ParityError(WaferlensError):
    """The exported graph disagrees with the trained network beyond the stated tolerance."""

    exit_status = 1
