"""Random changes of a training tile (Ronneberger et al. 2015, section 3.1, and later ones).

"we primarily need shift and rotation invariance as well as robustness to deformations and gray
value variations. Especially random elastic deformations of the training samples seem to be the
key concept to train a segmentation network with very few annotated images."

Geometry is drawn first, as the position in the picture of every pixel of the tile; the tile is
then sampled from the picture there, so that deformation brings in real context. Grey values
are changed last.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.interpolate import CubicSpline

from tilesegment.geometry import YX

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Augmentation:
    """How far each change may go; 0 turns it off. `NO_AUGMENTATION` turns off all."""

    elastic: float = 10.0
    """Standard deviation of the coarse displacement vectors, in pixels (section 3.1)."""
    elastic_grid: int = 3
    """Displacement vectors per axis of the coarse grid (section 3.1)."""
    rotation: float = 180.0
    """Largest rotation to either side, in degrees."""
    flips: bool = True
    """Mirror half of the tiles."""
    smallest_zoom: float = 0.8
    """Below 1 objects get smaller."""
    largest_zoom: float = 1.25
    """Above 1 objects get larger."""
    smallest_object: float = 0.0
    """Never shrink a picture so far that its median object has a diameter below this, in pixels."""
    foreground: float = 0.5
    """Share of the tiles that are centred on an annotated object."""
    brightness: float = 0.1
    """Largest shift of the grey values, as a share of their range."""
    contrast: float = 0.3
    """Grey values are multiplied by up to 1 + this, or divided by it."""
    gamma: float = 0.3
    """Grey values are raised to a power of up to 1 + this, or one divided by it."""
    colour: float = 0.0
    """Standard deviation of a random mixture of the channels, in optical density."""
    counterstain: float = 0.0
    """Largest optical density of a random second stain, for bright three-channel pictures."""
    noise: float = 0.02
    """Largest standard deviation of Gaussian noise, as a share of the range of grey values."""
    blur: float = 1.0
    """Largest standard deviation of a Gaussian blur, or of the one that sharpening undoes, in
    pixels."""


NO_AUGMENTATION = Augmentation(
    elastic=0,
    rotation=0,
    flips=False,
    smallest_zoom=1,
    largest_zoom=1,
    foreground=0,
    brightness=0,
    contrast=0,
    gamma=0,
    noise=0,
    blur=0,
)


@dataclass(frozen=True)
class Placement:
    """Where a tile lies in its picture: turned, mirrored, zoomed and deformed."""

    matrix: npt.NDArray[np.float64]
    """(2, 2): steps in the tile to steps in the picture, both (y, x)."""
    vectors: npt.NDArray[np.float64]
    """(2, n, n): displacement at the coarse grid, in pixels of the tile, (y, x) first."""

    def positions(self, centre: YX, size: int) -> npt.NDArray[np.float64]:
        """Positions in the picture of the pixels of a square tile: (2, size, size), (y, x)."""
        steps = np.arange(size) - (size - 1) / 2
        tile = np.stack(np.meshgrid(steps, steps, indexing="ij"))
        moved = tile + elastic_field(self.vectors, size)
        turned: npt.NDArray[np.float64] = np.einsum("ij,jyx->iyx", self.matrix, moved)
        turned += np.array(centre, float)[:, None, None]
        return turned


def draw_placement(
    augmentation: Augmentation, object_size: float, random: np.random.Generator
) -> Placement:
    """A random placement.

    Args:
        augmentation: what may happen.
        object_size: median diameter of the picture's objects in pixels; 0 if unknown.
        random: where the randomness comes from.
    """
    angle = math.radians(random.uniform(-1, 1) * augmentation.rotation)
    zoom = _draw_zoom(augmentation, object_size, random)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    mirror = np.diag([1.0, -1.0 if augmentation.flips and random.random() < 0.5 else 1.0])
    grid = augmentation.elastic_grid
    vectors = random.normal(size=(2, grid, grid)) * augmentation.elastic
    return Placement(turn @ mirror / zoom, vectors)


def _draw_zoom(
    augmentation: Augmentation, object_size: float, random: np.random.Generator
) -> float:
    low, high = augmentation.smallest_zoom, augmentation.largest_zoom
    if object_size > 0:
        low = min(max(low, augmentation.smallest_object / object_size), high)
    return math.exp(random.uniform(math.log(low), math.log(high)))


def elastic_field(vectors: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Smooth displacements from a coarse grid, (2, n, n) to (2, size, size), in pixels.

    "We generate smooth deformations using random displacement vectors on a coarse 3 by 3 grid.
    The displacements are sampled from a Gaussian distribution with 10 pixels standard deviation.
    Per-pixel displacements are then computed using bicubic interpolation" (section 3.1). The
    grid's corners are the tile's corner pixels.
    """
    coarse = np.arange(vectors.shape[-1])
    basis = CubicSpline(coarse, np.eye(len(coarse)), bc_type="natural")(
        np.linspace(0, len(coarse) - 1, size)
    )
    field: npt.NDArray[np.float64] = np.einsum("yi,kij,xj->kyx", basis, vectors, basis)
    return field


def change_grey_values(
    image: Floats, augmentation: Augmentation, span: float, random: np.random.Generator
) -> Floats:
    """Random colours, contrast, brightness, blur or sharpening, and noise.

    Args:
        image: (c, y, x) float32; integers were divided by the largest value of their type.
        augmentation: what may happen.
        span: the range of grey values: 1 for pictures of integers, which stay within 0 to 1.
        random: where the randomness comes from.
    """
    limited = span == 1
    if limited:
        image = _change_stains(image, augmentation, random)
        image = image ** np.float32(_draw_factor(augmentation.gamma, random))
    image = image * np.float32(_draw_factor(augmentation.contrast, random))
    image = image + np.float32(random.uniform(-1, 1) * augmentation.brightness * span)
    image = _blur_or_add_noise(image, augmentation, span, random)
    return np.clip(image, 0, 1) if limited else image


def _draw_factor(largest: float, random: np.random.Generator) -> float:
    return math.exp(random.uniform(-1, 1) * math.log1p(largest))


def _change_stains(
    image: Floats, augmentation: Augmentation, random: np.random.Generator
) -> Floats:
    """Mix the channels, and add a second stain, where stains multiply: in optical density."""
    channels = len(image)
    stained = augmentation.counterstain > 0 and channels == 3 and np.median(image) > 0.4
    if not stained and (augmentation.colour == 0 or channels == 1):
        return image
    density = -np.log(np.clip(image, 1 / 255, 1))
    if augmentation.colour > 0:
        mixture = np.eye(channels) + random.normal(size=(channels, channels)) * augmentation.colour
        density = np.einsum("ij,jyx->iyx", mixture.astype(np.float32), density)
    if stained and random.random() < 0.8:
        density = _clear_background(density, random)
        density = density + _draw_counterstain(image.shape[1:], augmentation.counterstain, random)
    mixed: Floats = np.exp(-np.clip(density, 0, None))
    return mixed


def _clear_background(density: Floats, random: np.random.Generator) -> Floats:
    """Take away a share of the even cast that a stain leaves on everything: (3, y, x)."""
    cast = np.percentile(density, 5, axis=(1, 2)).astype(np.float32)
    return density - np.float32(random.uniform(0, 1)) * cast[:, None, None]


def _draw_counterstain(
    shape: tuple[int, ...], strongest: float, random: np.random.Generator
) -> Floats:
    """Fibres and sheets of a stain that absorbs green most: (3, y, x) optical density."""
    fibres = _draw_fibres(shape, random)
    if random.random() < 0.5:
        elsewhere = _draw_fibres(shape, random)
        where = ndimage.gaussian_filter(random.standard_normal(shape, np.float32), 24)
        fibres = np.where(where > 0, fibres, elsewhere)
    steepness, threshold = 2.0 ** random.uniform(0, 4), random.uniform(-1.2, 1.2)
    amount = 1 / (1 + np.exp(-np.clip(steepness * (fibres - threshold), -30, 30)))
    absorbed = random.uniform([0.05, 0.7, 0.2], [0.6, 1, 0.8]) * random.uniform(0, strongest)
    stain: Floats = (absorbed[:, None, None] * amount).astype(np.float32)
    return stain


def _draw_fibres(shape: tuple[int, ...], random: np.random.Generator) -> Floats:
    """Noise that is smooth along a random direction and rougher across it, of deviation 1."""
    height, width = shape
    angle = random.uniform(0, np.pi)
    down, right = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    along = down * np.cos(angle) + right * np.sin(angle)
    across = right * np.cos(angle) - down * np.sin(angle)
    length, thickness = 2.0 ** random.uniform([2, 0], [5, 3])
    passed = np.exp(-2 * np.pi**2 * ((along * length) ** 2 + (across * thickness) ** 2))
    noise = np.fft.rfft2(random.standard_normal(shape)) * passed
    fibres: Floats = np.fft.irfft2(noise, s=shape).astype(np.float32)
    fibres /= fibres.std() + np.float32(1e-6)
    return fibres


def _blur_or_add_noise(
    image: Floats, augmentation: Augmentation, span: float, random: np.random.Generator
) -> Floats:
    """Blur a quarter of the tiles, sharpen a quarter, add noise to a quarter."""
    choice = random.random()
    if choice < 0.5 and augmentation.blur > 0:
        sigma = random.uniform(0, augmentation.blur)
        blurred: Floats = ndimage.gaussian_filter(image, (0, sigma, sigma))
        return blurred if choice < 0.25 else 2 * image - blurred
    if choice < 0.75 and augmentation.noise > 0:
        strength = np.float32(random.uniform(0, augmentation.noise) * span)
        return image + strength * random.standard_normal(image.shape, np.float32)
    return image
