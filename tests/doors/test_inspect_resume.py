"""A run that is killed at any moment, and resumed, is the run that was never killed."""

import csv
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from make_bundle import make_bundle, write_images
from waferlens.errors import UsageError
from waferlens.formats.map_stack import read_map_stack
from waferlens.inspect import inspect_paths

IMAGES, CHUNK = 180, 10

RUN = """
import sys
from waferlens.inspect import inspect_paths
inspect_paths([sys.argv[1]], sys.argv[2], sys.argv[3], chunk=int(sys.argv[4]), limits=["depth=100:140grey"],
              progress=lambda done, total: print(done, flush=True))
"""


@pytest.fixture(scope="module")
def lot(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("lot") / "images"
    write_images(folder, IMAGES)
    for index in (7, 95):
        (folder / f"hole_{index:05d}.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "b").path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, lot, bundle) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    inspect_paths([lot], bundle, out, chunk=CHUNK, limits=["depth=100:140grey"])
    return out


def resume(lot: Path, bundle: Path, out: Path):
    return inspect_paths([lot], bundle, out, chunk=CHUNK, limits=["depth=100:140grey"])


def same(out: Path, whole: Path) -> None:
    for name in ("results.csv", "quarantine.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(entry.name for entry in out.iterdir()) == sorted(entry.name for entry in whole.iterdir())
    assert [p.name for p in sorted((out / "maps").iterdir())] == [p.name for p in sorted((whole / "maps").iterdir())]
    with (out / "results.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            mine, theirs = (
                read_map_stack(run / row["map_file"], range(int(row["map_index"]), int(row["map_index"]) + 1))
                for run in (out, whole)
            )
            assert mine.names == [row["path"]]
            assert np.array_equal(mine.heights, theirs.heights)
    with sqlite3.connect(out / "results.sqlite") as database:
        (rows,) = database.execute("select count(*) from images").fetchone()
    database.close()
    assert rows == IMAGES


@pytest.mark.parametrize("seed", range(5))
def test_a_kill_at_any_moment_loses_and_doubles_nothing(tmp_path, lot, bundle, whole, seed):
    out = tmp_path / "out"
    random.seed(seed)
    arguments = [sys.executable, "-c", RUN, str(lot), str(bundle), str(out), str(CHUNK)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        wanted = random.randrange(0, IMAGES, CHUNK)
        for line in process.stdout:
            if int(line) >= wanted:
                break
        time.sleep(random.uniform(0, 0.03))
        process.kill()
    assert process.returncode in (-signal.SIGKILL, 0)
    result = resume(lot, bundle, out)
    assert (result.images, result.quarantined) == (IMAGES, 2)
    same(out, whole)


def test_a_kill_before_the_first_chunk_leaves_a_folder_that_can_be_used(tmp_path, lot, bundle, whole):
    out = tmp_path / "out"
    (out / "maps").mkdir(parents=True)
    for name in ("images.jsonl.part", "runcard.json.part", "results.csvabc.part", "maps/maps_000001.tifx.part"):
        (out / name).write_bytes(b"half")
    (out / "maps" / "maps_000003.tif").write_bytes(b"of a chunk that was never stored")
    resume(lot, bundle, out)
    same(out, whole)


def test_a_kill_while_the_tables_are_written_is_mended(tmp_path, lot, bundle, whole):
    out = tmp_path / "out"
    resume(lot, bundle, out)
    (out / "results.csv").unlink()
    assert resume(lot, bundle, out).resumed_at == IMAGES
    same(out, whole)


def test_an_interruption_leaves_a_run_that_can_be_resumed(tmp_path, lot, bundle, whole):
    out = tmp_path / "out"

    def interrupt(done: int, total: int) -> None:
        if done >= 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_paths([lot], bundle, out, chunk=CHUNK, limits=["depth=100:140grey"], progress=interrupt)
    result = resume(lot, bundle, out)
    assert result.resumed_at == 50
    same(out, whole)


def test_control_c_exits_with_its_own_status(tmp_path, lot, bundle):
    out = tmp_path / "out"
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    code = (
        "import sys, os, signal; from waferlens.inspect.hole import HoleWork; from waferlens.cli.main import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where the tests run in the background
        "real = HoleWork.results\n"
        "def work(*a):\n    os.kill(os.getpid(), signal.SIGINT); return real(*a)\n"
        "HoleWork.results = work\n"
        f"sys.exit(main(['inspect', {str(lot)!r}, '--bundle', {str(bundle)!r}, '--out', {str(out)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert "resumes the run" in done.stderr
    result = inspect_paths([lot], bundle, out)
    assert result.images == IMAGES


def test_a_wrong_option_removes_no_former_run(tmp_path, lot, bundle):
    out = tmp_path / "out"
    write_images(tmp_path / "few", 3)
    inspect_paths([tmp_path / "few"], bundle, out)
    before = (out / "results.csv").read_bytes()
    for wrong in ({"limits": ["dep=1:2"]}, {"limits": ["depth=1:2"]}, {"level": 0.5}, {"pixel_nm": -1.0}):
        with pytest.raises(UsageError):
            inspect_paths([tmp_path / "few"], bundle, out, fresh=True, **wrong)
    assert (out / "results.csv").read_bytes() == before
