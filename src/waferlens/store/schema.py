"""The tables of results: `runs`, `images` (a row an image of the lot), `measurements` (a row a measured number),
`facts` (a row a thing known of an image that is no number), `findings` (a row a thing found at a place of an image)
and `places` (a row a finding of which it is known where on its part it lies).
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Float, ForeignKeyConstraint, Integer, MetaData, String, Table, Text

METADATA = MetaData()

RUNS = Table(
    "runs",
    METADATA,
    Column("run", Integer, primary_key=True, comment="short name for the other tables"),
    Column("name", String(64), nullable=False, unique=True, comment="made anew for each run"),
    Column("started", String(32), nullable=False, comment="UTC, ISO 8601"),
    Column("bundle", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False, comment="sha256 of the bundle"),
    Column("options", Text, nullable=False, comment="JSON"),
    Column("version", String(32), nullable=False, comment="of waferlens"),
)

IMAGES = Table(
    "images",
    METADATA,
    Column("run", Integer, primary_key=True, autoincrement=False),
    Column("item", BigInteger, primary_key=True, autoincrement=False, comment="place in the lot, from 0"),
    Column("path", Text, nullable=False),
    Column("page", Integer, nullable=False, comment="of a multi-page TIFF, from 0"),
    Column("status", String(16), nullable=False, comment="ok or quarantined"),
    Column("reason", Text, nullable=False, comment="why quarantined, or why something was not measured"),
    Column("verdict", String(8), nullable=False, comment="OK, NG, review; empty without limits"),
    Column("verdict_reason", Text, nullable=False),
    Column("novelty", Float, comment="distance from the images the bundle was calibrated on; above 1 is outside"),
    Column("chunk", Integer, nullable=False, index=True, comment="images of a chunk are stored together"),
    Column("map_file", Text, comment="relative to the run's folder"),
    Column("map_index", Integer, comment="place in that file, from 0"),
    ForeignKeyConstraint(["run"], ["runs.run"], ondelete="CASCADE"),
    sqlite_with_rowid=False,  # the key is the order of reading; without a second index the file is a third smaller
)

MEASUREMENTS = Table(
    "measurements",
    METADATA,
    Column("run", Integer, primary_key=True, autoincrement=False),
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(32), primary_key=True),
    Column("value", Float, comment="null where it cannot be measured"),
    Column("unit", String(16), nullable=False),
    Column("low", Float, comment="of the interval; null unless calibrated"),
    Column("high", Float),
    ForeignKeyConstraint(["run", "item"], ["images.run", "images.item"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

FINDINGS = Table(
    "findings",
    METADATA,
    Column("run", Integer, primary_key=True, autoincrement=False),
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="of the image, from 0"),
    Column("kind", Text, nullable=False, comment="its class; deviation where nothing tells classes apart"),
    Column("x0", Float, nullable=False, comment="outer pixel edges, the centre of the first pixel is 0"),
    Column("y0", Float, nullable=False),
    Column("x1", Float, nullable=False),
    Column("y1", Float, nullable=False),
    Column("score", Float, comment="null where there is none"),
    Column("area_px", Float, nullable=False),
    Column("contrast", Float, comment="grey, positive where the image is brighter; null where there is none"),
    Column("light_or_dark", String(8), nullable=False),
    Column("critical", Boolean, nullable=False),
    Column("rule", Text, nullable=False, comment="that called it critical or tolerable"),
    ForeignKeyConstraint(["run", "item"], ["images.run", "images.item"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

FACTS = Table(
    "facts",
    METADATA,
    Column("run", Integer, primary_key=True, autoincrement=False),
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("name", String(32), primary_key=True),
    Column("text", Text, nullable=False),
    ForeignKeyConstraint(["run", "item"], ["images.run", "images.item"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)

PLACES = Table(
    "places",
    METADATA,
    Column("run", Integer, primary_key=True, autoincrement=False),
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False, comment="of the finding"),
    Column("x", Float, nullable=False, comment="of its middle, to the right from the part's lower left corner"),
    Column("y", Float, nullable=False, comment="of its middle, up from the part's lower left corner"),
    Column("width", Float, nullable=False),
    Column("height", Float, nullable=False),
    Column("unit", String(16), nullable=False, comment="um, or px where the size of a pixel is not known"),
    ForeignKeyConstraint(["run", "item"], ["images.run", "images.item"], ondelete="CASCADE"),
    sqlite_with_rowid=False,
)
