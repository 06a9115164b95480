"""What a verb says: results on standard output, everything for people on standard error."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path, PurePath
from typing import Any

from waferlens.errors import InputError, UsageError


def emit_json(result: Any) -> None:
    """Print a machine-readable result on standard output.

    Numbers that are not finite become null, for JSON has none; arrays, dataclasses, pydantic models and paths are
    written as what they hold.
    """
    print(json.dumps(as_json(result), indent=2))


def as_json(value: Any) -> Any:
    """A value in the types JSON has.

    Raises:
        TypeError: JSON cannot hold the value.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(item) for item in value]
    if isinstance(value, PurePath):
        return str(value)
    if hasattr(value, "as_json"):
        return as_json(value.as_json())
    if is_dataclass(value) and not isinstance(value, type):
        return as_json(asdict(value))
    if hasattr(value, "model_dump"):
        return as_json(value.model_dump(mode="json"))
    if hasattr(value, "tolist"):  # numpy arrays and scalars, without importing numpy to ask
        return as_json(value.tolist())
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def say(text: str) -> None:
    """Print a line for people on standard error."""
    print(text, file=sys.stderr, flush=True)


def make_folder(path: Path) -> None:
    """Makes a folder for results before any work is done for it.

    Raises:
        UsageError: a file of that name is there.
        InputError: it cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path}: is a file; name a folder")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as wrong:
        raise InputError(path, f"cannot be made: {wrong.strerror or wrong}") from wrong


@contextmanager
def progress(total: int | None, label: str, *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """A bar on standard error with rate and time left.

    It is drawn only where somebody looks: not into a file or a pipe, and not beside `--json`.

    Args:
        total: how many steps there are; None when that is unknown.
        label: what is being done, in a word or two.
        quiet: draw nothing; pass the verb's `--json`.

    Yields:
        A function that advances the bar by so many steps.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda steps: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Steps a second."""

        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed and speed >= 10 else f"{speed:.2f}/s" if speed else "–/s")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), speed_estimate_period=10) as bar:
        task = bar.add_task(label, total=total)
        yield lambda steps: bar.advance(task, steps)


@contextmanager
def counted_progress(label: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """As `progress`, for work that learns its total on the way.

    Yields:
        A function that takes how many are done and how many there are in all.
    """
    with ExitStack() as stack:
        advance: Callable[[int], None] | None = None
        before = 0

        def show(done: int, total: int) -> None:
            nonlocal advance, before
            if advance is None:
                advance = stack.enter_context(progress(total, label, quiet=quiet))
            advance(done - before)
            before = done

        yield show
