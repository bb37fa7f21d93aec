"""Random SIGKILL and SIGSTOP on drivers and workers, two drivers at once, and a reader that looks.

    python -m tests.chaos.storm --kills 300                  drivers and workers without dask
    python -m tests.chaos.storm --kills 300 --noisy          a model that never repeats itself
    python -m tests.chaos.storm --kills 30 --commands        `tilesegment run`, with dask

Without dask a driver uses the same ledger, objects and publishing as `tilesegment run`, and forks
its workers, so that a kill costs milliseconds. Workers outlive their driver: they are
the late writers. With dask the driver's process holds the scheduler too.

Prints one JSON object: rounds, kills, stops, wrong outputs, sightings of unfinished labels, and
executions against their bound.
"""

import argparse
import json
import multiprocessing
import os
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil
import zarr

from tilesegment.config import RunOptions
from tilesegment.errors import TilesegmentError
from tilesegment.model.file import METADATA_KEY
from tilesegment.model.opening import open_model
from tilesegment.storage.labels import LabelVolume, levels_to_derive
from tilesegment.storage.ledger import Ledger, TileRecord, read_records, record_line
from tilesegment.storage.pyramid import pool_by_mode
from tilesegment.usecases.deep import check_objects
from tilesegment.usecases.job import Job, prepare_job
from tilesegment.usecases.labelling import announce, publish

SIDE = 32 * 8
TILE = 32
LEVELS = 3
BATCH = 4
"""Tiles that a worker without dask is given at once."""
WORKERS = 2
SECONDS_OF_A_TILE = 0.005
LIVES_PER_RUN = 6
"""How often something is killed or frozen in the time that a calm run takes."""


class Driver(Protocol):
    """A process that was started here."""

    pid: int

    def is_alive(self) -> bool: ...


@dataclass
class Findings:
    """What the storm has done, and what it has found."""

    rounds: int = 0
    kills: int = 0
    killed_drivers: int = 0
    stops: int = 0
    take_overs: int = 0
    tiles: int = 0
    executions: int = 0
    executions_bound: int = 0
    looks: int = 0
    unfinished_sightings: int = 0
    wrong_outputs: int = 0

    @property
    def bound_at_95_percent(self) -> float | None:
        """The rule of three: chance of a wrong output per kill, if none was seen."""
        return None if self.wrong_outputs or not self.kills else round(3 / self.kills, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--noisy", action="store_true")
    parser.add_argument("--commands", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        findings = storm(
            Path(folder), arguments.kills, arguments.seconds, arguments.seed,
            noisy=arguments.noisy, commands=arguments.commands,
        )  # fmt: skip
    json.dump({**asdict(findings), "bound": findings.bound_at_95_percent}, sys.stdout, indent=2)


def storm(
    folder: Path, kills: int, seconds: float, seed: int, *, noisy: bool, commands: bool
) -> Findings:
    """Rounds of one label image each, until there were enough kills or the time is over."""
    chance = random.Random(seed)
    image = _write_image(folder / "i.zarr")
    model = _write_network(folder) if commands else _write_model(folder)
    findings, deadline = Findings(), time.monotonic() + seconds
    began = time.monotonic()
    calm = _calm(image, model, commands)
    mean_life = (time.monotonic() - began) / LIVES_PER_RUN
    golden = None if noisy else calm
    while findings.kills < kills and time.monotonic() < deadline:
        name = f"round{findings.rounds}"
        log = folder / f"{name}.executions"
        log.touch()
        starter = _command if commands else _fork
        start = starter(image, model, name, log, noisy)
        with _reader(image / "labels" / name, golden, findings):
            _round(start, chance, findings, mean_life, deadline)
        findings.rounds += 1
        findings.tiles += (SIDE // TILE) ** 2
        findings.executions += len(log.read_text().splitlines())
        findings.wrong_outputs += not _is_right(image / "labels" / name, golden)
    in_flight = 2 * WORKERS * BATCH
    events = findings.kills + findings.stops + findings.take_overs
    findings.executions_bound = findings.tiles + events * in_flight
    return findings


def _round(
    start: Callable[[bool], Driver],
    chance: random.Random,
    findings: Findings,
    mean_life: float,
    deadline: float,
) -> None:
    """Start drivers and kill what is there, until the labels are finished."""
    drivers = [start(False)]
    while True:
        time.sleep(chance.expovariate(1 / mean_life))
        alive = [driver for driver in drivers if driver.is_alive()]
        if any(_succeeded(driver) for driver in drivers):
            break
        if not alive or (len(alive) == 1 and chance.random() < 0.1):
            findings.take_overs += bool(alive)
            drivers.append(start(bool(alive)))
            continue
        if time.monotonic() < deadline:
            _strike(chance.choice(alive), chance, findings)
    for driver in drivers:
        _end(driver)


def _succeeded(driver: Any) -> bool:
    return not driver.is_alive() and driver.exitcode == 0


def _strike(driver: Driver, chance: random.Random, findings: Findings) -> None:
    """Kill the driver or one of its workers, or freeze it for a while."""
    try:
        process = psutil.Process(driver.pid)
        victims = [process, *(child for child in process.children(recursive=True))]
        victim = chance.choice(victims)
        if chance.random() < 0.25:
            findings.stops += 1
            victim.suspend()
            threading.Timer(chance.uniform(0.1, 1.5), _wake, [victim]).start()
        else:
            victim.kill()
            findings.kills += 1
            findings.killed_drivers += victim.pid == driver.pid
    except psutil.NoSuchProcess:
        return


def _wake(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.resume()


def _end(driver: Driver) -> None:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(driver.pid)
        for item in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                item.kill()


# The reader and the referee.


@contextmanager
def _reader(labels: Path, golden: list[np.ndarray] | None, findings: Findings) -> Iterator[None]:
    """A thread that opens the labels all the time: they are not there, or whole."""
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            findings.looks += 1
            try:
                group = zarr.open_group(labels, mode="r")
            except (FileNotFoundError, KeyError, zarr.errors.GroupNotFoundError):
                stop.wait(0.01)
                continue
            findings.unfinished_sightings += not _is_whole(group, golden)
            stop.wait(0.2)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _is_whole(group: zarr.Group, golden: list[np.ndarray] | None) -> bool:
    levels = [group[str(level)][...] for level in range(LEVELS)]
    if golden is not None:
        return all(
            np.array_equal(level, right) for level, right in zip(levels, golden, strict=True)
        )
    # 0 is no label of the noisy network: a lost chunk would show.
    derived = all(
        np.array_equal(levels[number + 1], pool_by_mode(levels[number], (2, 2)))
        for number in range(LEVELS - 1)
    )
    return derived and bool(levels[0].all())


def _is_right(labels: Path, golden: list[np.ndarray] | None) -> bool:
    return (
        _is_whole(zarr.open_group(labels, mode="r"), golden) and not check_objects(labels).damaged
    )


# A driver without dask.


def _write_image(path: Path) -> Path:
    """A noisy image; written here because tests.pictures would load torch into each driver."""
    pixels = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE), np.uint8)
    group = zarr.create_group(path)
    datasets = []
    for level in range(LEVELS):
        step = 2**level
        part = pixels[::step, ::step]
        array = group.create_array(str(level), shape=part.shape, dtype="uint8", chunks=(64, 64))
        array[...] = part
        transform = {"type": "scale", "scale": [float(step), float(step)]}
        datasets.append({"path": str(level), "coordinateTransformations": [transform]})
    axes = [{"name": name, "type": "space"} for name in "yx"]
    multiscale = {"axes": axes, "datasets": datasets}
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return path


def _write_model(folder: Path) -> Path:
    """A model file without weights: only its description is read."""
    description = {
        "format": 1,
        "architecture": "unet",
        "arguments": {"in_channels": 1, "classes": 3, "base_channels": 4, "depth": 2},
        "classes": [
            {"name": f"class {value}", "value": value, "colour": [value, 0, 0]}
            for value in range(3)
        ],
        "normalisation": {"mean": [0.0], "deviation": [1.0]},
        "pixel_size_um": None,
        "training": {},
    }
    header = json.dumps({"__metadata__": {METADATA_KEY: json.dumps(description)}}).encode()
    path = folder / "model.safetensors"
    # As large as the network would be at least.
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4096))
    return path


def _write_network(folder: Path) -> Path:
    import torch

    from tests.pictures import balanced
    from tilesegment.model.file import save_model
    from tilesegment.model.unet import UNet

    torch.manual_seed(0)
    network = balanced(UNet(1, 3, base_channels=4, depth=2))
    return save_model(network, folder / "model.safetensors")


def _calm(image: Path, model: Path, commands: bool) -> list[np.ndarray]:
    """The labels of a calm run."""
    log = image.with_name("calm.executions")
    start = (_command if commands else _fork)(image, model, "calm", log, False)
    driver = start(False)
    while driver.is_alive():
        time.sleep(0.05)
    group = zarr.open_group(image / "labels" / "calm", mode="r")
    return [group[str(level)][...] for level in range(LEVELS)]


def _fork(
    image: Path, model: Path, name: str, log: Path, noisy: bool
) -> Callable[[bool], multiprocessing.process.BaseProcess]:
    context = multiprocessing.get_context("fork")

    def start(take_over: bool) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=_drive, args=(image, model, name, log, noisy, take_over))
        process.start()
        return process

    return start


def _drive(image: Path, model: Path, name: str, log: Path, noisy: bool, take_over: bool) -> None:
    """What `segment` does, with forked workers."""
    try:
        job = prepare_job(image, open_model(model), name, None, RunOptions(tile=TILE))
        if (job.directory / "zarr.json").exists():
            return
        with Ledger(job.directory, {"run": name}, take_over=take_over) as ledger:
            _fill(job, ledger, log, noisy)
            summary = {"summary": {}, "fingerprint": {"run": name}}
            publish(job, job.volume, ledger, summary)
            ledger.remove()
        announce(job)
    except TilesegmentError:
        os._exit(1)


def _fill(job: Job, ledger: Ledger, log: Path, noisy: bool) -> None:
    volume = job.volume
    for level, neighbour in [(0, -1), *levels_to_derive(LEVELS, 0)]:
        while missing := _missing(volume, level, ledger):
            batches = [missing[index::WORKERS][:BATCH] for index in range(WORKERS)]
            pipes = [
                _worker(volume, level, neighbour, batch, log, noisy) for batch in batches if batch
            ]
            for pipe in pipes:
                for record in _received(pipe):
                    ledger.add(record)
            ledger.flush()


def _missing(volume: LabelVolume, level: int, ledger: Ledger) -> list[int]:
    done = ledger.finished(level)
    return [number for number in range(len(volume.grid(level, TILE))) if number not in done]


def _worker(
    volume: LabelVolume, level: int, neighbour: int, numbers: list[int], log: Path, noisy: bool
) -> int:
    """Fork a worker; returns the end of the pipe that its records come out of."""
    read, write = os.pipe()
    if os.fork():
        os.close(write)
        return read
    os.close(read)
    code = 1
    try:
        for number in numbers:
            record = _compute(volume, level, neighbour, number, log, noisy)
            os.write(write, record_line(record).encode())
        code = 0
    finally:
        os._exit(code)


def _compute(
    volume: LabelVolume, level: int, neighbour: int, number: int, log: Path, noisy: bool
) -> TileRecord:
    grid = volume.grid(level, TILE)
    tile = grid.tile_at(number)
    window = grid.write_window(tile)
    if level:
        return TileRecord(
            number, (), level, volume.derive(level, neighbour, tile.plane, window).objects
        )
    with log.open("a") as file:
        file.write(f"{number}\n")
    time.sleep(SECONDS_OF_A_TILE)
    seed = None if noisy else number
    labels = np.random.default_rng(seed).integers(1, 3, (window.height, window.width), np.uint8)
    written = volume.write(0, tile.plane, window, labels)
    return TileRecord(number, tuple(np.bincount(written.labels.ravel(), minlength=3)[:3].tolist()),
                      0, written.objects)  # fmt: skip


def _received(pipe: int) -> Iterator[TileRecord]:
    """The records that a worker could tell before it ended."""
    with os.fdopen(pipe, "rb") as file, tempfile.NamedTemporaryFile() as copy:
        copy.write(file.read())
        copy.flush()
        yield from read_records(Path(copy.name))
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


# The command, with dask.


class _Command:
    """`tilesegment run` as a driver."""

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(
            words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self.pid = self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    @property
    def exitcode(self) -> int | None:
        return self._process.poll()


def _command(
    image: Path, model: Path, name: str, log: Path, noisy: bool
) -> Callable[[bool], _Command]:
    """Noise is for drivers without dask; executions are counted by the ledger's records."""
    program = Path(sys.executable).with_name("tilesegment")
    words = [program, "run", image, "--model", model, "--labels", name, "--tile", TILE,
             "--workers", WORKERS, "--precision", "float32"]  # fmt: skip

    def start(take_over: bool) -> _Command:
        return _Command([*map(str, words), *(["--take-over"] if take_over else [])])

    return start


if __name__ == "__main__":
    main()
