"""What the first comparison of a fresh install waits for: few kernels, each compiled once, and nothing beside them.

Seconds are the machine's; how many functions the compiler has to take is ours.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from waferlens import ops

RUN = """
import json, sys
import numba.core.event as event
import numpy as np

class Compiled(event.Listener):
    def __init__(self):
        self.names = []
    def on_start(self, happened):
        function = happened.data["dispatcher"].py_func
        self.names.append(f"{function.__module__}.{function.__qualname__}")
    def on_end(self, happened):
        pass

compiled = Compiled()
event.register("numba:compile", compiled)
import cv2
from waferlens.ops.blobs import blobs, find
from waferlens.ops.difference import deviation, opened
from waferlens.ops.displacement import displaced
from waferlens.ops.registration import MOTIONS, register

random = np.random.default_rng(0)
scene = cv2.GaussianBlur(random.normal(size=(160, 170)).astype(np.float32), (0, 0), 2) * 400 + 120
reference = np.clip(scene[5:-5, 5:-5], 0, 255).astype(np.uint8)
image = np.clip(scene[7:-3, 4:-6] + random.normal(0, 3, reference.shape), 0, 255).astype(np.uint8)
still = image.copy()
still.setflags(write=False)
care = np.ones(image.shape, bool)
care[:20] = False
alike = (image, still, image.astype(np.uint16), image.astype(np.float32), np.asfortranarray(image), image[::2, ::2])
for pixels in alike:
    h, w = pixels.shape
    there, kept = reference[:h, :w].astype(np.float32), np.asfortranarray(care[:h, :w])
    for motion in MOTIONS:
        register(pixels, reference, motion=motion)
    register(pixels, reference, motion="rigid", max_shift_px=9, care=kept)
    for light in (9.0, np.full(pixels.shape, 9, np.float32)):
        units = deviation(pixels, there, light, 8.0, care=kept if np.ndim(light) else None)
        for size in (1, 2, 5):
            blobs(opened(units, size), 1.0, merge_px=size, image=pixels, reference=there)
            find(pixels, there, light, 8.0, 1.0, care=kept, opening_px=size)
        blobs(units, 0.5)
for spacing in (12, 40):
    displaced(image, reference.astype(np.float32), np.asfortranarray(care), spacing_px=spacing)
json.dump(compiled.names, sys.stdout)
"""
MODULES = ("blobs", "difference", "displacement", "registration_kernels", "wavelet")
MOST_BESIDE = 20
"""Functions of numba's own that the kernels need, such as those that make arrays"""


def kernels(name: str) -> dict[str, ast.FunctionDef]:
    tree = ast.parse((Path(ops.__file__).parent / f"{name}.py").read_text("utf-8"))
    return {
        node.name: node
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(each) for each in node.decorator_list)
    }


def test_each_kernel_is_compiled_once_whatever_comes(tmp_path):
    fresh = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", RUN], env=fresh, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    compiled = json.loads(done.stdout)
    ours = [name.rpartition(".")[2] for name in compiled if name.startswith("waferlens.")]
    assert sorted(ours) == sorted(set(ours)), "one is compiled for several types"
    expected = {"columns", "lay", "totals", "slopes", "_deviate", "_fold", "_join", "_gathered", "_sampled"}
    assert set(ours) == expected
    assert len(compiled) - len(ours) <= MOST_BESIDE, compiled


@pytest.mark.parametrize("name", MODULES)
def test_kernels_assign_no_arrays(name):
    """One `a[:] = b` brings what words an error of shapes: strings, two seconds of the compiler."""
    found = kernels(name)
    assert found
    for kernel in found.values():
        for node in ast.walk(kernel):
            targets = node.targets if isinstance(node, ast.Assign) else []
            parts = [part for target in targets for part in ast.walk(target) if isinstance(part, ast.Subscript)]
            whole = [ast.unparse(part) for part in parts if any(isinstance(each, ast.Slice) for each in ast.walk(part))]
            assert not whole, f"{name}.{kernel.name}"


@pytest.mark.parametrize("name", ["blobs", "difference", "registration_kernels"])
def test_kernels_call_no_other(name):
    """What is called is compiled once more with each that calls it."""
    found = kernels(name)
    for kernel in found.values():
        called = {
            node.func.id for node in ast.walk(kernel) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert not called & set(found), f"{name}.{kernel.name}"
