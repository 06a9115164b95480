"""Engines that run networks on the processor, each as one call that runs a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

import onnxruntime

from waferlens.errors import UsageError
from waferlens.extras import available, missing, require
from waferlens.lab.bench_networks import Network

ENGINES = {"onnxruntime": None, "openvino": "openvino", "torch": "train"}
"""Engine, as its module is called -> the extra that brings it; None for one that is always there."""
Run = Callable[[], Any]
"""Runs one batch."""


def chosen_engines(asked: Sequence[str] | None) -> tuple[list[str], dict[str, str]]:
    """The engines to time in, and why others are not.

    Args:
        asked: Their names; None for all that are installed.

    Returns:
        Names, and the reason of each that is missing.

    Raises:
        UsageError: there is no such engine.
        MissingExtraError: one that was asked for is not installed.
    """
    if asked is None:
        lacking = {name: missing(extra, name) for name, extra in ENGINES.items() if extra and not available(name)}
        return [name for name in ENGINES if name not in lacking], lacking
    for name in asked:
        if name not in ENGINES:
            raise UsageError(f"engine '{name}' is unknown; one of {', '.join(ENGINES)}")
        if extra := ENGINES[name]:
            require(extra, name)
    return list(dict.fromkeys(asked)), {}


def versions(engines: Sequence[str]) -> dict[str, str]:
    """Which of each was timed."""
    return {name: version(name) for name in engines}


@contextmanager
def torch_threads(threads: int, engines: Sequence[str]) -> Iterator[None]:
    """Torch with so many threads, where it is timed, and with what it had afterwards."""
    if "torch" not in engines:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def runner(engine: str, network: Network, batch: int, threads: int) -> Run | None:
    """A network in an engine, ready for batches of one size; None where the engine has no form of it.

    Args:
        engine: One of `ENGINES`.
        network: As opened.
        batch: Images.
        threads: Threads of one call.
    """
    fed = network.fed(batch)
    match engine:
        case "onnxruntime":
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(network.model, options, providers=["CPUExecutionProvider"])
            return lambda: session.run(None, fed)
        case "openvino":
            return _openvino(network, fed, threads)
        case "torch":
            return None if network.module is None else _torch(network.module, fed)
    raise AssertionError(engine)


def _openvino(network: Network, fed: dict[str, Any], threads: int) -> Run:
    """In float32, as the others: OpenVINO's own choice would be bf16 where the processor has it."""
    import openvino

    core = openvino.Core()
    model = core.read_model(network.model)
    model.reshape({name: list(array.shape) for name, array in fed.items()})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer(fed)


def _torch(module: Callable[..., Any], fed: dict[str, Any]) -> Run:
    import torch

    given = [torch.from_numpy(array) for array in fed.values()]

    def run() -> Any:
        with torch.inference_mode():
            return module(*given)

    return run
