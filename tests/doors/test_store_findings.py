"""Findings: stored with their image or not at all, read back as they were, and told in a table."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from waferlens.errors import InputError
from waferlens.formats.coco import read_coco
from waferlens.records import Finding, Place
from waferlens.store.findings import COLUMNS, write_findings_coco, write_findings_csv
from waferlens.store.results import Store
from waferlens.store.rows import OK, QUARANTINED, Found, ImageResult, Run
from waferlens.store.schema import FINDINGS
from waferlens.store.tables import write_quarantine_csv, write_results_csv

RUN = Run("abc", "2024-01-01T00:00:00+00:00", "b", "f" * 64, "{}", "0.1")
LIGHT = Finding("deviation", (-0.5, -0.5, 0.5, 0.5), 3.25, 1.0, 40.5, "light", True, "large")
DARK = Finding("deviation", (10.5, 234342.5, 14.5, 234350.5), 1.5, 23.0, -12.25, "dark", False)


def chunk(number: int = 0) -> list[ImageResult]:
    first = 3 * number
    return [
        ImageResult(first, f"ü {first}.png", 0, OK, verdict="NG", chunk=number, findings=[LIGHT, DARK]),
        ImageResult(first + 1, f"ü {first + 1}.png", 0, OK, verdict="OK", chunk=number),
        ImageResult(first + 2, f"ü {first + 2}.png", 4, OK, verdict="NG", chunk=number, findings=[DARK]),
    ]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "r.sqlite") as opened:
        yield opened


def test_findings_read_back_as_stored_and_in_order(store):
    run = store.begin(RUN)
    for number in (1, 0):
        store.add_chunk(run, chunk(number))
    assert list(store.images(run)) == chunk(0) + chunk(1)
    assert not any(image.findings for image in store.images(run, findings=False))
    told = list(store.findings(run))
    assert told[:2] == [Found(0, "ü 0.png", 0, "NG", LIGHT), Found(0, "ü 0.png", 0, "NG", DARK)]
    assert [found.item for found in told] == [0, 0, 2, 3, 3, 5]
    assert told[2].page == 4
    assert isinstance(told[0].finding.critical, bool)


def test_facts_and_places_read_back_as_stored(store, tmp_path):
    run = store.begin(RUN)
    placed = replace(LIGHT, kind="crack", place=Place(12.5, 7.25, 3.0, 4.0, "um"))
    images = [
        ImageResult(0, "a.png", 0, OK, verdict="NG", findings=[placed, DARK], facts={"light": "bf", "upright": "pin"}),
        ImageResult(1, "b.png", 0, OK, verdict="review", facts={"light": "dfw"}),
        ImageResult(2, "c.png", 0, OK, verdict="review", findings=[DARK]),
    ]
    store.add_chunk(run, images)
    assert list(store.images(run)) == images
    assert [found.finding for found in store.findings(run)] == [placed, DARK, DARK]
    assert (sorted(store.facts(run)), store.places(run)) == (["light", "upright"], ["um"])
    write_results_csv(store, run, tmp_path / "r.csv", ["upright", "light"])
    write_findings_csv(store, run, tmp_path / "f.csv")
    with (tmp_path / "r.csv").open() as file:
        assert [(row["light"], row["upright"]) for row in csv.DictReader(file)] == [
            ("bf", "pin"),
            ("dfw", ""),
            ("", ""),
        ]
    with (tmp_path / "f.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [rows[0][f"{name}_um"] for name in ("x", "y", "width", "height")] == ["12.5", "7.25", "3", "4"]
    assert [row["x_um"] for row in rows] == ["12.5", "", ""]
    # what is to be looked at again has its box there; what nothing was found on, and is not known to be good, is not
    write_findings_coco(store, run, tmp_path / "f.json")
    assert [image.path for image in read_coco(tmp_path / "f.json")] == ["a.png", "c.png"]
    store.forget(RUN.name)
    assert (store.facts(run), store.places(run)) == ([], [])


def test_more_findings_than_are_read_at_a_time(store):
    run = store.begin(RUN)
    many = [replace(DARK, score=float(number)) for number in range(2500)]
    store.add_chunk(run, [ImageResult(0, "a.png", 0, OK, findings=many), *chunk(1)])
    assert [found.finding.score for found in store.findings(run)][:2500] == [float(number) for number in range(2500)]
    assert next(store.images(run)).findings == many


def test_numbers_of_numpy_and_what_is_not_known(store):
    run = store.begin(RUN)
    box = tuple(np.float32([0.5, 1.5, 2.5, 3.5]))
    odd = Finding(
        "deviation", box, np.float32(math.inf), np.int64(4), np.float32(math.nan), "light", np.bool_(True), "r"
    )
    store.add_chunk(run, [ImageResult(0, "a.png", 0, OK, findings=[odd])])
    (found,) = store.findings(run)
    assert found.finding.box == (0.5, 1.5, 2.5, 3.5)
    assert found.finding.score == math.inf
    assert math.isnan(found.finding.contrast)
    assert (found.finding.area_px, found.finding.critical) == (4.0, True)


def test_findings_come_with_their_chunk_or_not_at_all(store):
    run = store.begin(RUN)
    store.add_chunk(run, chunk(0))
    with store._engine.begin() as connection:  # as if a former version had left one behind
        connection.execute(sa.insert(FINDINGS).values(run=run, item=5, number=0, **_columns(DARK)))
    with pytest.raises(InputError, match="UNIQUE"):
        store.add_chunk(run, chunk(1))
    assert list(store.images(run)) == chunk(0)


def _columns(finding: Finding) -> dict:
    x0, y0, x1, y1 = finding.box
    names = ("kind", "score", "area_px", "contrast", "light_or_dark", "critical", "rule")
    return {"x0": x0, "y0": y0, "x1": x1, "y1": y1, **{name: getattr(finding, name) for name in names}}


def test_findings_are_forgotten_with_their_run_alone(store):
    first, second = store.begin(RUN), store.begin(replace(RUN, name="other"))
    for run in (first, second):
        store.add_chunk(run, chunk(0))
    store.forget("abc")
    assert list(store.findings(first)) == []
    assert list(store.images(second)) == chunk(0)


def test_a_database_from_before_findings_gains_them(tmp_path):
    place = tmp_path / "r.sqlite"
    with Store(place) as store:
        run = store.begin(RUN)
        store.add_chunk(run, [ImageResult(9, "old.png", 0, OK, chunk=3)])
        FINDINGS.drop(store._engine)
    with Store(place) as store:
        assert [image.findings for image in store.images(run)] == [[]]
        store.add_chunk(run, chunk(0))
        assert len(list(store.findings(run))) == 3


def test_the_table_has_one_row_a_finding(store, tmp_path):
    run = store.begin(RUN)
    store.add_chunk(run, chunk(0))
    store.add_chunk(run, [ImageResult(7, "bad.png", 0, QUARANTINED, "empty", chunk=1)])
    assert write_findings_csv(store, run, tmp_path / "f.csv") == 3
    text = (tmp_path / "f.csv").read_text("utf-8")
    assert text.splitlines()[0] == ",".join(COLUMNS)
    rows = list(csv.DictReader(text.splitlines()))
    expected = "ü 0.png,0,NG,deviation,-0.5,-0.5,0.5,0.5,1,40.5,light,true,3.25,large"
    assert text.splitlines()[1] == expected
    assert (rows[1]["y0"], rows[1]["critical"], rows[2]["page"]) == ("234342.5", "false", "4")
    # the other tables are as they were
    assert write_results_csv(store, run, tmp_path / "r.csv", []) == 3
    assert write_quarantine_csv(store, run, tmp_path / "q.csv") == 1
    with pytest.raises(InputError, match="cannot be written"):
        write_findings_csv(store, run, tmp_path / "nowhere" / "f.csv")


def test_without_findings_the_table_is_its_head(store, tmp_path):
    run = store.begin(RUN)
    store.add_chunk(run, [ImageResult(0, "a.png", 0, OK)])
    assert write_findings_csv(store, run, tmp_path / "f.csv") == 0
    assert (tmp_path / "f.csv").read_text("utf-8") == ",".join(COLUMNS) + "\n"


def test_the_table_exists_for_postgresql():
    assert "BOOLEAN NOT NULL" in str(CreateTable(FINDINGS).compile(dialect=postgresql.dialect()))
    compiled = sa.insert(FINDINGS).compile(dialect=postgresql.dialect())
    assert set(compiled.params) == set(FINDINGS.columns.keys())
