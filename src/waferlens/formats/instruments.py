"""Files of instruments, read through SurfaceTopography: which reader, which channel, which points are valid.

The library offers to open nearly anything: its readers for formats without a signature take any file of the right
length for a terrain model, and any text with numbers for a surface. So the reader is chosen here, by the first bytes,
and a file whose signature is known is given to that reader alone: what is wrong with the file is then one reason and
not forty.

Read with it and compared, number by number, with Gwyddion 2.62 and with the bytes of the files: FRT, Digital Surf
SUR, Alicona AL3D, MetroPro, Wyko OPD, Sensofar PLU, BCR, Nanosurf NID, NanoScope, WSxM, Igor IBW, Mountains MNT,
text.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.errors import FormatError
from waferlens.extras import require
from waferlens.formats.height_parts import Match, Offer, assemble, choose_channel, spelled
from waferlens.records import HeightMap

# First bytes -> (SurfaceTopography's word for the format, what people call it).
_SIGNATURES = (
    (b"FRTM_GLIDERV", "frt", "FRT MicroProf"),
    (b"DIGITAL SURF", "sur", "Digital Surf SUR"),
    (b"DSCOMPRESSED", "sur", "Digital Surf SUR"),
    (b"AliconaImaging", "al3d", "Alicona AL3D"),
    (b"\x88\x1b\x03", "metropro", "Zygo MetroPro"),
    (b"\x01\x00Directory", "opd", "Wyko OPD"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "mnt", "Mountains MNT"),
    (b"[DataSet]", "ezd", "Nanosurf EZD/NID"),
    (b"WSxM file copyright", "wsxm", "WSxM"),
    (b"\\*File list", "di", "Bruker/Veeco NanoScope"),
    (b"\\*Force file list", "di", "Bruker/Veeco NanoScope"),
    (b"?*File list", "di", "Bruker/Veeco NanoScope"),
    (b"\x01\xb0\x93\xff", "mdt", "NT-MDT"),
    (b"VCA DATA", "opdx", "Dektak OPDx"),
    (b"\x05\x00", "ibw", "Igor Pro wave"),
    (b"\x02\x00", "ibw", "Igor Pro wave"),
    (b"\x00\x05", "ibw", "Igor Pro wave"),
    (b"\x00\x02", "ibw", "Igor Pro wave"),
)
_TEXT_FORMATS = frozenset({"xyz", "asc", "sdf"})
# Without a signature they accept any file of the right length; only a file's name can speak for them.
_WITHOUT_SIGNATURE = {"hgt": ".hgt", "nms": ".nms", "mat": ".mat"}
# Where ours are, theirs are not asked.
_OURS = frozenset({"gwy", "x3p", "npy", "npz"})
_PICTURES = ((b"\x89PNG", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF8", "GIF"), (b"BM", "BMP"), (b"%PDF", "PDF"))


def match(first: bytes) -> Match:
    if signature(first) is not None:
        return Match.YES
    return Match.NO if any(first.startswith(magic) for magic, _ in _PICTURES) else Match.MAYBE


def signature(first: bytes) -> tuple[str, str] | None:
    """The format whose signature a file begins with, and its name."""
    text = first.replace(b"\0", b"").removeprefix(b"\xff\xfe")
    if text.startswith((b"fileformat = bcr", b"fileformat=bcr")):
        return "bcr", "BCR-STM"
    return next(((form, name) for magic, form, name in _SIGNATURES if first.startswith(magic)), None)


def read(path: Path, channel: str | None = None) -> HeightMap:
    """The height channel of an instrument's file.

    Raises:
        FormatError: no reader understands the file, or it has no height channel; says why.
        InputError: the wanted channel is not there.
        MissingExtraError: the extra `formats` is not installed.
    """
    with path.open("rb") as file:
        first = file.read(512)
    refuse_known(path, first)
    library = require("formats", "SurfaceTopography.IO")
    known = signature(first)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        opened, name = _open(path, first, known, library)
        try:
            made = _read(path, opened, name, channel)
        finally:
            opened.close()
    made.origin["remarks"] += sorted({str(warning.message) for warning in warned})
    return made


def refuse_known(path: Path, first: bytes) -> None:
    """Refuse what is certainly no height map, with a reason that says what it is.

    Raises:
        FormatError: it is empty, a picture, or a file that text conversion has destroyed.
    """
    if not first:
        raise FormatError(path, "the file is empty")
    for magic, kind in _PICTURES:
        if first.startswith(magic):
            raise FormatError(path, f"a {kind} picture, no height map: grey values have no unit and no pitch")
    if first.startswith(b"\xef\xbf\xbd"):
        what = "a NumPy array" if b"NUMPY" in first[:16] else "a binary file"
        raise FormatError(
            path,
            f"{what} that was damaged by a text conversion: its first byte was replaced by EF BF BD (the mark for an "
            "unreadable character); copy the original in binary mode",
        )


def _open(path: Path, first: bytes, known: tuple[str, str] | None, library: Any) -> tuple[Any, str]:
    """The first reader that understands the file, and the name of its format."""
    if known is not None:
        form, name = known
        reader = library.lookup_reader_by_format[form]
        try:
            return reader(str(path)), name
        except Exception as error:  # foreign parsers fail with anything; the reason is passed on
            raise FormatError(path, f"damaged or unsupported {name} file: {_said(error)}") from error
    is_text = _is_text(first)
    reasons = []
    for reader in library.readers:
        form = reader.format()
        if form in _OURS or (form in _WITHOUT_SIGNATURE and path.suffix.lower() != _WITHOUT_SIGNATURE[form]):
            continue
        if form in _TEXT_FORMATS and not is_text:
            continue
        if reader.can_read(first).name == "NO":
            continue
        try:
            return reader(str(path)), str(reader.name())
        except Exception as error:  # noqa: BLE001 - "not my format" has no class of its own: kept, and the next is asked
            reasons.append(f"{form}: {_said(error)}")
    if is_text and first.strip():
        line = first.decode("utf-8", "replace").strip().splitlines()[0]
        refusal = FormatError(path, f"text without a table of heights; it begins with '{line[:60]}'")
    else:
        refusal = FormatError(path, f"no known height-map format begins with the bytes {first[:8].hex(' ')}")
    refusal.add_note("readers that were asked: " + "; ".join(reasons))
    raise refusal


def _read(path: Path, opened: Any, name: str, wanted: str | None) -> HeightMap:
    offers = [Offer(str(channel.name), _unit(channel), _is_map(channel)) for channel in opened.channels]
    index = choose_channel(path, offers, wanted)
    channel = opened.channels[index]
    sizes = {} if channel.physical_sizes is not None else {"physical_sizes": tuple(map(float, channel.nb_grid_pts))}
    try:
        topography = channel.topography(**sizes)
        # The library counts columns first; turned, the first row is the first row of the file.
        heights = topography.heights().T
    except Exception as error:  # foreign parsers fail with anything; the reason is passed on
        raise FormatError(path, f"damaged {name} file: {_said(error)}") from error
    invalid = np.ma.getmaskarray(heights)
    others = [offer.name for i, offer in enumerate(offers) if i != index]
    pitch_x, pitch_y = map(float, topography.pixel_size)
    return assemble(
        path,
        np.array(np.ma.getdata(heights)),
        unit=offers[index].unit,
        pitch=(pitch_x, pitch_y),
        pitch_unit=topography.unit if isinstance(topography.unit, str) else None,
        invalid=invalid,
        origin={
            "format": name,
            "channel": offers[index].name,
            "channels": [offer.name for offer in offers],
            "remarks": _remarks(name, heights.shape, others),
        },
    )


def _remarks(name: str, shape: tuple[int, int], others: list[str]) -> list[str]:
    remarks = [f"further channels: {', '.join(others)}"] if others else []
    if name == "BCR-STM":
        wider = 100 / (shape[1] - 1)
        remarks.append(
            "pitch = length / points, as for all BCR files; "
            f"where the writer meant length / spacings it is {wider:.2f} % larger"
        )
    return remarks


def _unit(channel: Any) -> str | None:
    """Unit of a channel's values; `no length` where the library knows that it is another quantity."""
    data_unit = getattr(channel, "data_unit", channel.unit)
    kind = getattr(getattr(channel, "data_kind", None), "name", "HEIGHT")
    if isinstance(data_unit, tuple):  # (lateral unit, unit of the values)
        data_unit = data_unit[1] or "not a length"
    if kind != "HEIGHT" and (data_unit is None or spelled(data_unit) is not None):
        return kind.lower()
    return data_unit


def _is_map(channel: Any) -> bool:
    return channel.dim == 2 and channel.is_uniform is not False


def _is_text(first: bytes) -> bool:
    """Printable, in UTF-8 or Latin-1, without the zero bytes that binary files are full of."""
    return b"\0" not in first and sum(byte < 32 and byte not in b"\t\r\n\f" for byte in first) == 0


def _said(error: Exception) -> str:
    """The first line of what a foreign error says."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
