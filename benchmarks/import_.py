"""Speed and memory of the import, beside decoding and encoding alone.

    python benchmarks/import_.py [--gigapixels 1] [--repeats 3]

The demo slide, mirrored until it is large enough, is stored as a BigTIFF in JPEG tiles without a
pyramid. Then, in turns, (a) the import makes an OME-Zarr of it, and (b) one thread decodes the same
blocks and encodes as many chunks as the import stores, of all its levels, without writing or
averaging anything. The ratio b / a of their processor seconds, which other programs on the machine
hardly change, says how much of the import's work nobody can avoid. The memory is the peak
of `tilesegment import` in a process of its own.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from common import SLIDE, run_watched, save_results
from numcodecs import Zstd

from tilesegment.storage.importing import import_image
from tilesegment.storage.importing.detect import open_source
from tilesegment.storage.importing.layout import CHUNK_SIDE, layout
from tilesegment.storage.importing.pyramid import level_sizes
from tilesegment.storage.importing.source import YX, Plane, Window
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


def import_seconds(tiff: Path, folder: Path) -> float:
    """Processor seconds of all threads of an import."""
    started = time.process_time()
    import_image(tiff, folder / "i.zarr", overwrite=True)
    return time.process_time() - started


def decode_and_encode(tiff: Path) -> float:
    """Processor seconds for what no import can do without."""
    with open_source(tiff) as source:
        shape = source.info.shape
        finest = layout(shape, is_colour=True)
        decoding = encoding = 0.0
        for block in finest.blocks():
            started = time.process_time()
            pixels = source.read(block.plane, block.window)
            decoded = time.process_time()
            _encode(np.ascontiguousarray(pixels))
            decoding += decoded - started
            encoding += time.process_time() - decoded
    sizes = [size.y * size.x for size in level_sizes(YX(shape.y, shape.x))]
    # Coarser levels are encoded too, and compress about as the finest one does.
    return decoding + encoding * sum(sizes) / sizes[0]


def _encode(pixels: np.ndarray) -> None:
    codec = Zstd(level=3, checksum=True)
    for top in range(0, pixels.shape[1], CHUNK_SIDE):
        for left in range(0, pixels.shape[2], CHUNK_SIDE):
            chunk = pixels[:, top : top + CHUNK_SIDE, left : left + CHUNK_SIDE]
            codec.encode(np.ascontiguousarray(chunk))


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
        imports, floors = [], []
        for _ in range(arguments.repeats):
            imports.append(import_seconds(tiff, folder))
            floors.append(decode_and_encode(tiff))
        _, peaks = run_watched("import", tiff, folder / "i.zarr", "--overwrite")
    ratios = [floor / seconds for floor, seconds in zip(floors, imports, strict=True)]
    found = {
        "gigapixels": arguments.gigapixels,
        "import_processor_seconds": statistics.median(imports),
        "decode_and_encode_processor_seconds": statistics.median(floors),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
        "peak_mebibytes": peaks["driver_mib"],
    }
    print(json.dumps(found, indent=2))
    save_results("import", found)


if __name__ == "__main__":
    main()
