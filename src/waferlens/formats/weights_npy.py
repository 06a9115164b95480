"""Weights as `NYU_ResNet-UpProj.npy` holds them: a dict of layers, each a dict of arrays, pickled into a .npy file.

    {"res2a_branch2a": {"weights": h w in out}, "bn2a_branch2a": {"scale", "offset", "mean", "variance"}, ...}

A pickle is a program. NumPy runs it when asked to allow pickles, and a stranger's file could do anything with that.
Here no name that a file asks for is ever looked up: stand-ins that only remember what they were told take the places of
NumPy's own, everything else is refused, and arrays are made afterwards from plain bytes.

Source: the layout is that of caffe-tensorflow (github.com/ethereon/caffe-tensorflow) and of the weights released with
Laina et al. 2016.
"""

from __future__ import annotations

import io
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from waferlens.errors import FormatError, InputError

MAGIC = b"\x93NUMPY"
NUMBERS = {"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"}
"""Types of arrays that are read; `O8` beside them only where it wraps the dict."""


def read_weights_npy(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays by `layer/name`, as `res2a_branch2a/weights`.

    Raises:
        InputError: the file cannot be read.
        FormatError: it is no such file, it is damaged, or its pickle asks for more than dicts and arrays.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as wrong:
        raise InputError(path, f"cannot be read: {wrong.strerror or wrong}") from wrong
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(stream)
    except ValueError as wrong:
        raise FormatError(path, f"not a .npy file: {wrong}") from wrong
    if kind.kind != "O" or math.prod(shape) != 1:
        raise FormatError(path, f"holds an array {shape} of {kind}; expected one pickled dict of layers")
    try:
        content = _Reader(stream).load()
        if isinstance(content, _Array):  # the dict lies in an array of one object
            (content,) = content.objects()
        return dict(_arrays(content))
    except _Refused as wrong:
        raise FormatError(path, f"its pickle {wrong}; it was not run") from wrong
    except Exception as wrong:  # a damaged pickle fails with anything: passed on
        raise FormatError(path, f"a damaged pickle: {type(wrong).__name__}: {wrong}") from wrong


class _Refused(Exception):
    """A pickle asks for what weights do not need."""


class _Type:
    """What a pickle tells of a dtype."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code.decode("ascii") if isinstance(code, bytes) else code
        if self.code not in NUMBERS and self.code not in ("O8", "O"):
            raise _Refused(f"holds an array of type {self.code!r}; weights are numbers")
        self.order = "="

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise _Refused(f"describes a type by {state!r}")
        self.order = state[1]


class _Array:
    """What a pickle tells of an array: nothing is made of it before all of it was checked."""

    shape: tuple[int, ...] = ()
    kind: _Type | None = None
    column_major = False
    content: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise _Refused("describes an array in an unknown way")
        _, shape, kind, column_major, content = state
        whole = isinstance(shape, tuple) and all(isinstance(side, int) and side >= 0 for side in shape)
        if not whole or not isinstance(kind, _Type):
            raise _Refused("describes an array in an unknown way")
        self.shape, self.kind, self.column_major, self.content = shape, kind, bool(column_major), content

    def objects(self) -> list[Any]:
        """The objects of an array that wraps some."""
        if self.kind is None or not self.kind.code.startswith("O") or not isinstance(self.content, list):
            raise _Refused("holds an array where a dict of layers is expected")
        return self.content

    def numbers(self) -> np.ndarray:
        """The array itself."""
        if self.kind is None or self.kind.code not in NUMBERS:
            raise _Refused("holds an array of objects among the weights")
        raw = self.content.encode("latin-1") if isinstance(self.content, str) else self.content  # Python 2 wrote text
        kind = np.dtype(self.kind.order + self.kind.code)
        if not isinstance(raw, bytes) or len(raw) != math.prod(self.shape) * kind.itemsize:
            raise _Refused("holds an array whose bytes do not fit its shape")
        flat = np.frombuffer(raw, kind)
        return flat.reshape(self.shape, order="F" if self.column_major else "C").astype(kind.newbyteorder("="))


def _reconstruct(*_: Any) -> _Array:
    """Stands for NumPy's maker of empty arrays; what it is called with says nothing that the state does not."""
    return _Array()


def _encode(text: Any, coding: Any = "latin1") -> bytes:
    """How Python 3 pickles bytes by the old protocols."""
    if not isinstance(text, str) or coding not in ("latin1", "latin-1"):
        raise _Refused("encodes something that is not bytes")
    return text.encode("latin-1")


STAND_INS: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "dtype"): _Type,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("_codecs", "encode"): _encode,
}
"""All that a pickle of weights names, and what it gets."""


class _Reader(pickle.Unpickler):
    """Reads dicts, lists, text, numbers and the stand-ins."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, encoding="latin1")  # text and bytes are one in what Python 2 wrote

    def find_class(self, module: str, name: str) -> Any:
        wanted = STAND_INS.get((module, name))
        if wanted is None:
            raise _Refused(f"asks for {module}.{name}")
        return wanted


def _arrays(content: Any, within: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if not isinstance(content, dict):
        raise _Refused(f"holds a {type(content).__name__} where a dict of layers is expected")
    for name, part in content.items():
        if not isinstance(name, str):
            raise _Refused(f"names a layer by a {type(name).__name__}")
        key = f"{within}/{name}" if within else name
        if isinstance(part, _Array):
            yield key, part.numbers()
        elif within:
            raise _Refused(f"holds a {type(part).__name__} as {key}; expected an array")
        else:
            yield from _arrays(part, key)
