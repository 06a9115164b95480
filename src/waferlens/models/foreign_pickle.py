"""Tensors out of a file that holds whole pickled modules, without running a word of it.

Detectors are often published as pickled modules: `{"model": DetectionModel(...), "epoch": -1, ...}` in the zip that
`torch.save` writes. A pickle is a program; unpickling it imports and calls what it names. Here no name is ever looked
up. Tensors, parameters and plain containers have makers of ours; every class is an inert stand-in that keeps the state
it was given and can do nothing; calling anything else is refused, for weights need no calls.

What the makers take is checked before memory is spent: a tensor lies within its storage and is no larger.

Source: layout of torch.save (torch.serialization, version 3 of its zip) and of pickles (PEP 307, PEP 3154).
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from waferlens.errors import FormatError

MOST_PARTS = 100_000
"""Modules and tensors of a network beyond which a file is not believed; pickles may refer to one part many times."""
DEEPEST = 64
"""Modules within modules beyond which a file is not believed."""
KINDS = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
"""Storages by their names in torch."""
HARMLESS = {
    ("numpy.core.multiarray", "scalar"), ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "dtype"), ("_codecs", "encode"), ("torch", "device"), ("datetime", "datetime"),
    ("pathlib", "PosixPath"), ("pathlib", "WindowsPath"),
}  # fmt: skip
"""What bookkeeping beside the weights calls (best score, date, folder); its results are never used, nor made."""


class _Refused(Exception):
    """A pickle asks for what weights do not need."""


class _Maker:
    """One of our own functions under a name of the file; it cannot be given a state."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *told: Any) -> Any:
        return self.make(*told)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("changes a function")


class _Held:
    """A tensor while its pickle is read, so that no pickle reaches a method of it."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __setstate__(self, state: Any) -> None:
        raise _Refused("changes a tensor behind its maker")


class _Uncalled(type):
    """Classes whose instances a pickle may lay out but not make by a call."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        raise _Refused(f"asks for {cls.__module__}.{cls.__qualname__}")


class Inert(metaclass=_Uncalled):
    """Stands for an object of any class: it keeps what the pickle told of it."""

    state: Any
    parts: dict[Any, Any]

    def __new__(cls, *_: Any, **__: Any) -> Inert:
        made = object.__new__(cls)
        made.state, made.parts = {}, {}
        return made

    def __setstate__(self, state: Any) -> None:
        # Objects with slots tell two states; modules never do.
        self.state = state if isinstance(state, dict) else {}

    def __setitem__(self, key: Any, value: Any) -> None:
        self.parts[key] = value

    def append(self, _: Any) -> None:
        """A list of a class of its own: its members are bookkeeping."""

    def extend(self, _: Any) -> None:
        """The same."""


class _Ordered(dict[Any, Any]):
    """An OrderedDict; what is pickled beside its members (`_metadata` of a state dict) is dropped."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        """Drops it."""


def _inert(module: str, name: str) -> type:
    return _Uncalled(name, (Inert,), {"__module__": module, "__qualname__": name})


class _Reader(pickle.Unpickler):
    """Reads the pickle of one archive."""

    def __init__(self, stream: io.BytesIO, storage: Callable[[str, torch.dtype], Tensor]) -> None:
        super().__init__(stream, encoding="latin1")
        self._storage = storage
        self._known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _Maker(_ordered),
            ("collections", "defaultdict"): _Maker(_empty),
            ("builtins", "set"): _Maker(_plain_set),
            ("__builtin__", "set"): _Maker(_plain_set),
            ("torch", "Size"): _Maker(_plain_tuple),
            ("torch._utils", "_rebuild_tensor"): _Maker(_tensor),
            ("torch._utils", "_rebuild_tensor_v2"): _Maker(_tensor),
            ("torch._utils", "_rebuild_parameter"): _Maker(_parameter),
            ("torch._utils", "_rebuild_parameter_with_state"): _Maker(_parameter),
            ("copyreg", "_reconstructor"): _Maker(_reconstructed),
            ("copy_reg", "_reconstructor"): _Maker(_reconstructed),
            **{("torch", name): kind for name, kind in KINDS.items()},
            **{key: _Maker(_harmless) for key in HARMLESS},
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._known:
            self._known[module, name] = _inert(module, name)
        return self._known[module, name]

    def persistent_load(self, told: Any) -> _Held:
        match told:
            case ("storage", torch.dtype() as kind, str(key), *_):
                return _Held(self._storage(key, kind))
        raise _Refused(f"refers to {str(told)[:60]} where a storage is expected")


def _ordered(pairs: Any = ()) -> _Ordered:
    if not isinstance(pairs, list | tuple) or not all(isinstance(one, list | tuple) and len(one) == 2 for one in pairs):
        raise _Refused("makes a dict of something else than pairs")
    return _Ordered(pairs)


def _empty(*_: Any) -> _Ordered:
    return _Ordered()


def _plain_set(members: Any = ()) -> set[Any]:
    if not isinstance(members, list | tuple):
        raise _Refused("makes a set of something else than a list")
    return set(members)


def _plain_tuple(members: Any = ()) -> tuple[Any, ...]:
    if not isinstance(members, list | tuple):
        raise _Refused("makes a shape of something else than a tuple")
    return tuple(members)


def _tensor(held: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _Held:
    whole = all(
        isinstance(sides, tuple) and all(isinstance(side, int) and side >= 0 for side in sides)
        for sides in (shape, stride, (offset,))
    )
    if not isinstance(held, _Held) or not whole or len(shape) != len(stride):
        raise _Refused("describes a tensor in an unknown way")
    storage = held.tensor
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=True))
    if math.prod(shape) and (last >= storage.numel() or math.prod(shape) > storage.numel()):
        raise _Refused("holds a tensor that is larger than its storage")
    if not math.prod(shape):
        return _Held(torch.zeros(shape, dtype=storage.dtype))
    return _Held(storage.as_strided(shape, stride, offset))


def _parameter(data: Any, *_: Any) -> _Held:
    if not isinstance(data, _Held):
        raise _Refused("describes a parameter in an unknown way")
    return data


def _reconstructed(kind: Any, *_: Any) -> Any:
    """How objects are laid out by the old protocols."""
    if not isinstance(kind, _Uncalled):
        raise _Refused("lays out an object of no class")
    return kind.__new__(kind)


def _harmless(*_: Any) -> Inert:
    return Inert.__new__(Inert)


def read_foreign_pickle(path: Path) -> Any:
    """What a file of `torch.save` holds: tensors, plain containers, and `Inert` in place of all other objects.

    Raises:
        FormatError: it is no such file, it is damaged, or it asks for more than that; nothing of it was run.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            inner = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
            if len(inner) != 1:
                raise FormatError(path, "not a file of weights: it holds no data.pkl as torch.save writes it")
            at = inner[0].removesuffix("data.pkl")
            names = set(archive.namelist())
            if f"{at}constants.pkl" in names:
                raise FormatError(path, "holds a compiled network (TorchScript), which is code; it was not run")
            if f"{at}byteorder" in names and _stored(archive, f"{at}byteorder") != b"little":
                raise FormatError(path, "was written on a big-endian machine; save it again on another")
            storages: dict[tuple[str, torch.dtype], Tensor] = {}

            def storage(key: str, kind: torch.dtype) -> Tensor:
                if (key, kind) not in storages:
                    name = f"{at}data/{key}"
                    if name not in names:
                        raise _Refused(f"refers to {name}, which the file lacks")
                    raw = bytearray(_stored(archive, name))
                    if len(raw) % kind.itemsize:
                        raise _Refused(f"refers to {name}, whose {len(raw)} bytes are no whole numbers")
                    storages[key, kind] = torch.frombuffer(raw, dtype=kind) if raw else torch.zeros(0, dtype=kind)
                return storages[key, kind]

            program = _stored(archive, inner[0])
            _check_memory(program)
            return _Reader(io.BytesIO(program), storage).load()
    except FormatError:
        raise
    except _Refused as wrong:
        raise FormatError(path, f"its pickle {wrong}; it was not run") from wrong
    except Exception as wrong:  # a damaged archive fails with anything: passed on
        raise FormatError(path, f"a damaged file of weights: {type(wrong).__name__}: {wrong}") from wrong


def _check_memory(program: bytes) -> None:
    """A pickle numbers what it will refer to again; a number far beyond its own length asks for memory alone."""
    for opcode, told, _ in pickletools.genops(program):
        if "PUT" in opcode.name and not 0 <= int(told) <= len(program):  # type: ignore[arg-type]
            raise _Refused(f"numbers a part {told}, beyond its own length")


def _stored(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:  # torch compresses nothing; a bomb does
        raise _Refused(f"stands in an archive that compresses {name}, as torch.save never does")
    return archive.read(name)


def state_dict_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The tensors by name that a file is about, whatever a training script put around them.

    Args:
        content: As `read_foreign_pickle` returns it: a state dict, a module, or a dict that holds one of them as `ema`
            (the running mean, where one was kept), `model` or `state_dict`.
        path: Named in errors.

    Raises:
        FormatError: there is neither a state dict nor a network in it.
    """
    if isinstance(content, dict):
        for wrapping in ("ema", "state_dict", "model"):
            if isinstance(content.get(wrapping), dict | Inert):
                content = content[wrapping]
                break
    if isinstance(content, Inert):
        state = module_state(content, path)
    elif isinstance(content, dict) and all(isinstance(value, _Held | Tensor) for value in content.values()):
        state = {str(name): value.tensor if isinstance(value, _Held) else value for name, value in content.items()}
    else:
        state = {}
    if not state:
        raise FormatError(path, "holds no state dict: expected tensors by name, or a network of them")
    return state


def module_state(module: Inert, path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a pickled module by their dotted names, as its `state_dict` would name them.

    Raises:
        FormatError: it is no network, or one of more parts than a network has.
    """
    state: dict[str, Tensor] = {}
    for count, (name, tensor) in enumerate(_members(module, "")):
        if count > MOST_PARTS or name.count(".") > DEEPEST:
            raise FormatError(path, f"its network has over {MOST_PARTS} parts or is nested {DEEPEST} deep")
        if tensor is not None:
            state[name] = tensor
    return state


def _members(module: Inert, at: str) -> Iterator[tuple[str, Tensor | None]]:
    yield at, None  # counted, so that parts without tensors come to an end too
    hidden = module.state.get("_non_persistent_buffers_set")
    for group in ("_parameters", "_buffers"):
        for name, value in _named(module.state.get(group)):
            if isinstance(value, _Held) and not (group == "_buffers" and isinstance(hidden, set) and name in hidden):
                yield f"{at}{name}", value.tensor
    for name, part in _named(module.state.get("_modules")):
        if isinstance(part, Inert):
            yield from _members(part, f"{at}{name}.")


def _named(group: Any) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in group.items() if isinstance(name, str)] if isinstance(group, dict) else []
