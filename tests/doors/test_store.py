"""Results: stored whole or not at all, never twice, and read back in order."""

import csv

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from waferlens.errors import InputError, UsageError
from waferlens.store.results import Store
from waferlens.store.rows import OK, QUARANTINED, ImageResult, Run
from waferlens.store.schema import IMAGES, MEASUREMENTS, RUNS
from waferlens.store.tables import column, write_quarantine_csv, write_results_csv

RUN = Run("abc", "2024-01-01T00:00:00+00:00", "b", "f" * 64, "{}", "0.1")


def chunk(number: int, size: int = 3) -> list[ImageResult]:
    rows = []
    for item in range(number * size, (number + 1) * size):
        if item % 4 == 3:
            rows.append(ImageResult(item, f"lot/ü {item}.png", 0, QUARANTINED, "the file is empty", chunk=number))
            continue
        numbers = [("depth", 100.5 + item, "nm", 99.0, 102.0), ("volume", None, "grey px2", None, None)]
        rows.append(
            ImageResult(
                item, f"lot/ü {item}.png", 1, OK, verdict="OK", novelty=0.25, chunk=number, measurements=numbers
            )
        )
    return rows


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "r.sqlite") as opened:
        yield opened


def test_results_read_back_as_stored(store):
    run = store.begin(RUN)
    assert store.begin(RUN) == run
    for number in (1, 0):
        store.add_chunk(run, chunk(number))
    assert list(store.images(run)) == chunk(0) + chunk(1)
    assert all(not image.measurements for image in store.images(run, measurements=False))
    assert store.done_chunks(run) == {0, 1}
    assert store.counts(run) == {(OK, "OK"): 5, (QUARANTINED, ""): 1}
    assert sorted(store.units(run)) == [("depth", "nm"), ("volume", "grey px2")]
    assert store.runs() == {run: RUN}


def test_many_images_come_in_order(store):
    run = store.begin(RUN)
    store.add_chunk(run, chunk(0, 2500))
    assert list(store.images(run)) == chunk(0, 2500)


def test_a_chunk_is_stored_whole_or_not_at_all(store):
    run = store.begin(RUN)
    store.add_chunk(run, chunk(0))
    twice = chunk(1)
    twice[-1].item = 0  # there already: the whole chunk must be refused
    with pytest.raises(InputError, match="UNIQUE"):
        store.add_chunk(run, twice)
    assert list(store.images(run)) == chunk(0)


def test_a_run_is_forgotten_without_its_neighbours(store):
    first, second = (
        store.begin(RUN),
        store.begin(Run("other", *[getattr(RUN, name) for name in list(RUN.__slots__)[1:]])),
    )
    for run in (first, second):
        store.add_chunk(run, chunk(0))
    store.forget("abc")
    store.forget("never was")
    assert list(store.runs()) == [second]
    assert list(store.images(second)) == chunk(0)
    assert list(store.images(first)) == []


def test_tables_have_one_row_an_image_and_units_in_their_names(store, tmp_path):
    run = store.begin(RUN)
    rows = chunk(0)
    rows[1].measurements[0] = ("depth", 80.123456789, "grey", None, None)  # this file told no scale
    store.add_chunk(run, rows)
    store.add_chunk(run, chunk(1))
    assert write_results_csv(store, run, tmp_path / "r.csv", ["volume", "depth"]) == 5
    table = list(csv.DictReader((tmp_path / "r.csv").read_text("utf-8").splitlines()))
    assert [name for name in table[0] if "_low" not in name and "_high" not in name][-3:] == [
        "volume_grey_px2",
        "depth_grey",
        "depth_nm",
    ]
    assert [row["depth_nm"] for row in table] == ["100.5", "", "102.5", "104.5", "105.5"]
    assert table[1]["depth_grey"] == "80.12346"
    assert (table[0]["depth_nm_low"], table[0]["volume_grey_px2"], table[0]["path"]) == ("99", "", "lot/ü 0.png")
    assert write_quarantine_csv(store, run, tmp_path / "q.csv") == 1
    assert (tmp_path / "q.csv").read_text("utf-8") == "path,page,reason\nlot/ü 3.png,0,the file is empty\n"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["q.csv", "r.csv", "r.sqlite"]


def test_columns_say_their_unit_once():
    assert column("depth", "nm") == "depth_nm"
    assert column("orientation_deg", "deg") == "orientation_deg"
    assert column("ellipticity", "1") == "ellipticity"
    assert column("volume", "grey px2") == "volume_grey_px2"


def test_what_is_no_database_is_told(tmp_path):
    (tmp_path / "r.sqlite").write_text("this is no database at all, but long enough to be looked at" * 20)
    with pytest.raises(InputError, match=r"r\.sqlite: file is not a database"):
        Store(tmp_path / "r.sqlite")
    with pytest.raises(InputError, match="unable to open"):
        Store(tmp_path / "nowhere" / "r.sqlite")
    with pytest.raises(UsageError, match="not the URL of a database"):
        Store("magic://somewhere/lot")


def test_a_password_is_never_told(monkeypatch):
    monkeypatch.setattr(sa, "create_engine", lambda url: (_ for _ in ()).throw(ModuleNotFoundError("psycopg")))
    with pytest.raises(UsageError, match="driver is not installed") as told:
        Store("postgresql+psycopg://fab:secret@db/lot")
    assert "secret" not in str(told.value)


def test_the_same_tables_exist_for_postgresql():
    for table in (RUNS, IMAGES, MEASUREMENTS):
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=postgresql.dialect()))
        compiled = sa.insert(table).compile(dialect=postgresql.dialect())
        assert set(compiled.params) == set(table.columns.keys())
