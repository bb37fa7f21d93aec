"""Which reader a file needs, told from its first bytes and never from its name."""

from pathlib import Path

from tilesegment.errors import InputError
from tilesegment.storage.importing.source import Source

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_JPEG_2000 = (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_GEO = ("rasterio", "zarr_cm")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_source(path: Path) -> Source:
    """Open an image file.

    Raises InputError if there is no such file, if it is of no known format, if it is damaged,
    or if the libraries that read it are not installed.
    """
    head = _first_bytes(path)
    try:
        return _reader(path, head)
    except ImportError as error:
        extra = "geo" if error.name in _GEO else "slide"
        raise InputError(
            f"{path}: reading it needs {error.name}, which is not installed: "
            f"pip install 'tilesegment[{extra}]'"
        ) from error


def _reader(path: Path, head: bytes) -> Source:
    # The libraries are an extra, and take long to import: each only where it is needed.
    if head.startswith(_PNG) or (head.startswith(_JPEG) and not _is_mirax(path)):
        return _picture(path, "PNG" if head.startswith(_PNG) else "JPEG")
    if head.startswith(_JPEG_2000):
        from tilesegment.storage.importing.jpeg2000 import Jpeg2000Source

        return Jpeg2000Source(path)

    from tilesegment.storage.importing.slide import SlideSource, is_slide

    if is_slide(path):
        return SlideSource(path)
    if head.startswith(_TIFF):
        from tilesegment.storage.importing.tiff import TiffSource

        source = TiffSource(path)
        if not source.is_georeferenced and not world_file(path):
            return source
        from tilesegment.storage.importing.geotiff import georeferenced

        return georeferenced(source, path, "GTiff")
    raise InputError(
        f"{path}: it is no image that can be read; "
        "needed is a slide (SVS, NDPI, MRXS, SCN, ...), a TIFF, a JPEG 2000, a PNG or a JPEG"
    )


def _picture(path: Path, driver: str) -> Source:
    from tilesegment.storage.importing.picture import PictureSource

    source = PictureSource(path)
    if not world_file(path):
        return source
    from tilesegment.storage.importing.geotiff import georeferenced

    return georeferenced(source, path, driver)


def world_file(path: Path) -> Path | None:
    """The file beside a picture that holds its affine, if there is one.

    >>> world_file(Path("nowhere/scene.tif")) is None
    True
    """
    letters = path.suffix.lstrip(".").lower()
    names = (f".{letters[:1]}{letters[-1:]}w", f".{letters}w", ".wld")
    found = (path.with_suffix(suffix) for name in names for suffix in (name, name.upper()))
    return next((file for file in found if file.is_file()), None)


def _is_mirax(path: Path) -> bool:
    """The index file of a MIRAX slide is a JPEG."""
    return path.suffix.lower() == ".mrxs"


def _first_bytes(path: Path) -> bytes:
    """Raises InputError, with the reason, if the file cannot be read."""
    if path.is_dir():
        raise InputError(f"{path}: it is {_folder_kind(path)}")
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the name and the folder") from error
    except PermissionError as error:
        raise InputError(f"{path}: no permission to read it; see chmod or its owner") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if not head:
        raise InputError(f"{path}: the file is empty; copy or export it again")
    return head


def _folder_kind(path: Path) -> str:
    if any((path / name).exists() for name in ("zarr.json", ".zgroup", ".zarray")):
        return "a Zarr store, which needs no import; use it directly"
    return "a folder, not an image; name one file in it"
