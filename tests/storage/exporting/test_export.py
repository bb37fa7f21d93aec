"""Which format, what is refused, and that a file is whole or absent."""

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.storage.exporting.labelled_images import SCENE, add_labels, blobs, write_labelled
from tilesegment.errors import InputError, OptionError, OutputError
from tilesegment.storage.exporting import PolygonOptions, export, export_labels

ALL = [*export.GEOTIFF, *export.OME_TIFF, *export.POLYGONS, *export.PICTURES]


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_labelled(tmp_path / "i.zarr", blobs(90, 70), place=SCENE)


def names(folder: Path) -> list[str]:
    return sorted(item.name for item in folder.iterdir())


@pytest.mark.parametrize("ending", [*ALL, ".TIF", ".OME.TIF", ".GeoJSON"])
def test_every_format_is_written_once(ending: str, image: Path) -> None:
    out = image.with_name(f"o{ending}")
    summary = export_labels(image, out)
    assert summary.bytes == out.stat().st_size > 0
    assert summary.labels == "cells"
    assert names(image.parent) == sorted(["i.zarr", out.name])
    with pytest.raises(OutputError, match="exists already.*--overwrite"):
        export_labels(image, out)
    out.write_text("old")
    export_labels(image, out, overwrite=True)
    assert out.stat().st_size == summary.bytes


@pytest.mark.parametrize("ending", [".tif", ".ome.tif", ".gpkg"])
def test_progress_counts_all_pixels_once(ending: str, image: Path) -> None:
    told: list[tuple[int, int]] = []
    out = image.with_name(f"o{ending}")
    export_labels(image, out, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (6300, 6300)


@pytest.mark.parametrize("name", ["o.gif", "o", ".tif", "o.shp"])
def test_other_endings_are_refused(name: str, image: Path) -> None:
    with pytest.raises(OptionError, match=r"no format that can be written; use one of .*\.geojson"):
        export_labels(image, image.with_name(name))


@pytest.mark.parametrize(
    ("ending", "options", "reason"),
    [
        (".tif", {"polygons": PolygonOptions(simplify=1.0)}, "are for polygons"),
        (".png", {"polygons": PolygonOptions(classes=("nucleus",))}, "are for polygons"),
        (".tif", {"largest": 500}, "--largest is for pictures"),
        (".ome.tif", {"plane": 1}, "which gets all planes"),
        (".tif", {"plane": 1}, "plane 1 does not exist: .* has 1"),
        (".gpkg", {"polygons": PolygonOptions(object_type="annotation")}, "is for QuPath"),
        (".gpkg", {"polygons": PolygonOptions(classes=("roof",))}, "no class 'roof'; there are: b"),
    ],
)
def test_options_without_effect_are_refused(
    ending: str, options: dict[str, Any], reason: str, image: Path
) -> None:
    with pytest.raises(OptionError, match=reason):
        export_labels(image, image.with_name(f"o{ending}"), **options)
    assert names(image.parent) == ["i.zarr"]


def test_labels_must_be_chosen_where_there_are_several(image: Path) -> None:
    add_labels(image, np.ones((90, 70), "uint8"), "other")
    with pytest.raises(OptionError, match="choose with --labels one of: cells, other"):
        export_labels(image, image.with_name("o.tif"))
    assert export_labels(image, image.with_name("o.tif"), "other").labels == "other"


def test_absent_labels_are_told(image: Path) -> None:
    with pytest.raises(InputError, match="has no labels 'x'; there are: cells"):
        export_labels(image, image.with_name("o.tif"), "x")


def test_labels_of_another_grid_are_told(image: Path) -> None:
    other = write_labelled(image.with_name("j.zarr"), blobs(50, 70))
    (image / "labels" / "cells").rename(image / "gone")
    (other / "labels" / "cells").rename(image / "labels" / "cells")
    with pytest.raises(InputError, match="have other levels than the image"):
        export_labels(image, image.with_name("o.tif"))


def test_a_missing_folder_is_told_before_any_work(image: Path) -> None:
    with pytest.raises(OutputError, match="there is no folder"):
        export_labels(image, image.with_name("nowhere") / "o.tif")


def test_a_folder_is_never_replaced(image: Path) -> None:
    image.with_name("o.tif").mkdir()
    with pytest.raises(OutputError, match="is a folder, which is not replaced"):
        export_labels(image, image.with_name("o.tif"), overwrite=True)


def test_a_full_disk_leaves_the_old_file(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = image.with_name("o.geojson")
    out.write_text("old")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tilesegment.storage.exporting.vector.write_vector", full)
    with pytest.raises(OutputError, match="No space left on device; nothing was left there"):
        export_labels(image, out, overwrite=True)
    assert out.read_text() == "old"
    assert names(image.parent) == ["i.zarr", "o.geojson"]


def test_simplifying_too_much_at_once_is_refused(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_LONGEST_BORDERS", 100)
    with pytest.raises(OptionError, match="--simplify needs all polygons in memory"):
        export_labels(image, image.with_name("o.fgb"), polygons=PolygonOptions(simplify=1.0))


@pytest.mark.parametrize(
    ("missing", "module", "ending", "extra"),
    [
        ("rasterio", "geotiff", ".tif", "geo"),
        ("pyogrio", "vector", ".gpkg", "geo"),
        ("tifffile", "ometiff", ".ome.tif", "slide"),
        ("PIL", "overview", ".png", "slide"),
    ],
)
def test_a_missing_library_is_named_with_the_way_to_install_it(
    missing: str,
    module: str,
    ending: str,
    extra: str,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return plain(name, *args)

    monkeypatch.delitem(sys.modules, f"tilesegment.storage.exporting.{module}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match=rf"{missing}.*pip install 'tilesegment\[{extra}\]'"):
        export_labels(image, image.with_name(f"o{ending}"))
    assert names(image.parent) == ["i.zarr"]
