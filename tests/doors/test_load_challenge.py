"""The challenge's folder, clean and as it is found in the wild."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from waferlens.cli.main import main
from waferlens.errors import FormatError, InputError
from waferlens.formats import challenge
from waferlens.load.challenge import check, load_sem, load_sim, scan


def grey(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (72, 48), dtype=np.uint8)


def put(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


@pytest.fixture
def root(tmp_path) -> Path:
    seed = 0
    for base in ("20201001_a", "20201001_b"):
        for case in challenge.CASES:
            for itr in (0, 1):
                put(challenge.sim_sem_path(tmp_path, case, 80, base, itr), grey(seed))
                seed += 1
            put(challenge.sim_depth_path(tmp_path, case, 80, base), grey(1000 + seed))
    for number in range(3):
        put(challenge.real_sem_path(tmp_path, 110, 4, number), grey(seed + number))
        put(challenge.test_sem_path(tmp_path, number), grey(seed + 10 + number))
    challenge.write_average_depth(challenge.average_depth_path(tmp_path), {(110, 4): 108.25})
    return tmp_path


def test_the_layout_is_parsed_as_it_is_written():
    for path, item in [
        (challenge.sim_sem_path("", 3, 82, "x_itr0_y", 1), challenge.SimSem(3, 82, "x_itr0_y", 1)),
        (challenge.sim_depth_path("", 4, 84, "x"), challenge.SimDepth(4, 84, "x")),
        (challenge.real_sem_path("", 140, 17, 60663), challenge.RealSem(140, 17, 60663)),
        (challenge.test_sem_path("", 7), challenge.TestSem("000007")),
        (challenge.average_depth_path(""), challenge.DepthTable()),
        (challenge.manifest_path(""), challenge.Manifest()),
        (Path("train/SEM/Depth_110/SEM_000001.png"), None),
    ]:
        assert challenge.parse(path) == item


def test_depths_read_back_as_written(tmp_path):
    depths = {(120, 3): 118.5625, (110, 0): 105.3, (110, 12): 1 / 3}
    challenge.write_average_depth(tmp_path / "d.csv", depths)
    assert challenge.read_average_depth(tmp_path / "d.csv") == depths
    assert (tmp_path / "d.csv").read_text().startswith("0,1\ndepth_110_site_00000,105.3\n")
    assert list(tmp_path.iterdir()) == [tmp_path / "d.csv"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: expected the header"),
        ("site,depth\n", "line 1: expected the header"),
        ("0,1\ndepth_110_site_00001,1\ndepth_110_site_1,2\n", "line 3: .* stands twice"),
        ("0,1\ndepth_110,1\n", "line 2: expected"),
        ("0,1\ndepth_110_site_00001,deep\n", "line 2: .* not a number"),
        ("0,1\ndepth_110_site_00001,nan\n", "line 2: .* not a positive"),
    ],
)
def test_a_broken_table_is_told_by_line(tmp_path, text, told):
    (tmp_path / "d.csv").write_text(text)
    with pytest.raises(FormatError, match=told):
        challenge.read_average_depth(tmp_path / "d.csv")


def test_a_clean_folder_has_no_problems(root):
    holes = check(root)
    assert holes.problems == []
    assert (len(holes.sim), len(holes.real), len(holes.test), holes.images) == (16, 3, 3, 22)
    assert {hole.structure for hole in holes.sim} == {"20201001_a", "20201001_b"}
    assert {(hole.site, hole.average_depth) for hole in holes.real} == {("depth_110_site_00004", 108.25)}


def test_each_oddity_is_one_line(root):
    sem = challenge.sim_sem_path(root, 1, 80, "20201001_a", 0)
    put(sem, cv2.merge([grey(0)] * 3))
    challenge.sim_sem_path(root, 2, 80, "20201001_a", 1).unlink()
    challenge.sim_depth_path(root, 3, 80, "20201001_a").unlink()
    put(challenge.sim_depth_path(root, 1, 80, "lonely"), grey(1))
    put(sem.parent / "20201001_a_itr0-checkpoint.png", grey(0))
    put(sem.parent / ".ipynb_checkpoints" / "20201001_a_itr0-checkpoint.png", grey(0))
    put(sem.parent / "20201001_a.png", grey(0))
    (root / "test" / "SEM" / "Thumbs.db").write_bytes(b"x")
    put(challenge.test_sem_path(root, 1), grey(0)[:70])
    whole = challenge.test_sem_path(root, 2).read_bytes()
    challenge.test_sem_path(root, 2).write_bytes(whole[:-40])
    put(challenge.real_sem_path(root, 120, 9, 5), grey(2))
    told = [str(problem) for problem in check(root).problems]
    for start, part in [
        ("simulation_data/SEM/Case_1/80/20201001_a_itr0.png", "RGB with equal channels, read as grey"),
        ("simulation_data/SEM/Case_2/80/20201001_a_itr0.png", "itr1, is missing"),
        ("simulation_data/SEM/Case_3/80/20201001_a_itr0.png", "20201001_a.png is missing"),
        ("simulation_data/SEM/Case_3/80/20201001_a_itr1.png", "20201001_a.png is missing"),
        ("simulation_data/Depth/Case_1/80/lonely.png", "without an SEM image"),
        ("simulation_data/SEM/Case_1/80/20201001_a_itr0-checkpoint.png", "stray checkpoint file"),
        ("simulation_data/SEM/Case_1/80/.ipynb_checkpoints", "1 files left out"),
        ("simulation_data/SEM/Case_1/80/20201001_a.png", "none of the layout's"),
        ("test/SEM/Thumbs.db", "not an image"),
        ("test/SEM/000001.png", "48x70 px, the layout has 48x72"),
        ("test/SEM/000002.png", "truncated PNG"),
        ("depth_120_site_00009", "1 images without a depth"),
    ]:
        matching = [line for line in told if line.startswith(start + ": ") and part in line]
        assert len(matching) == 1, (start, part, told)
        told.remove(matching[0])
    assert told == []


def test_arrays_are_the_files(root):
    arrays = load_sim(root)
    assert arrays.sem.shape == arrays.depth.shape == (16, 72, 48)
    for index, hole in enumerate(scan(root).sim):
        assert np.array_equal(arrays.sem[index], cv2.imread(str(root / hole.sem), cv2.IMREAD_UNCHANGED))
        assert np.array_equal(arrays.depth[index], cv2.imread(str(root / hole.depth), cv2.IMREAD_UNCHANGED))
        assert (arrays.structure[index], arrays.case[index], arrays.itr[index]) == (hole.structure, hole.case, hole.itr)
    one = load_sim(root, lambda hole: hole.structure.endswith("_b"))
    assert set(one.structure) == {"20201001_b"}
    paths = [hole.sem for hole in scan(root).real]
    assert np.array_equal(load_sem(root, paths)[2], cv2.imread(str(root / paths[2]), cv2.IMREAD_UNCHANGED))


def test_an_unreadable_map_costs_its_images_only(root):
    challenge.sim_depth_path(root, 2, 80, "20201001_a").write_bytes(b"")
    arrays = load_sim(root)
    assert len(arrays.sem) == len(arrays.structure) == 14
    assert [str(problem) for problem in arrays.problems] == [
        "simulation_data/Depth/Case_2/80/20201001_a.png: the file is empty"
    ]


def test_a_folder_without_the_layout_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing of the challenge's layout"):
        scan(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        scan(tmp_path / "nowhere")


def test_the_command_line_tells_one_line_a_problem_and_a_count(root, capsys):
    assert main(["load", "check", str(root)]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "16 simulated images with 8 depth maps, 3 real, 3 test; 0 problems" in told.err
    (root / "notes.txt").write_text("x")
    assert main(["load", "check", str(root)]) == 0  # told, but nothing is lost
    challenge.test_sem_path(root, 1).write_bytes(b"")
    assert main(["load", "check", str(root)]) == 1
    told = capsys.readouterr()
    assert "test/SEM/000001.png: the file is empty" in told.out
    assert "2 problems, 1 of them lose data" in told.err
    assert main(["load", "check", str(root), "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["simulated"], told["losing_data"], len(told["problems"])) == (16, 1, 2)
    assert main(["load", "check", str(root / "nowhere")]) == 1
