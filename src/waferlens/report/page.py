"""The door: one self-contained HTML page of runs, evaluations and surfaces.

The page opens from disk, runs no script and asks nothing of any other address: its own policy forbids it, so that not
even a file name made to do so could. Everything that comes from outside is escaped by the template.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from waferlens import __version__
from waferlens.errors import InputError, UsageError
from waferlens.measure.surface import outlier_note
from waferlens.report import charts, pictures, words
from waferlens.report.data import Contents, collect

TEMPLATE = "report.html.j2"


def write_report(
    sources: Sequence[str | Path],
    out: str | Path,
    title: str | None = None,
    *,
    evaluations: Sequence[str | Path] = (),
    store: str | None = None,
) -> Path:
    """Writes the page of some runs, at once or not at all.

    Args:
        sources: folders of `inspect` and of `evaluate --out`, height maps, JSON of `measure`; in the order they are
            told. A height map is levelled by the least-squares plane and measured.
        out: the HTML file; replaced if it is there.
        title: what the page is called; by default the name of the first source.
        evaluations: more folders of `evaluate --out`.
        store: URL of the database with the results of the runs, where they are not in their folders.

    Returns:
        The file that was written.

    Raises:
        UsageError: there is no source, or `out` is a folder.
        InputError: a source is not there, is of no known kind, or is damaged; or the page cannot be written.
        MissingExtraError: the format of a height map needs the extra `formats`.
    """
    out = Path(out)
    if out.is_dir():
        raise UsageError(f"{out}: is a folder; name the file of the page, as {out / 'report.html'}")
    paths = [Path(source) for source in sources]
    more = [Path(folder) for folder in evaluations]
    contents = collect(paths, more, store)
    named = title if title is not None else words.file_name(str([*paths, *more][0].resolve()))
    _write(out, render(contents, named))
    return out


def render(contents: Contents, title: str) -> str:
    """The page as text.

    Args:
        contents: what stands on it.
        title: what it is called.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("waferlens.report", "templates"),
        autoescape=True,  # always: the ending .j2 would not be recognised
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "fixed": words.fixed,
        "exact": words.exact,
        "quantity": words.quantity,
        "percent": words.percent,
        "level": words.level,
        "count": words.count,
        "unit": words.unit,
        "name": words.name,
        "shortname": words.short_name,
        "plain": words.plain,
        "within": words.within,
        "duration": words.duration,
        "moment": words.moment,
        "filename": words.file_name,
        "decimals": words.decimals_for,
        "verdict": charts.verdict_class,
        "gradient": pictures.gradient,
        "jsontext": _json_text,
        "nanless": lambda value: None if value is None or value != value else value,
    }
    return environment.get_template(TEMPLATE).render(
        contents=contents,
        title=words.plain(title),
        version=__version__,
        written=datetime.now(UTC).isoformat(timespec="seconds"),
        rule=charts.rule(),
        outlier_note=outlier_note,
        thin=words.THIN,
    )


def _json_text(value: Any) -> str:
    """A run card as people read it, every line harmless."""
    return "\n".join(words.plain(line) for line in json.dumps(value, indent=2, ensure_ascii=False).splitlines())


def _write(out: Path, text: str) -> None:
    temporary = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=out.name, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)  # mkstemp makes files for the owner only
        Path(temporary).replace(out)
    except BaseException as wrong:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(wrong, OSError):
            raise InputError(out, f"cannot be written: {wrong.strerror or wrong}") from wrong
        raise
