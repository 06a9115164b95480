"""A whole lot: chunks through the worker threads, results stored in order, and the run taken up again after any stop.

What makes a kill at any moment harmless: the list of images and its chunks are fixed before the first chunk; a chunk's
maps take their name only when they are whole; its rows come in one transaction, after its maps; tables are made from
the database when all chunks are stored. A chunk is therefore there as a whole or not at all, and resuming does the
missing ones.
"""

from __future__ import annotations

import json
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from waferlens import __version__
from waferlens.bundle.files import Bundle, open_bundle
from waferlens.bundle.verdict import VERDICTS
from waferlens.errors import UsageError
from waferlens.inspect.folder import (
    COCO,
    DATABASE,
    FINDINGS,
    LOG,
    QUARANTINE,
    RESULTS,
    Log,
    make_card,
    make_folder,
    make_plan,
    write_card,
)
from waferlens.inspect.limits import Limit
from waferlens.inspect.plan import Plan
from waferlens.inspect.stations import Work, work_of
from waferlens.store.rows import QUARANTINED, Found, ImageResult, Run

MOST_FOUND = 1000
"""Findings that a result lists; `findings.csv` and `findings.json` of the run hold them all."""


@dataclass(frozen=True, slots=True)
class InspectResult:
    """What became of a lot."""

    out: str
    images: int
    """Images of the lot, the quarantined ones among them."""
    quarantined: int
    seconds: float
    """Of this call; a resumed run counts only what it did."""
    images_per_second: float
    verdicts: dict[str, int]
    """How many `OK`, `review` and `NG`; without limits all are 0 but the images out of domain, which are `review`."""
    resumed_at: int
    """Images that were stored before this call."""
    bundle: str
    findings: int
    """Things found on all images; 0 for stations that look for none."""
    critical_findings: int
    """The critical ones among them."""
    found: tuple[Found, ...]
    """The first of them in the order of the lot, `MOST_FOUND` at most."""
    swaths: tuple[dict[str, Any], ...] = ()
    """Of the wafer station: what was measured on each swath of this call, `MOST_FOUND` at most."""
    devices: tuple[dict[str, Any], ...] = ()
    """Of the package station: what the images of each device tell together, `MOST_FOUND` at most."""
    device_verdicts: dict[str, int] = field(default_factory=dict)
    """Of the package station: how many devices are `OK`, `review` and `NG`."""
    not_written: tuple[dict[str, str], ...] = ()
    """`file` and `reason` of what was asked for and could not be made of this lot."""


def inspect_paths(
    paths: Sequence[str | Path],
    bundle: Bundle | str | Path,
    out: str | Path,
    *,
    limits: Sequence[str | Limit] = (),
    pixel_nm: float | None = None,
    depth_nm_per_grey: float | None = None,
    level: float | None = None,
    reference: str | Path | None = None,
    pair_by: str | None = None,
    tracks: Sequence[str | Path] = (),
    product: str | None = None,
    pitch_um: float | None = None,
    layout: str | Path | None = None,
    objective: str | None = None,
    layer: str | None = None,
    clearance_um: float | None = None,
    height_format: str | None = None,
    device: str | None = None,
    lights: str | None = None,
    klarf: str | Path | None = None,
    e142: str | Path | None = None,
    strip: str | None = None,
    maps: bool = True,
    workers: int = 2,
    chunk: int | None = None,
    fresh: bool = False,
    store: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> InspectResult:
    """Inspects images with a bundle; the same call resumes a run that was interrupted.

    Args:
        paths: files, folders (also in the challenge's layout) or patterns.
        bundle: opened, or a path, or a shipped name.
        out: folder of the run.
        limits: as `depth=110:130nm`; they replace the recipe's own of the same measurand.
        pixel_nm: pixel size; wins over the files' tags, which win over the recipe's [nm]
        depth_nm_per_grey: true depth of one grey value of the depth map; wins over the recipe's [nm]
        level: coverage of the intervals, as the bundle was calibrated for; 0.9 if None.
        reference: a good image, or a folder of them, to compare with instead of what the bundle holds; golden
            recipes only.
        pair_by: `{}_test.jpg:{}_temp.jpg`: how the name of an image gives that of its reference; golden recipes only.
        tracks: stage traces, or labels of `prepare sync`, one a swath in the order of the lot; wafer recipes only.
        product: nominal stack as `310:318,636`: thickness of a die and tops of its levels [um]; wafer recipes only.
        pitch_um: of the images; a simulated set of wafers tells its own; wafer and package recipes only [um]
        layout: table of where each swath lies on the stage; they are then stitched; wafer recipes only.
        objective: for which focus is planned, as `20x`; wafer recipes only.
        layer: what is to be in focus: `top`, `carrier`, `all` or the number of a level; wafer recipes only.
        clearance_um: kept above the upper bound of the highest place; wafer recipes only [um]
        height_format: as `tif,gwy,x3p`; wafer recipes only.
        device: regular expression that finds the device in the path of an image; package recipes only.
        lights: as `bf,dfw`: in which lights a device is to be seen; package recipes only.
        klarf: file the findings are written to as KLARF; package recipes only.
        e142: file the verdicts are written to as a map of a strip; package recipes only.
        strip: as `4x10`: rows and columns of the strip; package recipes only.
        maps: write the height maps, or the overlays of what was found.
        workers: threads; two use two cores.
        chunk: images that are worked on and stored together; as suits the station if None.
        fresh: remove what a former run left in `out` and begin anew.
        store: URL of a database, instead of SQLite in `out`.
        progress: called with the number of images done and their total.

    Raises:
        InputError: nothing to inspect, or a result cannot be written.
        UsageError: an option is wrong, or `out` holds another run.
        BundleError: the bundle cannot be used.
    """
    # here and not above: opening a bundle, asking for help or refusing an option need no database
    from waferlens.store.findings import write_findings_coco, write_findings_csv
    from waferlens.store.results import Store
    from waferlens.store.tables import write_quarantine_csv, write_results_csv

    began = time.perf_counter()
    opened = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
    if workers < 1 or (chunk is not None and chunk < 1):
        raise UsageError(f"workers and chunk must be at least 1, got {workers} and {chunk}")
    out = Path(out)
    # before the folder: an option that is wrong removes no former run
    told_options = {
        "limits": limits,
        "pixel_nm": pixel_nm,
        "depth_nm_per_grey": depth_nm_per_grey,
        "level": level,
        "reference": reference,
        "pair_by": pair_by,
        "tracks": tracks,
        "product": product,
        "pitch_um": pitch_um,
        "layout": layout,
        "objective": objective,
        "layer": layer,
        "clearance_um": clearance_um,
        "height_format": height_format,
        "device": device,
        "lights": lights,
        "klarf": klarf,
        "e142": e142,
        "strip": strip,
    }
    work = work_of(
        opened,
        out,
        maps,
        {name: value for name, value in told_options.items() if value is not None and value != () and value != []},
    )
    chunk = work.chunk if chunk is None else chunk
    make_folder(out, fresh, store)
    options = {**work.options(), "chunk": chunk, "version": __version__}
    plan = make_plan(paths, out, chunk, work.takes)
    work.require(plan)  # before the card: an option that is refused leaves no run behind
    card = make_card(opened, options, plan, paths, out)
    log = Log(out / LOG)
    with closing(log), Store(store if store is not None else out / DATABASE) as database:
        told = card.data
        run = database.begin(
            Run(told["run"], card.started, opened.name, opened.fingerprint, json.dumps(options), __version__)
        )
        done = database.done_chunks(run)
        stored = sum(_size(plan, number) for number in done)
        log(f"{'resumed' if done else 'began'}: {plan.items} images, {stored} stored; bundle {opened.name}")
        if progress is not None:
            progress(stored, plan.items)
        for folder in work.folders:
            (out / folder).mkdir(exist_ok=True)
        missing = [number for number in range(plan.chunks) if number not in done]
        tables = (RESULTS, QUARANTINE, *((FINDINGS, COCO) if work.finds else ()))
        if missing or not all((out / table).exists() for table in tables):
            with closing(_chunks(work, plan, missing, workers)) as finished:
                for results in finished:
                    database.add_chunk(run, results)
                    for result in results:
                        if result.status == QUARANTINED:
                            log(f"quarantined: {result.path} page {result.page}: {result.reason}")
                    stored += len(results)
                    if progress is not None:
                        progress(stored, plan.items)
            write_quarantine_csv(database, run, out / QUARANTINE)
            if work.finds:
                write_findings_csv(database, run, out / FINDINGS)
                write_findings_coco(database, run, out / COCO)
            write_results_csv(database, run, out / RESULTS, work.columns)
        told_last = work.finish(plan, database.images(run))
        devices = told_last.get("devices", [])
        not_written = told_last.get("not_written", [])
        for one in not_written:
            log(f"not written: {one['file']}: {one['reason']}")
        counted = database.counts(run)
        verdicts, quarantined = Counter({"OK": 0, "review": 0, "NG": 0}), 0
        for (status, verdict), count in counted.items():
            if status == QUARANTINED:
                quarantined += count
            elif verdict:
                verdicts[verdict] += count
        findings, critical = database.count_findings(run) if work.finds else (0, 0)
        with closing(database.findings(run)) as every:
            found = tuple(islice(every, MOST_FOUND)) if findings else ()
        seconds = time.perf_counter() - began
        worked = sum(_size(plan, number) for number in missing)
        rate = worked / seconds
        result = InspectResult(
            str(out),
            plan.items,
            quarantined,
            round(seconds, 3),
            round(rate, 1),
            dict(verdicts),
            plan.items - worked,
            opened.name,
            findings,
            critical,
            found,
            tuple(told_last.get("swaths", [])[:MOST_FOUND]),
            tuple(devices[:MOST_FOUND]),
            {verdict: sum(one["verdict"] == verdict for one in devices) for verdict in VERDICTS.values() if devices},
            tuple(not_written),
        )
        log(f"done: {worked} images in {seconds:.1f} s, {rate:.0f}/s; {quarantined} quarantined; {dict(verdicts)}")
    if missing or card.results.get("state") != "done":
        card.results = {"state": "done", "quarantined": quarantined, "verdicts": dict(verdicts)}
        if not_written:
            card.results["not_written"] = not_written
        card.seconds = round(seconds, 3)
        write_card(out, card)
    return result


def _chunks(work: Work, plan: Plan, numbers: Sequence[int], workers: int) -> Iterator[list[ImageResult]]:
    """The results of chunks in order, a few worked on ahead: memory does not grow with the lot."""
    waiting: deque[Future[list[ImageResult]]] = deque()
    # the pool is left by its own `with`: after an interruption, chunks that were begun are finished and dropped
    with ThreadPoolExecutor(workers, thread_name_prefix="inspect") as pool:
        try:
            for number in numbers:
                waiting.append(pool.submit(_one, work, plan, number))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _one(work: Work, plan: Plan, number: int) -> list[ImageResult]:
    return work.results(number, plan.first(number), plan.read(number))


def _size(plan: Plan, number: int) -> int:
    return min(plan.chunk, plan.items - plan.first(number))
