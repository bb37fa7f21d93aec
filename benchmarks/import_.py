"""Speed and memory of the import, beside decoding and encoding alone.

    python benchmarks/import_.py [--gigapixels 1] [--repeats 3]

The demo slide, mirrored until it is large enough, is stored as a tiled JPEG pyramid-less BigTIFF.
Then, in turns, (a) `tilesegment import` makes an OME-Zarr of it, in a process of its own whose
high-water mark of resident memory is read, and (b) the same threads decode the same blocks and
encode as many chunks as the import stores, of all its levels, without writing or averaging
anything. The ratio b / a says how much of the import's time is work that nobody can avoid. Its
median counts: on a machine that others use, times alone say little.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tifffile
from common import SLIDE, save_results
from memory import peak_bytes
from numcodecs import Zstd
from psutil import Process

from tilesegment.storage.importing.detect import open_source
from tilesegment.storage.importing.layout import CHUNK_SIDE, Block, layout
from tilesegment.storage.importing.pyramid import level_sizes
from tilesegment.storage.importing.source import YX, Plane, Source, Window
from tilesegment.tiling import mirrored_positions

_TILE = 512


def mirrored_tiff(path: Path, side: int) -> Path:
    """A square BigTIFF in JPEG tiles, as slides are."""
    with open_source(SLIDE) as source:
        height, width = source.info.shape[-2:]
        picture = source.read(Plane(0, 0), Window.at(0, 0, height, width)).transpose(1, 2, 0)

    def tiles() -> Iterator[np.ndarray]:
        for top in range(0, side, _TILE):
            rows = mirrored_positions(top, top + _TILE, picture.shape[0])
            for left in range(0, side, _TILE):
                columns = mirrored_positions(left, left + _TILE, picture.shape[1])
                yield np.ascontiguousarray(picture[rows[:, None], columns[None, :]])

    tifffile.imwrite(
        path, tiles(), shape=(side, side, 3), dtype="uint8", tile=(_TILE, _TILE), bigtiff=True,
        photometric="rgb", compression="jpeg", compressionargs={"level": 85},
    )  # fmt: skip
    return path


def import_once(tiff: Path, folder: Path) -> tuple[float, int]:
    """Seconds that the import says, and its peak memory in bytes."""
    command = [
        Path(sys.executable).with_name("tilesegment"), "import", tiff, folder / "i.zarr",
        "--overwrite", "--json",
    ]  # fmt: skip
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    peak = 0
    while running.poll() is None:
        peak = max(peak, peak_bytes(Process(running.pid)))
        time.sleep(0.05)
    assert running.stdout is not None
    return json.loads(running.stdout.read())["seconds"], peak


def decode_and_encode(tiff: Path) -> float:
    """Seconds for what no import can do without."""
    with open_source(tiff) as source:
        shape = source.info.shape
        finest = layout(shape, is_colour=True)
        started = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chunks = sum(pool.map(lambda block: _encode(source, block), finest.blocks()))
        seconds = time.perf_counter() - started
    pixels = [size.y * size.x for size in level_sizes(YX(shape.y, shape.x))]
    # Coarser levels are encoded too, and compress as the finest one does.
    return seconds + _encoding_share(tiff) * seconds * (sum(pixels) / pixels[0] - 1) * bool(chunks)


def _encode(source: Source, block: Block) -> int:
    pixels = np.ascontiguousarray(source.read(block.plane, block.window))
    codec, chunks = Zstd(level=3, checksum=True), 0
    for top in range(0, pixels.shape[1], CHUNK_SIDE):
        for left in range(0, pixels.shape[2], CHUNK_SIDE):
            chunk = pixels[:, top : top + CHUNK_SIDE, left : left + CHUNK_SIDE]
            codec.encode(np.ascontiguousarray(chunk))
            chunks += 1
    return chunks


def _encoding_share(tiff: Path) -> float:
    """Of the time for one block, that which encodes."""
    with open_source(tiff) as source:
        block = next(layout(source.info.shape, is_colour=True).blocks())
        started = time.thread_time()
        source.read(block.plane, block.window)
        decoded = time.thread_time()
        _encode(source, block)
        both = time.thread_time() - decoded
        return 1 - (decoded - started) / both


def main() -> None:
    """Import and its unavoidable part in turns; print and keep the medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gigapixels", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        side = round((arguments.gigapixels * 1e9) ** 0.5)
        tiff = mirrored_tiff(folder / "it.tif", side)
        imports, floors, peaks = [], [], []
        for _ in range(arguments.repeats):
            seconds, peak = import_once(tiff, folder)
            imports.append(seconds)
            peaks.append(peak)
            floors.append(decode_and_encode(tiff))
    ratios = [floor / seconds for floor, seconds in zip(floors, imports, strict=True)]
    found = {
        "gigapixels": arguments.gigapixels,
        "import_seconds": statistics.median(imports),
        "decode_and_encode_seconds": statistics.median(floors),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "peak_mebibytes": max(peaks) / 2**20,
    }
    print(json.dumps(found, indent=2))
    save_results("import", found)


if __name__ == "__main__":
    main()
