"""What a run will cost."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesegment.errors import OptionError
from tilesegment.geometry import YX, Spacing, unet_geometry
from tilesegment.planning import Network, Plan, Source, make_plan
from tilesegment.tiling import mirrored_positions

PAPER = Network(unet_geometry(4), base_channels=64, weights_bytes=124_000_000)


def planned(
    shape: YX,
    tile: int | None = None,
    chunk: int = 512,
    network: Network = PAPER,
    step: Spacing | None = None,
    **source: int,
) -> Plan:
    level = Source(
        "image.zarr",
        level=0,
        shape=shape,
        planes=source.get("planes", 1),
        channels=source.get("channels", 3),
        item_bytes=1,
        chunk=YX(chunk, chunk),
        step=step,
    )
    return make_plan(level, network, tile, [shape], label_bytes=1)


def test_a_gigapixel_with_the_papers_network() -> None:
    plan = planned(YX(32_768, 32_768))
    assert (plan.tile, plan.halo, len(plan.grid)) == (1536, 94, 22**2)
    assert plan.compute_amplification == pytest.approx(22**2 * 1724**2 / 2**30)
    assert plan.read_amplification < 1.17
    assert plan.output_bytes == 2**30
    assert plan.output_chunk == 512


def test_a_narrow_networks_tiles_are_so_large_that_the_halo_costs_little() -> None:
    narrow = replace(PAPER, base_channels=16)
    plan = planned(YX(32_768, 32_768), network=narrow)
    assert plan.tile == 2048
    assert plan.compute_amplification <= 1.25
    assert plan.read_amplification <= 1.15


def test_narrower_arithmetic_affords_larger_tiles() -> None:
    """Of the paper's network, whose halo costs a third in float32."""
    plans = [planned(YX(32_768, 32_768), network=replace(PAPER, value_bytes=n)) for n in (4, 2, 1)]
    assert [plan.tile for plan in plans] == [1536, 2048, 2048]
    assert plans[2].compute_amplification <= 1.25


@pytest.mark.parametrize(("side", "chunk", "tile"), [(7068, 512, 1776), (7068, 240, 1440)])
def test_the_last_tiles_reach_no_farther_beyond_the_image_than_needed(
    side: int, chunk: int, tile: int
) -> None:
    plan = planned(YX(side, side), chunk=chunk, network=replace(PAPER, base_channels=16))
    assert plan.tile == tile


def test_quick_work_is_left_in_four_tiles_and_more_in_tiles_for_several_workers() -> None:
    quick = planned(YX(3072, 3072), network=replace(PAPER, base_channels=4))
    assert (quick.tile, len(quick.grid)) == (1536, 4)
    assert len(planned(YX(4096, 4096)).grid) == 16


def test_what_is_computed_in_bands_affords_larger_tiles() -> None:
    shape = YX(32_768, 32_768)
    whole = replace(PAPER, in_bands=False)
    assert planned(shape, network=whole).tile == 1024
    large = planned(shape, 1024, network=whole).worker_memory_bytes
    assert planned(shape, 1024).worker_memory_bytes < 0.7 * large


def test_a_tile_that_reads_alone_decodes_all_chunks_under_its_halo() -> None:
    shape = YX(8 * 2048, 8 * 2048)
    shared = planned(shape, 2048)
    alone = replace(shared, feed="tile")
    assert shared.read_amplification < 1.2
    # Six by six chunks for four by four, but for the rim of the image.
    assert alone.read_amplification == pytest.approx((8 * 6 - 2) ** 2 / 32**2)
    assert alone.worker_memory_bytes < shared.worker_memory_bytes


def test_on_a_gpu_tiles_are_several_thousand_pixels_wide() -> None:
    gpu = replace(PAPER, on_gpu=True, value_bytes=2)
    plan = planned(YX(65_536, 65_536), network=gpu)
    assert plan.tile == 4096
    assert plan.compute_amplification <= 1.1
    assert plan.region.x == 8
    assert plan.worker_memory_bytes < 8 * 2**30


@pytest.mark.parametrize("base", [16, 64, 128])
@pytest.mark.parametrize("side", [20_000, 31_234, 100_000])
@pytest.mark.parametrize("chunk", [240, 256, 1024])
def test_a_gpu_writes_few_chunks(base: int, side: int, chunk: int) -> None:
    gpu = replace(PAPER, on_gpu=True, value_bytes=2, base_channels=base)
    plan = planned(YX(side, side), chunk=chunk, network=gpu)
    assert plan.output_chunk >= 384
    # Beyond this cuDNN has few convolutions, and slow ones.
    assert base * plan.shown.y * plan.shown.x < 2**31


def test_regions_are_equally_wide() -> None:
    plan = planned(YX(13 * 1024, 13 * 1024), 1024)
    assert plan.region.x == 7


def test_a_trillion_pixels_are_planned_at_once() -> None:
    plan = planned(YX(1_000_000, 1_000_000), 1024)
    assert len(plan.grid) == 977**2
    assert plan.regions == 31 * 82


def test_memory_does_not_grow_with_the_image() -> None:
    small, large, larger = (planned(YX(side, side)) for side in (10_000, 10**6, 10**7))
    assert small.worker_memory_bytes <= large.worker_memory_bytes == larger.worker_memory_bytes


def test_memory_grows_with_the_tile() -> None:
    shape = YX(20_000, 20_000)
    assert planned(shape, 2048).worker_memory_bytes > 2 * planned(shape, 1024).worker_memory_bytes


def test_a_resampled_gigapixel_with_the_papers_network() -> None:
    """One and a half pixels of the level to one of the network: tiles of about 1024 of those."""
    plan = planned(YX(32_768, 32_768), step=Spacing(1.5, 1.5))
    assert (plan.tile, plan.halo) == (1536, 193)
    assert plan.shown == YX(1056 + 2 * 94, 1056 + 2 * 94)
    assert plan.compute_amplification == pytest.approx((1244 / 1536) ** 2, rel=0.07)
    assert plan.worker_memory_bytes > planned(YX(32_768, 32_768), 1024).worker_memory_bytes


def test_axes_may_be_resampled_differently() -> None:
    plan = planned(YX(5000, 5000), 1024, step=Spacing(2.0, 0.5))
    assert plan.shown == YX(544 + 2 * 94, 2064 + 2 * 94)


@pytest.mark.parametrize("step", [1 / 8, 0.4, 1.2, 2.0, 8.0])
def test_the_chosen_tile_is_allowed_at_every_step(step: float) -> None:
    plan = planned(YX(90_000, 80_000), step=Spacing(step, step))
    assert plan.tile >= plan.halo
    assert plan.compute_amplification * step**2 < 4


def test_an_illegal_tile_is_refused() -> None:
    with pytest.raises(OptionError, match="multiple of 16"):
        planned(YX(5000, 5000), 1000)


def decoded_by_counting(plan: Plan, size: int, chunk: int, side: int) -> int:
    """Pixels of one axis that are decoded, chunk by chunk."""
    halo, tile = plan.halo, plan.tile
    tiles = -(-size // tile)
    total = 0
    for first in range(0, tiles, side):
        last = min(first + side, tiles)
        cuts = [first * tile - halo, *range(first * tile, last * tile + 1, tile)]
        cuts.append(last * tile + halo)
        for start, stop in itertools.pairwise(cuts):
            touched = mirrored_positions(start, stop, size)
            chunks = range(touched.min() // chunk, touched.max() // chunk + 1)
            total += sum(min((index + 1) * chunk, size) - index * chunk for index in chunks)
    return total


@given(st.integers(1, 900), st.integers(1, 900), st.integers(1, 300))
def test_read_amplification_counts_decoded_chunks(height: int, width: int, chunk: int) -> None:
    network = Network(unet_geometry(2), base_channels=8, weights_bytes=1000)
    plan = planned(YX(height, width), 32, chunk, network)
    rows = decoded_by_counting(plan, height, chunk, plan.region.y)
    columns = decoded_by_counting(plan, width, chunk, plan.region.x)
    assert plan.read_amplification == pytest.approx(rows * columns / (height * width))
