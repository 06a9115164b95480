"""Boards of bright traces on dark ground, good and with spots, labelled: pairs for a detector that is shown both."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

SIDE_PX = 96


def board(seed: int, side_px: int = SIDE_PX) -> np.ndarray:
    """A good board."""
    rng = np.random.default_rng(seed)
    image = np.full((side_px, side_px), 60, np.uint8)
    for _ in range(7):
        points = rng.integers(0, side_px, (3, 1, 2)).astype(np.int32)
        cv2.polylines(image, [points], False, 200, int(rng.integers(2, 5)), cv2.LINE_AA)
    for _ in range(4):
        x, y = rng.integers(8, side_px - 8, 2)
        cv2.circle(image, (int(x), int(y)), int(rng.integers(4, 8)), 200, -1, cv2.LINE_AA)
    return cv2.GaussianBlur(image, (0, 0), 0.7)


def pairs(folder: Path, count: int, seed: int = 1) -> Path:
    """A folder in YOLO's layout: `N_test.png` with its spots labelled; `N_temp.png`, the good board moved a little."""
    rng = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    (folder / "classes.txt").write_text("spot\n")
    for number in range(count):
        good = board(1000 * seed + number)
        image, lines = good.copy(), []
        for _ in range(int(rng.integers(1, 4))):
            x, y = rng.integers(14, SIDE_PX - 14, 2)
            grey = 200 if image[y, x] < 130 else 60
            cv2.rectangle(image, (int(x) - 5, int(y) - 5), (int(x) + 5, int(y) + 5), grey, -1)
            lines.append(f"0 {(x + 0.5) / SIDE_PX} {(y + 0.5) / SIDE_PX} {11 / SIDE_PX} {11 / SIDE_PX}")
        shift = np.array([[1, 0, rng.uniform(-2, 2)], [0, 1, rng.uniform(-2, 2)]])
        moved = cv2.warpAffine(good, shift, (SIDE_PX, SIDE_PX), borderMode=cv2.BORDER_REFLECT)
        cv2.imwrite(str(folder / "images" / f"{number:03d}_test.png"), image)
        cv2.imwrite(str(folder / "images" / f"{number:03d}_temp.png"), moved)
        (folder / "labels" / f"{number:03d}_test.txt").write_text("\n".join(lines) + "\n")
    return folder
