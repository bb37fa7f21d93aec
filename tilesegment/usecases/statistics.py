"""Numbers of the whole image that a network's input is normalised with, before its first tile."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from tilesegment.model.opening import Model
from tilesegment.model.preprocessing import Scale, measure_scales
from tilesegment.storage.image import MirroredPixels

if TYPE_CHECKING:
    from distributed import Client

FIELD = "statistics"
"""In a run's fingerprint."""


def with_statistics(model: Model, stored: Sequence[Mapping[str, Any]]) -> Model:
    """The model, normalising with the numbers in the fingerprint of a run."""
    scales = [Scale(tuple(item["centre"]), tuple(item["spread"])) for item in stored]
    return replace(model, description=model.description.with_scales(scales))


def stored_statistics(
    earlier: Mapping[str, Any] | None, fingerprint: Mapping[str, Any]
) -> list[dict[str, Any]] | None:
    """The numbers that an earlier run of the same image and model has measured.

    Args:
        earlier: its fingerprint, if there was one.
        fingerprint: of this run, without the numbers.
    """
    if earlier is None or FIELD not in earlier:
        return None
    wanted = json.loads(json.dumps(dict(fingerprint)))
    same = all(earlier.get(key) == value for key, value in wanted.items())
    return list(earlier[FIELD]) if same else None


def measure_statistics(
    model: Model,
    pixels: MirroredPixels,
    planes: int,
    client: "Client",
    run: str,
    report: Callable[[int, int, int], None],
) -> list[dict[str, Any]]:
    """Read all planes of a level, block by block on the workers, once or twice for each step.

    Args:
        model: whose preprocessing has steps that need the whole image.
        pixels: of the level.
        planes: of the level; they share one statistic.
        client: of the workers.
        run: name of the run.
        report: called after each block with blocks done, blocks in all, and pixels done.
    """
    from tilesegment.execution.engine import summarise_image, summary_blocks

    readings = 0
    blocks = len(summary_blocks(pixels, planes))
    shape = pixels.plane_shape

    def collect(summarise: Callable[..., tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        nonlocal readings
        readings += 1
        name = f"{run}-{readings}"
        found = summarise_image(client, pixels, planes, summarise, name)
        for done, summary in enumerate(found, start=1):
            report(done, blocks, planes * shape.y * shape.x * done // blocks)
            yield summary

    steps = model.description.whole_image_steps
    return [asdict(scale) for scale in measure_scales(steps, collect)]
