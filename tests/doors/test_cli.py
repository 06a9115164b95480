"""The door: help, exit statuses, what goes to which stream, and what is not imported."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer

from waferlens.cli import main as door
from waferlens.cli.main import VERBS, main
from waferlens.cli.output import as_json, progress
from waferlens.errors import BundleError, InputError, UsageError
from waferlens.records import Measurement

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], list[str]]:
    """Register a function as the verb `trial`."""

    def register(body: Callable[[], None]) -> list[str]:
        module = ModuleType("waferlens_trial_verb")
        module.app = typer.Typer()  # type: ignore[attr-defined]
        module.app.command()(body)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(VERBS, "trial", (module.__name__, "a verb of the tests"))
        return ["trial"]

    return register


def test_help_lists_every_verb(capsys: Capture) -> None:
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, (_, line) in VERBS.items():
        assert f"  {name} " in printed
        assert line in printed


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_has_help(name: str, capsys: Capture) -> None:
    assert main([name, "--help"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"Usage: waferlens {name}")
    assert "--install-completion" not in printed


def test_help_imports_no_stage() -> None:
    code = (
        "import sys; from waferlens.cli.main import main; main(['--help'])\n"
        "heavy = {'numpy', 'pydantic', 'typer', 'rich', 'yaml', 'torch', 'cv2', 'onnxruntime', 'numba', 'sqlalchemy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("name", sorted(VERBS))
def test_help_of_a_verb_needs_no_torch(name: str) -> None:
    code = (
        f"import sys; from waferlens.cli.main import main; main(['{name}', '--help']); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_both_doors_are_one() -> None:
    module = subprocess.run(
        [sys.executable, "-m", "waferlens", "--version"], capture_output=True, text=True, check=True
    )
    script = subprocess.run(
        [str(Path(sys.executable).with_name("waferlens")), "--version"], capture_output=True, text=True, check=True
    )
    assert module.stdout == script.stdout
    assert module.stdout.startswith("waferlens ")


def test_without_a_verb_the_help_is_the_answer(capsys: Capture) -> None:
    assert main([]) == 2
    assert "Verbs:" in capsys.readouterr().err


def test_a_misspelt_verb_is_answered_with_the_nearest(capsys: Capture) -> None:
    assert main(["inspekt"]) == 2
    assert "did you mean 'inspect'?" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["recipes", "--colour"], ["recipes", "show"], ["recipes", "shw"]])
def test_wrong_usage_is_status_2(words: list[str], capsys: Capture) -> None:
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "--help" in captured.err


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("no such option"), 2),
        (BundleError("altered"), 2),
        (InputError("a.png", "truncated"), 1),
        (typer.Exit(1), 1),
        (typer.BadParameter("not a number"), 2),
        (KeyboardInterrupt(), 130),
        (ValueError("our mistake"), 3),
        (MemoryError(), 3),
        (FileNotFoundError("gone"), 3),
    ],
)
def test_every_failure_has_its_status(error: BaseException, status: int, verb: Any, capsys: Capture) -> None:
    def body() -> None:
        raise error

    assert main(verb(body)) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("Traceback" in captured.err) == (status == 3)


def test_an_interrupted_run_says_that_it_resumes(verb: Any, capsys: Capture) -> None:
    def body() -> None:
        raise KeyboardInterrupt

    main(verb(body))
    assert "resumes" in capsys.readouterr().err


def test_a_verb_that_cannot_be_imported_is_unexpected(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(VERBS, "trial", ("waferlens.cli.no_such_module", "missing"))
    assert main(["trial"]) == 3
    assert "no_such_module" in capsys.readouterr().err


def test_a_reader_that_leaves_is_no_failure() -> None:
    code = "import sys; from waferlens.cli.main import main; sys.exit(main(['recipes', 'show', 'hole-fast']))"
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert run.stdout is not None
    run.stdout.close()
    assert run.stderr is not None
    assert run.stderr.read() == ""
    run.stderr.close()
    assert run.wait() == 0


def test_recipes_are_listed_with_station_source_and_line(capsys: Capture) -> None:
    assert main(["recipes"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("hole-unet-2 "))
    assert row.split()[:3] == ["hole-unet-2", "hole", "S1"]
    assert main(["recipes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {"name", "station", "source", "summary"} == set(listed[0])


def test_show_prints_what_reads_back(tmp_path: Path, capsys: Capture) -> None:
    from waferlens.recipe import load_recipe

    assert main(["recipes", "show", "hole-unet-2", "train.seed=3"]) == 0
    path = tmp_path / "shown.yaml"
    path.write_text(capsys.readouterr().out)
    assert load_recipe(path) == load_recipe("hole-unet-2", ["train.seed=3"])


def test_show_as_json_counts_the_network(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    pytest.importorskip("torch", reason="the network is counted with the extra train")
    assert main(["recipes", "show", "hole-unet-2", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["name"] == "hole-unet-2"
    assert shown["model"]["kind"] == "unet"
    assert set(shown["network"]) >= {"parameters", "trainable", "parameters_fused", "gflops"}


def test_show_as_json_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    from waferlens.cli import recipes

    monkeypatch.setattr(recipes, "available", lambda module: False)
    assert main(["recipes", "show", "hole-fast", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "network" not in shown
    assert "pip install 'waferlens[train]'" in shown["note"]


def test_check_names_the_faults_of_all_files(tmp_path: Path, capsys: Capture) -> None:
    for name, text in (("a", "train: {lr: -1}"), ("b", "trian: {lr: 1}")):
        (tmp_path / f"{name}.yaml").write_text(f"extends: hole-unet-2\n{text}\n")
    files = [str(tmp_path / "a.yaml"), "hole-fast", str(tmp_path / "b.yaml")]
    assert main(["recipes", "check", *files]) == 2
    told = capsys.readouterr().err
    assert f"{files[0]}:2: train.lr = -1" in told
    assert f"{files[2]}:2: trian: unknown field, did you mean 'train'?" in told
    assert main(["recipes", "check", *files, "--json"]) == 2
    results = json.loads(capsys.readouterr().out)
    assert [result["ok"] for result in results] == [False, True, False]
    assert main(["recipes", "check", "hole-fast"]) == 0


def test_json_holds_what_json_can() -> None:
    value = {
        "nan": float("nan"),
        "inf": np.float32("inf"),
        "array": np.array([[1.0, np.nan]]),
        "count": np.int64(3),
        "path": Path("a") / "b",
        "measured": Measurement("depth", float("nan"), "nm"),
        "pair": (1, True, None),
    }
    told = as_json(value)
    measured = told.pop("measured")
    assert told == {
        "nan": None,
        "inf": None,
        "array": [[1.0, None]],
        "count": 3,
        "path": "a/b",
        "pair": [1, True, None],
    }
    assert measured["value"] is None
    with pytest.raises(TypeError, match="object"):
        as_json(object())


def test_progress_is_silent_where_nobody_looks(capsys: Capture) -> None:
    with progress(3, "counting") as advance:
        advance(3)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_progress_on_a_terminal_shows_count_rate_and_time(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(door.sys.stderr, "isatty", lambda: True)
    with progress(3, "counting") as advance:
        advance(2)
        advance(1)
    shown = capsys.readouterr().err
    assert "counting" in shown
    assert "3/3" in shown
    assert "/s" in shown
