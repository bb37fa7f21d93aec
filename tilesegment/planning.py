"""What a run will do and what it will cost, worked out before anything is touched."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil, isqrt, lcm
from typing import Literal

from tilesegment.blending import Blend
from tilesegment.config import LARGE_MAP_BYTES
from tilesegment.errors import OptionError
from tilesegment.geometry import YX, NetworkGeometry, Spacing, round_up
from tilesegment.refinement import Refinement
from tilesegment.resampling import Resampling
from tilesegment.tiling import (
    Region,
    TileGrid,
    check_tile,
    choose_tile,
    chunk_of,
    mirrored_span,
    region_cuts,
)

_AUTO_TILE = 1024
"""Pixels per side of a tile, where the user leaves it open and nothing speaks for another size."""
_AUTO_STEP = 16
"""Pixels by which sizes differ: a multiple of them can be cut into chunks of a viewer's size."""


@dataclass(frozen=True)
class _TileRule:
    """What decides the size of a tile on one kind of device, where the user leaves it open."""

    amplification: float
    """Pixels computed over pixels wanted; where the halo costs more, the tile is larger."""
    map_bytes: int
    """Of one feature map, beyond which the tile is not made larger: a wide network computes more
    halo."""
    quick_work: int
    """Pixels, times the base channels squared, that are computed in less than a second."""
    least: int
    """Pixels per side."""
    least_whole: int
    """The same, of tiles of whole chunks."""
    least_chunk: int = 0
    """Pixels per side of the stored chunks."""


_WHOLE = _TileRule(1.15, map_bytes=13 * 2**25, quick_work=2**30, least=512, least_whole=1024)
"""On a processor that computes each map at once."""
_IN_BANDS = replace(_WHOLE, map_bytes=3 * 2**28)
_ON_GPU = _TileRule(1.1, 3 * 2**30, 2**36, least=2048, least_whole=2048, least_chunk=384)
"""Of 24 GB or more; what does not fit is predicted in parts. It would wait for small tiles to be
scheduled, and for small chunks to be written."""
_HARDLY_MORE = 1.01
"""So many times the least that can be had are as good: the tile is not made larger for it."""
_WORTH_READING_TWICE = 1.1
"""So many times the pixels computed, before tiles are preferred that cut through chunks."""
_SHARED_TILES = 16
"""So many tiles are left at least, before they are made larger: several workers share them."""
_LEAST_TILES = 4
"""Of an image of which a few workers make quick work: one is read while another is computed."""

_LARGEST_RESAMPLED_TILE = 4096
"""Pixels of the level, where many make one that the network is shown: they wait in memory."""

_NEIGHBOUR_BYTES, _GPU_NEIGHBOUR_BYTES = 192 * 2**20, 2**31
"""Raw pixels of the two rows of tiles that wait in the workers' memory for their neighbours."""
_LARGEST_REGION = YX(32, 12)
"""Tiles; dask works through a region row by row, so that its width decides what waits in memory,
and its size what the scheduler holds. Narrower regions read more chunks twice."""
_PROCESS_BYTES, _GPU_PROCESS_BYTES = 450 * 2**20, 5 * 2**29
"""A worker with torch, dask and zarr loaded, before it has a network; with CUDA, whose libraries
are large, that is a guess."""
_FLOAT_BYTES = 4
_MAPS_AT_ONCE, _MAPS_IN_BANDS = 10.0, 6.0
"""Feature maps of base width and full size for which a worker takes memory, and keeps it in pieces:
where they are computed at once, and in bands (benchmarks/features.py)."""
_WAITING_TILES, _WAITING_ON_GPU = 8, 12
"""Haloed tiles that wait for the network, and labels that wait for the disk, per worker; a GPU's
two are copied once more, to memory that is given out in powers of two."""


@dataclass(frozen=True)
class Source:
    """What the plan must know of the level that is read."""

    location: str
    level: int
    shape: YX
    """One plane, pixels."""
    planes: int
    channels: int
    item_bytes: int
    """Of one sample."""
    chunk: YX
    """What is decoded as one piece."""
    step: Spacing | None = None
    """Size of the pixels that the network is shown, in the level's; None: the level as it is."""
    reason: str = ""
    """Why this level and step, for people."""


@dataclass(frozen=True)
class Network:
    """What the plan must know of the model."""

    geometry: NetworkGeometry
    """Of the network, or of its blended windows, with the refinement."""
    base_channels: int
    weights_bytes: int
    in_bands: bool = True
    """Whether it computes large tiles in bands of rows, as a U-Net of ours does on a CPU."""
    blend: Blend | None = None
    """The windows that it is shown of each tile; None: the tile at once."""
    passes: int = 1
    """Forward passes per tile, see `RunOptions.average`."""
    fixed_input: int | None = None
    """The only input size that the network takes, pixels per side; it decides the tile."""
    statistics: bool = False
    """Whether the whole image is read first, for the numbers that normalise it."""
    stored_classes: int = 0
    """Classes whose probabilities are stored, a byte per pixel each."""
    refinement: Refinement | None = None
    """What is done with probabilities before they become labels."""
    on_gpu: bool = False
    """Whether it runs on GPUs, which have room for larger tiles."""
    value_bytes: int = 4
    """Of one value of a feature map, by the precision."""
    refinement_bytes: int = 0
    """That this takes per pixel that the network is shown."""

    def computed(self, shown: YX) -> int:
        """Pixels that the network is given, in all passes, for an input of `shown`."""
        pixels = shown.y * shown.x if self.blend is None else self.blend.computed(shown)
        return self.passes * pixels


@dataclass(frozen=True)
class Plan:
    """A run, worked out."""

    source: Source
    network: Network
    tile: int
    """Pixels per side that one task segments and writes."""
    region: YX
    """Tiles per side of a region, at most."""
    output_chunk: int
    """Pixels per side of a stored chunk."""
    output_bytes: int
    """Labels and probabilities of all levels before compression."""
    masked: int = 0
    """Tiles of which a mask wants no pixel: they are neither read nor computed."""
    feed: Literal["overlap", "tile"] = "overlap"
    """Whether tiles share the pixels that are read, or each reads its halo itself."""

    @property
    def grid(self) -> TileGrid:
        return TileGrid(self.source.shape, self.source.planes, self.tile)

    @property
    def resampling(self) -> Resampling | None:
        """How the level becomes what the network is shown; None if it is shown as it is."""
        return _resampling(self.source, self.network)

    @property
    def geometry(self) -> NetworkGeometry:
        """Of all that lies between the level and its labels: resampling, and the network."""
        return _geometry(self.source, self.network)

    @property
    def halo(self) -> int:
        """Pixels of the level that a tile reads beyond what it writes, per side."""
        return self.geometry.halo

    @property
    def shown(self) -> YX:
        """Pixels that the network is given for one tile."""
        network, resampling = self.network.geometry, self.resampling
        tile = YX(self.tile, self.tile)
        if resampling is not None:
            tile = resampling.network_tile(self.tile)
        return YX(network.input_size(tile.y), network.input_size(tile.x))

    @property
    def regions(self) -> int:
        side, grid = self.region, self.grid
        return grid.planes * -(-grid.rows // side.y) * -(-grid.columns // side.x)

    @property
    def pixels(self) -> int:
        """Pixels of the image at the processed level."""
        return self.source.planes * self.source.shape.y * self.source.shape.x

    @property
    def compute_amplification(self) -> float:
        """Pixels given to the network over pixels of the image."""
        computed = len(self.grid) - self.masked
        return computed * self.network.computed(self.shown) / self.pixels

    @property
    def read_amplification(self) -> float:
        """Pixels decoded from chunks over pixels of the image."""
        shape, chunk = self.source.shape, self.source.chunk
        together = self.region if self.feed == "overlap" else YX(1, 1)
        decoded = sum(
            self._decoded(region.first_row, region.rows, shape.y, chunk.y)
            * self._decoded(region.first_column, region.columns, shape.x, chunk.x)
            for region in TileGrid(shape, 1, self.tile).regions(together)
        )
        return decoded / (shape.y * shape.x)

    def _decoded(self, first: int, count: int, size: int, chunk: int) -> int:
        """Pixels along one axis that the blocks of a region decode, or a tile that reads alone."""
        cuts = region_cuts(first, count, self.tile, self.halo)
        if self.feed == "tile":
            cuts = [cuts[0], cuts[-1]]
        spans = (mirrored_span(start, stop, size) for start, stop in pairwise(cuts))
        return sum(_whole_chunks(start, stop, size, chunk) for start, stop in spans)

    @property
    def worker_memory_bytes(self) -> int:
        """Estimated peak of one worker process."""
        shown, blend = self.shown.y * self.shown.x, self.network.blend
        at_once = shown if blend is None else blend.window_input**2
        activations = _features_bytes(self.network, at_once)
        sample = self.source.channels * self.source.item_bytes
        classes = self.network.stored_classes
        activations += shown * (classes * _FLOAT_BYTES + self.network.refinement_bytes)
        waiting = (self.tile + 2 * self.halo) ** 2 * sample + self.tile**2 * (1 + classes)
        if self.resampling is not None:
            waiting += shown * self.source.channels * _FLOAT_BYTES
        shared = self.feed == "overlap"
        neighbours = 2 * (self.region.x + 2) * self.tile**2 * sample if shared else 0
        process, tiles = _PROCESS_BYTES, _WAITING_TILES
        if self.network.on_gpu:
            process, tiles, activations = _GPU_PROCESS_BYTES, _WAITING_ON_GPU, 0.0
        weights = 2 * self.network.weights_bytes
        return int(process + weights + activations + tiles * waiting + neighbours)

    def region_list(self) -> Iterable[Region]:
        return self.grid.regions(self.region)


def make_plan(
    source: Source, network: Network, tile: int | None, level_shapes: Iterable[YX], label_bytes: int
) -> Plan:
    """Choose what the user left open, and check what the user chose.

    Args:
        source: the level that is read.
        network: the model.
        tile: pixels per side, or None to choose.
        level_shapes: all levels of the image, one plane each.
        label_bytes: of one label.

    Raises:
        OptionError: if the tile is too small or off the network's grid.
    """
    geometry = _geometry(source, network)
    if network.fixed_input is not None:
        if source.step is not None:
            raise OptionError(
                f"the network takes inputs of {network.fixed_input} pixels only, and cannot see "
                "resampled ones; choose a level with --level"
            )
        tile = _fixed_tile(network.fixed_input, geometry, tile)
    if tile is None:
        tile = choose_tile(_auto_tile(source, network), source.shape, geometry)
    check_tile(tile, geometry)
    tile_bytes = tile**2 * source.channels * source.item_bytes
    neighbour_bytes = _GPU_NEIGHBOUR_BYTES if network.on_gpu else _NEIGHBOUR_BYTES
    widest = min(max(neighbour_bytes // (2 * tile_bytes) - 2, 2), _LARGEST_REGION.x)
    columns = TileGrid(source.shape, 1, tile).columns
    return Plan(
        source=source,
        network=network,
        tile=tile,
        # Regions of equal width: a narrow last one would read most of its chunks twice.
        region=YX(_LARGEST_REGION.y, ceil(columns / ceil(columns / widest))),
        output_chunk=chunk_of(tile),
        output_bytes=source.planes
        * (label_bytes + network.stored_classes)
        * sum(shape.y * shape.x for shape in level_shapes),
    )


def _resampling(source: Source, network: Network) -> Resampling | None:
    return None if source.step is None else Resampling(source.step, network.geometry)


def _geometry(source: Source, network: Network) -> NetworkGeometry:
    resampling = _resampling(source, network)
    return network.geometry if resampling is None else resampling.geometry


def _auto_tile(source: Source, network: Network) -> int:
    """Pixels of the level for `--tile auto`, before the image and the network's grid are asked.

    The least of whole chunks, so that each is decoded once, that keeps what the halo and the
    image's far rim cost within bounds, or near the least that can be had; where other sizes
    cost much less, one of those.
    """
    if source.step is not None:
        return min(int(_AUTO_TILE * max(source.step)), _LARGEST_RESAMPLED_TILE)
    if network.blend is not None:
        return _AUTO_TILE
    on_cpu = _IN_BANDS if network.in_bands else _WHOLE
    rule = _ON_GPU if network.on_gpu else on_cpu
    alignment = lcm(network.geometry.alignment, _AUTO_STEP)
    affordable = isqrt(rule.map_bytes // _map_bytes(network))
    pixels = source.planes * source.shape.y * source.shape.x
    quick = min(pixels // _LEAST_TILES, rule.quick_work // network.base_channels**2)
    shared = isqrt(max(pixels // _SHARED_TILES, quick))
    largest = max(_AUTO_TILE, min(affordable - 2 * network.geometry.halo, shared))

    def cost(tile: int) -> float:
        return _amplification(source.shape, network, tile)

    def least(candidates: range) -> int:
        costs = {tile: cost(tile) for tile in candidates if chunk_of(tile) >= rule.least_chunk}
        enough = max(rule.amplification, _HARDLY_MORE * min(costs.values(), default=0))
        return next((tile for tile, found in costs.items() if found <= enough), _AUTO_TILE)

    def sizes(smallest: int, step: int) -> range:
        return range(round_up(min(smallest, largest), step), largest + 1, step)

    any_size = least(sizes(rule.least, alignment))
    whole_chunks = sizes(rule.least_whole, lcm(alignment, *source.chunk))
    tile = least(whole_chunks) if whole_chunks else any_size
    enough = max(rule.amplification, _WORTH_READING_TWICE * cost(any_size))
    return tile if cost(tile) <= enough else any_size


def _amplification(shape: YX, network: Network, tile: int) -> float:
    """Pixels that the network is shown over those of the plane."""
    grid = TileGrid(shape, 1, tile)
    return len(grid) * network.geometry.input_size(tile) ** 2 / (shape.y * shape.x)


def _features_bytes(network: Network, pixels: int) -> float:
    """Of the feature maps of an input of so many pixels, on a CPU."""
    map_bytes = pixels * _map_bytes(network)
    in_bands = network.in_bands and map_bytes >= LARGE_MAP_BYTES
    return map_bytes * (_MAPS_IN_BANDS if in_bands else _MAPS_AT_ONCE)


def _map_bytes(network: Network) -> int:
    """Of one feature map of full size, per pixel."""
    return network.base_channels * network.value_bytes


def _fixed_tile(fixed_input: int, geometry: NetworkGeometry, wanted: int | None) -> int:
    """The tile whose input has the only size that the network takes.

    Raises:
        OptionError: if that is too small for the network's halo, or another tile is wanted.
    """
    tile = fixed_input - 2 * geometry.halo
    if tile < geometry.smallest_tile:
        raise OptionError(
            f"the network takes inputs of {fixed_input} pixels only, of which a halo of "
            f"{geometry.halo} per side leaves {max(tile, 0)}, less than {geometry.smallest_tile}; "
            "export it with dynamic sizes"
        )
    if wanted not in (None, tile):
        raise OptionError(
            f"the network takes inputs of {fixed_input} pixels only, so the tile is {tile}, not "
            f"{wanted}; leave out --tile"
        )
    return tile


def _whole_chunks(start: int, stop: int, size: int, chunk: int) -> int:
    """Length of the chunks that overlap an interval, cut at the image's rim."""
    return min(-(-stop // chunk) * chunk, size) - start // chunk * chunk
