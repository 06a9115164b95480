"""What `waferlens measure --die-angle` does: options read, images measured one by one, a line for people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waferlens.cli.output import emit_json, make_folder, progress, say
from waferlens.errors import InputError, UsageError

if TYPE_CHECKING:
    from waferlens.ops.die_angle import DieAngle, PinOne


@dataclass(frozen=True, slots=True)
class DieAngleOptions:
    """The options as they were typed."""

    datum: str | None
    pixel_um: float | None
    limit_deg: float | None
    pin_1: str | None
    out: Path | None

    def given(self) -> list[str]:
        """The options that were typed and mean nothing without `--die-angle`."""
        named = {
            "--datum": self.datum,
            "--pixel-um": self.pixel_um,
            "--limit-deg": self.limit_deg,
            "--pin-1": self.pin_1,
        }
        return [name for name, value in named.items() if value is not None]


def run_die_angle(
    files: Sequence[Path],
    options: DieAngleOptions,
    *,
    free_name: Callable[[Path, Path, set[str]], Path],
    json: bool,
) -> int:
    """Measures the die's angle in each image; one that cannot be measured is told with the reason.

    Returns:
        The exit status: 1 where a file could not be read or a die not be measured.

    Raises:
        UsageError: an option is malformed.
        InputError: a picture cannot be written.
    """
    from waferlens.measure.die_angle import draw_die_angle, measure_die_angle

    limit = 0.5 if options.limit_deg is None else options.limit_deg
    if not 0 < limit <= 90:
        raise UsageError(f"--limit-deg {limit:g}: must lie in 0..90")
    if options.pixel_um is not None and not 0 < options.pixel_um < float("inf"):
        raise UsageError(f"--pixel-um {options.pixel_um:g}: must be positive")
    pin_one = None if options.pin_1 is None else parse_pin(options.pin_1)
    if options.out is not None:
        make_folder(options.out)
    results: list[dict[str, Any]] = []
    written: set[str] = set()
    status = 0
    with progress(len(files), "measure", quiet=json or len(files) < 2) as advance:
        for file in files:
            try:
                image, done = measure_die_angle(
                    file, datum=options.datum or "package", pixel_um=options.pixel_um, pin_one=pin_one
                )
            except InputError as wrong:
                say(f"waferlens measure: {wrong}")
                status = max(status, wrong.exit_status)
                continue
            finally:
                advance(1)
            if done.angle_deg is None:
                say(f"waferlens measure: {file}: no angle: {done.reason}")
                status = max(status, 1)
            if options.out is not None:
                draw_die_angle(free_name(options.out, file, written), image, done)
            results.append({"file": str(file), **done.as_json(), "limit_deg": limit, "verdict": done.verdict(limit)})
            if not json and done.angle_deg is not None:
                print(_line(file, done, limit))
    if json:
        emit_json(results)
    return status


def parse_pin(text: str) -> PinOne:
    """A place on the die from `X0,Y0,X1,Y1`, with `,dark` where it is darker than the one opposite.

    Raises:
        UsageError: it is not of that form.
    """
    from waferlens.ops.die_angle import PinOne

    parts = text.split(",")
    dark = len(parts) == 5 and parts[-1].strip() == "dark"
    try:
        x0, y0, x1, y1 = (float(part) for part in (parts[:-1] if dark else parts))
    except ValueError:
        raise UsageError(
            f"--pin-1 {text}: write x0,y0,x1,y1 in shares of the die, and ,dark where it is dark"
        ) from None
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(f"--pin-1 {text}: shares of the die rise from 0 to 1, as 0.05,0.05,0.2,0.15")
    return PinOne((x0, y0, x1, y1), not dark)


def _line(file: Path, done: DieAngle, limit: float) -> str:
    told = f"{file}: {done.angle_deg:+.4f} deg, 90 % in {done.low:+.4f} .. {done.high:+.4f}, against the {done.datum}"
    if done.offset_um is not None:
        told += f"; offset {done.offset_um[0]:+.2f}, {done.offset_um[1]:+.2f} um"
    elif done.offset_px is not None:
        told += f"; offset {done.offset_px[0]:+.2f}, {done.offset_px[1]:+.2f} px"
    return f"{told}; {done.verdict(limit)} at {limit:g} deg; end of the die {done.orientation}"
