"""The reader, on a small model of its own: what it merges, and how it tells what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from waferlens.errors import RecipeError
from waferlens.recipe import as_yaml, read_model
from waferlens.recipe.yamltree import parse


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Round(Part):
    kind: Literal["round"]
    radius_nm: float = Field(default=20.0, gt=0)
    """Radius of the hole [nm]"""


class Slot(Part):
    kind: Literal["slot"]
    length_nm: float
    """Length of the slot [nm]"""
    angles_deg: tuple[float, ...] = ()
    """Angles [deg]"""


class Plan(Part):
    name: str
    """Name."""
    repeats: int = 3
    """How often."""
    mode: Literal["fast", "exact"] = "fast"
    """How."""
    note: str | None = None
    """Remark."""
    shape: Annotated[Round | Slot, Field(discriminator="kind")]
    """What."""
    tags: dict[str, str] = Field(default={})
    """Labels."""


def read(path: Path, *overrides: str) -> Plan:
    return read_model(Plan, path, folder_package="recipes", overrides=overrides)


def faults(path: Path | str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read_model(Plan, path, folder_package="recipes", overrides=overrides)
    assert caught.value.exit_status == 2
    return [str(fault) for fault in caught.value.faults]


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    path = tmp_path / "parent.yaml"
    path.write_text("name: parent\nrepeats: 5\nshape:\n  kind: round\n  radius_nm: 17\ntags: {a: one}\n")
    return path


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "name: bad\nrepeat: 4\nrepeats: many\nmode: fsat\nshape:\n  kind: slto\n  lenght_nm: 3\n  angles_deg: [1, x]\n"
        "radius_nm: 3\nmode: exact\n"
    )
    assert faults(path, "note=[1]", "nonsense") == [
        "command line: 'nonsense' is no override; write section.field=value",
        f"{path}:10: mode: written twice, first at {path}:4; keep one",
        f"{path}:2: repeat = 4: unknown field, did you mean 'repeats'?",
        f"{path}:3: repeats = many: should be a valid integer",
        f"{path}:5: shape.length_nm: is missing; Length of the slot [nm]",
        f"{path}:6: shape.kind = slto: unknown kind, did you mean 'slot'?",
        f"{path}:7: shape.lenght_nm = 3: unknown field, did you mean 'length_nm'?",
        f"{path}:8: shape.angles_deg[1] = x: should be a valid number",
        f"{path}:9: radius_nm = 3: unknown field, did you mean 'shape.radius_nm'?",
        "command line: note = [1]: should be a valid string",
    ]


def test_a_misspelt_choice_is_answered_with_the_nearest(parent: Path) -> None:
    assert faults(parent, "mode=exakt") == ["command line: mode = exakt: not one of the choices, did you mean 'exact'?"]


def test_types_are_meant(parent: Path) -> None:
    told = faults(parent, "repeats=true", 'shape.radius_nm="20"', "name=3")
    assert [line.partition(": ")[2] for line in told] == [
        "name = 3: should be a valid string",
        "repeats = true: should be a valid integer",
        "shape.radius_nm = '20': should be a valid number",
    ]


def test_a_field_of_another_kind_says_so(parent: Path) -> None:
    assert faults(parent, "shape.length_nm=3") == [
        "command line: shape.length_nm = 3: unknown field; it belongs to another kind. Known here: kind, radius_nm"
    ]


def test_a_child_states_the_difference(parent: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nrepeats: 9\ntags: {b: two}\n")
    plan = read(child)
    assert plan == Plan(
        name="child", repeats=9, shape=Round(kind="round", radius_nm=17.0), tags={"a": "one", "b": "two"}
    )


def test_another_kind_replaces_the_section_whole(parent: Path, tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nname: child\nshape: {kind: slot, length_nm: 40}\n")
    assert read(child).shape == Slot(kind="slot", length_nm=40.0)


def test_a_fault_stands_in_the_file_that_wrote_it(parent: Path, tmp_path: Path) -> None:
    parent.write_text(parent.read_text().replace("17", "-17"))
    child = tmp_path / "child.yaml"
    child.write_text("extends: parent.yaml\nname: child\nrepeats: 0.5\n")
    assert faults(child, "mode=slow") == [
        f"{child}:3: repeats = 0.5: should be a valid integer",
        f"{parent}:5: shape.radius_nm = -17: should be greater than 0",
        "command line: mode = slow: not one of the choices; one of 'fast', 'exact'",
    ]


def test_a_circle_of_parents_is_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text("extends: b.yaml\nname: a\n")
    b.write_text("name: b\nextends: a.yaml\n")
    assert faults(a) == [f"{b}:2: extends: a -> b -> a runs in a circle; drop one of them"]


def test_a_missing_parent_is_named_where_it_is_asked_for(tmp_path: Path) -> None:
    child = tmp_path / "child.yaml"
    child.write_text("name: child\nextends: hole-unet-22\n")
    assert faults(child) == [
        f"{child}:2: extends: 'hole-unet-22' is no file and no name in recipes; did you mean 'hole-unet-2'?"
    ]


def test_an_unknown_name_suggests_a_shipped_one() -> None:
    assert faults("hole-unet-22") == [
        "command line: 'hole-unet-22' is no file and no name in recipes; did you mean 'hole-unet-2'?"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"name: [1\n", "not readable as YAML"),
        (b"name: \xff\n", "not UTF-8"),
        (b"- a\n- b\n", "should be a mapping"),
        (b"a: &x {b: 1}\nc: *x\n", "anchors and aliases are not used"),
        (b"a: &x {b: *x}\n", "anchors and aliases are not used"),
        (b"name: !!python/object:os.system x\n", "tag"),
        (b"? [1, 2]\n: 3\n", "a field's name is a word"),
        (b"name: a\n\x00", "not readable as YAML"),
        (b"", "name: is missing"),
    ],
)
def test_what_is_no_recipe_is_a_fault_not_a_crash(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(text)
    told = faults(path)
    assert any(said in line and line.startswith(f"{path}:") for line in told), told


def test_a_folder_is_not_a_recipe(tmp_path: Path) -> None:
    assert faults(tmp_path) == [f"command line: {tmp_path}: is a folder; name the file in it"]


def test_overrides_may_come_in_any_order(parent: Path) -> None:
    shape = Slot(kind="slot", length_nm=40.0, angles_deg=(0.0, 45.0))
    for given_order in (
        ["shape.angles_deg=[0, 45]", "shape.kind=slot", "shape.length_nm=4e1"],
        ["shape={kind: slot, length_nm: 40}", "shape.angles_deg=[0, 45]"],
    ):
        assert read(parent, *given_order).shape == shape


def test_the_last_override_of_a_field_holds(parent: Path) -> None:
    assert read(parent, "repeats=1", "repeats=2").repeats == 2


def test_an_override_without_value_says_how_to_clear(parent: Path) -> None:
    assert faults(parent, "note=") == ["command line: note: has no value; write note=null to clear it"]
    assert read(parent, "note=null").note is None


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("1e-3", 1e-3),
        ("0.5", 0.5),
        ("-7", -7),
        ("007", 7),
        (".inf", float("inf")),
        ("true", True),
        ("on", "on"),
        ("no", "no"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("null", None),
        ("'1'", "1"),
        ("9" * 5000, float("inf")),
    ],
)
def test_the_dialect_is_the_core_of_yaml_1_2(written: str, meant: object) -> None:
    node, found = parse(f"x: {written}", "text")
    assert found == []
    assert node is not None
    value = node.plain()["x"]
    assert value == meant
    assert type(value) is type(meant)


texts = st.text(max_size=30)
plans = st.builds(
    Plan,
    name=texts,
    repeats=st.integers(-(10**12), 10**12),
    mode=st.sampled_from(["fast", "exact"]),
    note=st.none() | texts | st.sampled_from(["1e-3", "on", "no", "null", "~", "2024-01-01", "a: b", "# x", "1_0"]),
    shape=st.builds(Round, kind=st.just("round"), radius_nm=st.floats(1e-12, 1e12))
    | st.builds(
        Slot,
        kind=st.just("slot"),
        length_nm=st.floats(allow_nan=False, allow_infinity=False),
        angles_deg=st.lists(st.floats(-360, 360), max_size=4).map(tuple),
    ),
    tags=st.dictionaries(texts, texts, max_size=3),
)


@given(plan=plans, explain=st.booleans())
def test_what_is_written_reads_back_equal(plan: Plan, explain: bool, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("recipe") / "resolved.yaml"
    path.write_text(as_yaml(plan, explain=explain), encoding="utf-8")
    assert read(path) == plan
