"""Stage traces: the columns S0's tool writes, everything else kept, and faults told by their line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from waferlens.errors import FormatError, InputError
from waferlens.formats.stage_trace import read_trace, write_trace
from waferlens.records import StageTrace

HEADER = [f"header row {number}" for number in range(7)]


def row(x: object = 728, y: object = 0, z: object = 100, valid: object = 1, **others: object) -> str:
    words = [str(number) for number in range(25)]
    words[1], words[4], words[9], words[24] = str(x), str(y), str(z), str(valid)
    for name, value in others.items():
        words[int(name[1:])] = str(value)
    return ",".join(words)


def written(folder: Path, *rows: str, header: list[str] = HEADER, encoding: str = "utf-8") -> Path:
    path = folder / "trace.csv"
    path.write_bytes("\n".join([*header, *rows, ""]).encode(encoding))
    return path


def same(a: StageTrace, b: StageTrace) -> None:
    for name in ("x_counts", "y_counts", "z_counts", "valid"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert (a.z_ref_um, a.rate_hz, a.further.keys()) == (b.z_ref_um, b.rate_hz, b.further.keys())
    assert (a.objective_z_um is None) == (b.objective_z_um is None)
    if a.objective_z_um is not None:
        np.testing.assert_array_equal(a.objective_z_um, b.objective_z_um)
    for number, values in a.further.items():
        np.testing.assert_array_equal(values, b.further[number])


def test_the_columns_of_the_tool_are_found(tmp_path):
    trace = read_trace(written(tmp_path, row(728, -5, 24800, 1), row(1456, -5, -20000, 0)))
    assert trace.x_counts.tolist() == [728, 1456]
    assert trace.y_counts.tolist() == [-5, -5]
    assert trace.valid.tolist() == [True, False]
    assert trace.z_um.tolist() == [0.0, 1400.0]  # the bare carrier, and far above it: the reading grows downwards
    assert trace.objective_z_um is None
    assert sorted(trace.further) == sorted(set(range(25)) - {1, 4, 9, 24})


def test_what_we_do_not_know_is_written_back(tmp_path):
    header = [*HEADER[:6], "Zeit,µm,Höhe"]
    rows = [row(n3="12:30:01", n7=1.25, n8="", n12="nan"), row(1456, n3="12:30:02", n7=1e-9, n8="", n12=4)]
    path = written(tmp_path, *rows, header=header, encoding="latin-1")
    trace = read_trace(path)
    assert trace.further[3].tolist() == ["12:30:01", "12:30:02"]
    again = tmp_path / "again.csv"
    write_trace(again, trace)
    assert again.read_bytes().split(b"\n")[6] == "Zeit,µm,Höhe".encode("latin-1")
    same(trace, read_trace(again))


@given(st.integers(1, 40), st.floats(0, 2000), st.floats(1, 1e5), st.booleans(), st.integers(0, 2**32))
def test_a_trace_survives_its_file(tmp_path_factory, count, z_ref, rate, focus, seed):
    rng = np.random.default_rng(seed)
    trace = StageTrace(
        x_counts=rng.integers(-(2**40), 2**40, count),
        y_counts=rng.integers(-100, 100, count),
        z_counts=rng.integers(-60000, 30000, count),
        valid=rng.random(count) > 0.2,
        objective_z_um=rng.normal(700, 30, count) if focus else None,
        z_ref_um=z_ref,
        rate_hz=rate,
        further={0: rng.normal(size=count), 30: np.arange(count) * 0.5},
    )
    path = tmp_path_factory.mktemp("traces") / "trace.csv"
    write_trace(path, trace)
    back = read_trace(path)
    # columns in between are zeros in the file, and further columns from then on
    known = {number: back.further[number] for number in (0, 30)}
    assert not any(values.any() for number, values in back.further.items() if number not in known)
    back.further.clear()
    back.further.update(known)
    same(trace, back)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "holds no sample after its 7 header rows"),
        (["1,2,3", "4,5,6"], "line 8: 3 columns; a stage trace has at least 25"),
        ([row(), "1,2,3"], "line 9: 3 columns, the rows before it have 25"),
        ([row(), row(z="high")], "line 9, column 9: 'high' is no number"),
        ([row(), row(x="nan")], "line 9 .*the X encoder is nan"),
        ([row(), row(), row(z=12.5)], "line 10 .*Z is 12.5, which is no whole number of counts"),
        ([row(valid="")], "line 8, column 24: '' is no number"),
        ([row(x="inf")], "the X encoder is inf"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path, rows, told):
    with pytest.raises(FormatError, match=told):
        read_trace(written(tmp_path, *rows))


def test_samples_are_not_taken_for_a_header(tmp_path):
    with pytest.raises(FormatError, match="line 3 is a sample; a stage trace begins with 7 header rows"):
        read_trace(written(tmp_path, *[row()] * 20, header=HEADER[:2]))


def test_a_broken_constant_is_told(tmp_path):
    path = tmp_path / "trace.csv"
    trace = StageTrace(*(np.zeros(2, np.int64) for _ in range(3)), np.ones(2, bool))
    write_trace(path, trace)
    path.write_text(path.read_text().replace("z_ref_um,775.0", "z_ref_um,high"))
    with pytest.raises(FormatError, match="line 2: z_ref_um is 'high'"):
        read_trace(path)


def test_no_file_and_no_bytes(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(tmp_path / "none.csv")
    (tmp_path / "empty.csv").write_bytes(b"")
    with pytest.raises(FormatError, match="empty"):
        read_trace(tmp_path / "empty.csv")


def test_nothing_is_left_of_a_trace_that_could_not_be_written(tmp_path):
    broken = StageTrace(np.zeros(3, np.int64), np.zeros(2, np.int64), np.zeros(3, np.int64), np.ones(3, bool))
    with pytest.raises(ValueError, match="zip"):
        write_trace(tmp_path / "trace.csv", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_column_is_never_lost_to_the_height_of_focus(tmp_path):
    foreign = read_trace(written(tmp_path, row() + ",7", row(1456) + ",8"))
    write_trace(tmp_path / "same.csv", foreign)
    assert read_trace(tmp_path / "same.csv").further[25].tolist() == [7, 8]
    with pytest.raises(InputError, match="column 25 of this trace is taken"):
        write_trace(tmp_path / "other.csv", replace(foreign, objective_z_um=np.array([1.0, 2.0])))
