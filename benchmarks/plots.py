"""The pictures of docs/performance.md, from the results that the benchmarks have written.

python benchmarks/plots.py
"""

import json
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
from common import RESULTS, ROOT
from matplotlib.axes import Axes

IMAGES = ROOT / "docs" / "images"
COLOURS = {"float32": "#4c72b0", "bfloat16": "#55a868", "int8": "#c44e52", "others": "#8c8c8c"}
FEEDS = {"overlap": ("o-", "map_overlap"), "tile": ("s-", "one task per tile")}


def results(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return found


def draw_roofline(axes: Axes) -> None:
    """Each convolution below what memory and arithmetic allow (Williams et al. 2009)."""
    found = results("roofline")
    bandwidth = found["gigabytes_per_second"]
    for precision, peak in found["peak_gop_s"].items():
        colour = COLOURS[precision]
        intensities = [1, peak / bandwidth, 2**13]
        roof = [min(peak, bandwidth * intensity) for intensity in intensities]
        axes.loglog(intensities, roof, color=colour, label=f"{precision}: at most {peak} Gop/s")
        for row in (row for row in found["rows"] if row["precision"] == precision):
            x = [layer["operations_per_byte"] for layer in row["layers"]]
            y = [layer["gop_s"] for layer in row["layers"]]
            # The share of the time that a layer takes is its mark's area.
            sizes = [600 * layer["share_of_time"] for layer in row["layers"]]
            filled = colour if row["base_channels"] == 16 else "none"
            axes.scatter(x, y, sizes, facecolors=filled, edgecolors=colour, alpha=0.7)
    axes.set_xlabel("operations per byte of input and output")
    axes.set_ylabel("Gop/s")
    axes.set_title("Convolutions of 16 (filled) and 64 base channels; area: share of the time")
    axes.legend(loc="lower right")


def draw_rivals(axes: Axes) -> None:
    """Megapixels per second of each tool, and its labels that differ."""
    found = results("rivals_large")
    megapixels = found["side"] ** 2 / 1e6
    rows = [row for row in reversed(found["rows"]) if row["seconds"] < 1000 * megapixels]
    for place, row in enumerate(rows):
        own = row["tool"].removeprefix("tilesegment, ")
        speed = megapixels / row["seconds"]
        axes.barh(place, speed, color=COLOURS.get(own, COLOURS["others"]))
        differing = f"{100 * row['share']:.2f} %" if row["share"] > 1e-5 else str(row["differing"])
        axes.text(speed, place, f"  {speed:.2f}, differing labels: {differing}", va="center")
    axes.set_yticks(range(len(rows)), [row["tool"] for row in rows])
    axes.set_xlim(0, 1.35 * max(megapixels / row["seconds"] for row in rows))
    axes.set_xlabel("megapixels per second")
    axes.set_title(f"One picture of {found['side']} x {found['side']}, the same weights")


def draw_workers(axes: Axes) -> None:
    """The share of the ideal speed, over the number of workers."""
    found = results("scheduling")
    for feed, (mark, label) in FEEDS.items():
        rows = [row for row in found["rows"] if row["feed"] == feed]
        workers = [row["workers"] for row in rows]
        axes.plot(workers, [row["efficiency"] for row in rows], mark, label=label)
    axes.set_xscale("log", base=2)
    axes.set_xticks(workers, [str(count) for count in workers])
    axes.set_ylim(0, 1.05)
    axes.set_xlabel(f"simulated workers, {found['seconds_per_tile']:g} s per tile")
    axes.set_ylabel("share of the ideal speed")
    axes.set_title("One scheduler, two cores for it and all workers")
    axes.legend()


def draw_memory(axes: Axes) -> None:
    """Peak memory over the size of the image."""
    rows = results("growth")["rows"]
    gigapixels = [row["gigapixels"] for row in rows]
    for name, label in (("planned_worker_mib", "worker, planned"), ("worker_mib", "worker"),
                        ("driver_mib", "driver")):  # fmt: skip
        style = ":" if "planned" in name else "o-"
        axes.semilogx(gigapixels, [row[name] for row in rows], style, label=label)
    axes.set_ylim(0, None)
    axes.set_xlabel("gigapixels")
    axes.set_ylabel("MiB, peak")
    axes.set_title("Memory of a network of 4 channels, tiles of 1024")
    axes.legend()


DRAWN: dict[str, tuple[Callable[[Axes], None], tuple[float, float]]] = {
    "roofline": (draw_roofline, (8, 5)),
    "rivals": (draw_rivals, (9, 4.5)),
    "workers": (draw_workers, (6, 3.5)),
    "memory": (draw_memory, (6, 3.5)),
}


def main() -> None:
    """Draw them into docs/images."""
    for name, (draw, size) in DRAWN.items():
        figure, axes = plt.subplots(figsize=size, layout="constrained")
        draw(axes)
        figure.savefig(IMAGES / f"{name}.png", dpi=110)
        plt.close(figure)


if __name__ == "__main__":
    main()
