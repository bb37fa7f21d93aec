"""What a file is, and the one line for each that is none."""

import builtins
import os
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from tilesegment.errors import InputError
from tilesegment.storage.importing.detect import open_source


def folder(path: Path) -> None:
    path.mkdir()


def zarr_store(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_text("{}")


def text(path: Path) -> None:
    path.write_text("not an image, whatever its name says")


def empty(path: Path) -> None:
    path.touch()


def absent(path: Path) -> None:
    pass


def short_tiff(path: Path) -> None:
    path.write_bytes(b"II*\0")


BAD = [
    (absent, "no such file"),
    (folder, "a folder, not an image"),
    (zarr_store, "a Zarr store.*use it directly"),
    (text, "no image that can be read; needed is a slide"),
    (empty, "the file is empty"),
    (short_tiff, "cut short"),
]


@pytest.mark.parametrize(("make", "reason"), BAD)
@pytest.mark.parametrize("name", ["it.svs", "it.tif", "it.png"])
def test_what_is_no_image_is_told_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], reason: str, name: str
) -> None:
    make(tmp_path / name)
    with pytest.raises(InputError, match=reason) as caught:
        open_source(tmp_path / name)
    assert str(caught.value).startswith(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read() -> None:
    # Not tmp_path, in which another user may not even look.
    with TemporaryDirectory() as name:
        path = Path(name) / "it.svs"
        text(path)
        path.chmod(0)
        path.parent.chmod(0o755)
        is_root = os.geteuid() == 0
        if is_root:
            os.seteuid(65534)
        try:
            with pytest.raises(InputError, match="no permission to read it"):
                open_source(path)
        finally:
            if is_root:
                os.seteuid(0)


def test_a_refusal_of_the_system_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text(tmp_path / "it.svs")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match="no permission to read it"):
        open_source(tmp_path / "it.svs")


def test_content_decides_and_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(tmp_path / "a.tif", format="PNG")
    tifffile.imwrite(tmp_path / "b.svs", np.zeros((5, 7), np.uint16))
    with open_source(tmp_path / "a.tif") as source:
        assert source.info.format == "PNG"
    with open_source(tmp_path / "b.svs") as source:
        assert source.info.dtype == np.uint16


@pytest.mark.parametrize("share", [0.2, 0.5, 0.7, 0.97])
def test_a_slide_that_is_cut_short(slide: Path, tmp_path: Path, share: float) -> None:
    stored = slide.read_bytes()
    (tmp_path / "cut.svs").write_bytes(stored[: int(len(stored) * share)])
    with pytest.raises(InputError, match="damaged or cut short"):
        open_source(tmp_path / "cut.svs")


@pytest.mark.parametrize(
    ("missing", "reader", "suffix"),
    [("openslide", "slide", ".tif"), ("tifffile", "tiff", ".tif"), ("PIL", "picture", ".png")],
)
def test_a_missing_library_is_named_with_the_way_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, reader: str, suffix: str
) -> None:
    path = (tmp_path / "it").with_suffix(suffix)
    Image.fromarray(np.zeros((5, 7), np.uint8)).save(path)
    plain = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.split(".")[0] == missing:
            raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
        return plain(name, *args)

    monkeypatch.delitem(sys.modules, f"tilesegment.storage.importing.{reader}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=rf"needs {missing}.*pip install 'tilesegment\[slide\]'"):
        open_source(path)
