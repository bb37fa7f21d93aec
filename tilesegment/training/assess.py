"""What a network in training is worth on pictures that it does not learn from."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tilesegment.geometry import YX, round_up
from tilesegment.metrics.classes import dice, pixel_error
from tilesegment.metrics.overlaps import count_overlaps
from tilesegment.model.file import Normalisation
from tilesegment.model.unet import UNet
from tilesegment.tiling import Window
from tilesegment.training.dataset import MOST_WINDOWS, Patch, Picture, spread
from tilesegment.training.loss import IGNORED


@dataclass(frozen=True)
class Assessment:
    """Agreement with the annotation of the pictures for validation."""

    loss: float
    """Mean cross-entropy per annotated pixel, without weights."""
    dice: tuple[float, ...]
    """Per class, the mean over the groups in which it occurs; NaN if it occurs nowhere."""
    pixel_error: float
    """Share of annotated pixels with another class, the mean over the groups."""

    @property
    def score(self) -> float:
        """Mean Dice; with two classes that of the second, the foreground."""
        counted = self.dice[1:] if len(self.dice) == 2 else self.dice
        return float(np.nanmean(counted)) if not np.isnan(counted).all() else 0.0


@dataclass(frozen=True)
class AssessedTile:
    """One tile with truth and prediction."""

    image: npt.NDArray[np.float32]
    """(c, y, x), without halo."""
    truth: npt.NDArray[np.uint8]
    """(y, x)"""
    predicted: npt.NDArray[np.uint8]
    """(y, x)"""


@dataclass(frozen=True)
class Predictor:
    """Shows tiles to a network as `tilesegment run` does: with their halo, mirrored at the rim."""

    network: UNet
    normalisation: Normalisation
    tile: int
    """Largest size of a tile in pixels; a multiple of the network's alignment."""
    device: torch.device

    def logits(self, images: Sequence[npt.NDArray[np.float32]]) -> Tensor:
        """(n) images of (c, tile + 2 halo, tile + 2 halo) to (n, k, tile, tile) on the device."""
        batch = normalised_batch(images, self.normalisation, self.device)
        return cropped(self.network(batch), self.network.geometry.crop)

    def tiles(self, picture: Picture) -> Iterator[tuple[Patch, Tensor]]:
        """The tiles of a picture, without halo and cut at its rim, with their logits (k, y, x).

        Of a picture with more than `MOST_WINDOWS` tiles only as many, evenly spread.
        """
        geometry = self.network.geometry
        tile = YX(*(_even_tile(size, self.tile, geometry.alignment) for size in picture.size))
        corners = [
            YX(y, x)
            for y in range(0, picture.size.y, tile.y)
            for x in range(0, picture.size.x, tile.x)
        ]
        for corner in spread(corners, MOST_WINDOWS):
            yield self._tile(picture, Window(*corner, *tile))

    def _tile(self, picture: Picture, window: Window) -> tuple[Patch, Tensor]:
        halo = self.network.geometry.halo
        patch = picture.read(window.grown(halo))
        shown = window.clipped(picture.size)
        inner = _part(halo, shown.height), _part(halo, shown.width)
        logits = self.logits([patch.image])[0, :, : shown.height, : shown.width]
        return Patch(patch.image[:, *inner], patch.classes[inner], patch.border[inner]), logits


def _even_tile(size: int, largest: int, alignment: int) -> int:
    """The least multiple of `alignment` that covers `size` with as few tiles as the largest does.

    >>> _even_tile(520, 512, 8)
    264
    """
    tiles = -(-size // largest)
    return round_up(-(-size // tiles), alignment)


def _part(start: int, length: int) -> slice:
    return slice(start, start + length)


def normalised_batch(
    images: Sequence[npt.NDArray[np.float32]], normalisation: Normalisation, device: torch.device
) -> Tensor:
    """(n, c, y, x) float32 in channels-last order, which doubles the speed of a CPU."""
    batch = torch.from_numpy(np.stack(images)).to(device)
    mean = torch.tensor(normalisation.mean, device=device).view(-1, 1, 1)
    deviation = torch.tensor(normalisation.deviation, device=device).view(-1, 1, 1)
    return ((batch - mean) / deviation).contiguous(memory_format=torch.channels_last)


def cropped(logits: Tensor, crop: int) -> Tensor:
    """Without `crop` pixels on each side: (n, k, y, x) to (n, k, y - 2 crop, x - 2 crop)."""
    return logits[..., crop : logits.shape[-2] - crop, crop : logits.shape[-1] - crop]


@torch.inference_mode()
def assess(
    predictor: Predictor, pictures: Sequence[Picture], group: Callable[[str], str]
) -> Assessment:
    """Compare prediction and annotation over whole pictures; groups count equally."""
    predictor.network.eval()
    loss, annotated = 0.0, 0
    confusions: dict[str, npt.NDArray[np.int64]] = {}
    for picture in pictures:
        for patch, logits in predictor.tiles(picture):
            truth = torch.from_numpy(patch.classes.astype(np.int64)).to(logits.device)
            loss += float(
                torch.nn.functional.cross_entropy(
                    logits.float()[None], truth[None], ignore_index=IGNORED, reduction="sum"
                )
            )
            annotated += int((truth != IGNORED).sum())
            predicted = logits.argmax(0).cpu().numpy()
            overlaps = count_overlaps(patch.classes, predicted, ignore=IGNORED)
            matrix = overlaps.matrix(range(len(logits)))
            name = group(picture.name)
            confusions[name] = confusions.get(name, np.zeros_like(matrix)) + matrix
    return _summary(loss / max(annotated, 1), list(confusions.values()))


def _summary(loss: float, matrices: Sequence[npt.NDArray[np.int64]]) -> Assessment:
    per_group = np.array([dice(matrix) for matrix in matrices])
    occurs = ~np.isnan(per_group)
    means = np.where(
        occurs.any(axis=0), np.nansum(per_group, axis=0) / np.maximum(occurs.sum(axis=0), 1), np.nan
    )
    errors = [pixel_error(matrix) for matrix in matrices]
    return Assessment(loss, tuple(means.tolist()), float(np.nanmean(errors)))


@torch.inference_mode()
def example_tiles(
    predictor: Predictor, pictures: Sequence[Picture], most: int
) -> list[AssessedTile]:
    """One tile of each of up to `most` pictures: the one with most objects."""
    predictor.network.eval()
    chosen = [pictures[index * len(pictures) // most] for index in range(most)]
    return [_example(predictor, picture) for picture in _by_name(chosen).values()]


def _by_name(pictures: Sequence[Picture]) -> dict[str, Picture]:
    return {picture.name: picture for picture in pictures}


def _example(predictor: Predictor, picture: Picture) -> AssessedTile:
    tiles = (
        AssessedTile(patch.image, patch.classes, logits.argmax(0).to(torch.uint8).cpu().numpy())
        for patch, logits in predictor.tiles(picture)
    )
    return max(tiles, key=lambda tile: int(((tile.truth > 0) & (tile.truth != IGNORED)).sum()))
