"""Folders of pictures with labels: which files belong together, and what is in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tilesegment.errors import InputError, OptionError

IMAGE_FOLDERS = ("images", "image")
LABEL_FOLDERS = ("instances", "labels", "label", "masks", "mask")
LABEL_ENDINGS = ("_instances", "_labels", "_label", "_masks", "_mask")
PICTURE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
_OPAQUE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}

Pixels = npt.NDArray[Any]
"""uint8, uint16 or float32."""


@dataclass(frozen=True)
class Pair:
    """One picture and its labels."""

    name: str
    """Path of the picture below the data set, without folder ``images`` and without suffix."""
    image: Path
    label: Path

    @property
    def instances(self) -> bool:
        """Whether the name of its folder, or of the file, says that every object has a number."""
        return self.label.parent.name == "instances" or self.label.stem.endswith("_instances")


def find_pairs(folder: Path) -> tuple[Pair, ...]:
    """All pairs below `folder`, in the order of their names.

    Either ``images/NAME.png`` beside ``labels/NAME.png``, in the folder or anywhere below it
    (the folders may also be called image and instances, label, masks, mask), or ``NAME.png``
    beside ``NAME_labels.png`` (or _instances, _label, _masks, _mask) in the folder itself.

    Raises:
        InputError: if there is no pair, or a picture or label has no partner.
    """
    if not folder.is_dir():
        raise InputError(f"the data set {folder} is not a folder; give a folder of pictures")
    pairs = [pair for place in _places(folder) for pair in _pairs_in_place(folder, place)]
    pairs = pairs or _pairs_side_by_side(folder)
    if not pairs:
        raise InputError(
            f"{folder} holds no pictures with labels; expected images/NAME.png with "
            "labels/NAME.png (or instances, masks), or NAME.png with NAME_labels.png"
        )
    return tuple(sorted(pairs, key=lambda pair: pair.name))


def _places(folder: Path) -> list[Path]:
    """The folders that have a subfolder of pictures."""
    found = [path for name in IMAGE_FOLDERS for path in folder.rglob(name) if path.is_dir()]
    return sorted({path.parent for path in found})


def _pairs_in_place(folder: Path, place: Path) -> list[Pair]:
    images = _subfolder(place, IMAGE_FOLDERS)
    labels = _subfolder(place, LABEL_FOLDERS)
    if images is None or labels is None:
        raise InputError(
            f"{place} has pictures but no labels; put them into {place / 'labels'} "
            f"(or one of {', '.join(LABEL_FOLDERS)})"
        )
    image_files, label_files = pictures_by_stem(images), pictures_by_stem(labels)
    check_partners(image_files, label_files, labels)
    check_partners(label_files, image_files, images)
    prefix = "" if place == folder else f"{place.relative_to(folder).as_posix()}/"
    return [Pair(prefix + stem, path, label_files[stem]) for stem, path in image_files.items()]


def _subfolder(place: Path, names: tuple[str, ...]) -> Path | None:
    return next((place / name for name in names if (place / name).is_dir()), None)


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """The pictures in a folder by their name without suffix, in the order of the names."""
    paths = sorted(folder.iterdir())
    return {path.stem: path for path in paths if path.suffix.lower() in PICTURE_SUFFIXES}


def check_partners(files: dict[str, Path], partners: dict[str, Path], folder: Path) -> None:
    """Refuse a file without a partner of the same name.

    Raises:
        InputError: naming the file, and the folder where its partner should be.
    """
    lonely = [path for stem, path in files.items() if stem not in partners]
    if lonely:
        more = f" (and {len(lonely) - 1} more)" if len(lonely) > 1 else ""
        raise InputError(
            f"{lonely[0]}{more} has no partner of the same name in {folder}; add it, or remove "
            "this file"
        )


def _pairs_side_by_side(folder: Path) -> list[Pair]:
    files = pictures_by_stem(folder)
    labels = {stem: path for stem, path in files.items() if stem.endswith(LABEL_ENDINGS)}
    of_picture = {_without_ending(stem): path for stem, path in labels.items()}
    images = {stem: path for stem, path in files.items() if stem not in labels}
    if labels:
        check_partners(images, of_picture, folder)
        check_partners(of_picture, images, folder)
    return [Pair(stem, images[stem], path) for stem, path in of_picture.items()]


def _without_ending(stem: str) -> str:
    ending = next(ending for ending in LABEL_ENDINGS if stem.endswith(ending))
    return stem.removesuffix(ending)


def group_of(name: str) -> str:
    """The kind of picture that its name begins with: up to the first underscore or slash."""
    return name.replace("/", "_").split("_")[0]


def value_name(value: int) -> str:
    """A label as people know it: large ones are colours."""
    return f"#{value:06x}" if value > 0xFFFF else str(value)


def made_up_names(values: tuple[int, ...], instances: bool) -> tuple[str, ...]:
    """Names of classes for which nobody gave one."""
    if instances:
        return ("background", "object")
    return tuple("background" if value == 0 else f"class {value_name(value)}" for value in values)


def read_image(path: Path) -> Pixels:
    """A picture as (c, y, x), uint8, uint16 or float32; an opaque alpha channel is dropped.

    Raises:
        InputError: if it is damaged, transparent, of another type, or has pixels without a value.
    """
    pixels, has_alpha = _decode(path)
    if has_alpha:
        if (pixels[..., -1] != _OPAQUE.get(pixels.dtype, 1)).any():
            raise InputError(f"{path} is transparent in places; save it without alpha channel")
        pixels = pixels[..., :-1]
    if pixels.dtype not in (np.uint8, np.uint16, np.float32):
        raise InputError(
            f"{path} has pixels of type {pixels.dtype}; convert it to uint8, uint16 or float32"
        )
    if not np.isfinite(pixels).all():
        raise InputError(f"{path} has pixels that are NaN or infinite; replace them")
    image: Pixels = np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
    return image


def read_label(path: Path) -> npt.NDArray[np.int64]:
    """Labels as (y, x) int64; a colour is the number 0xRRGGBB, a grey one its grey value.

    Raises:
        InputError: if the picture is damaged, or its values are no whole numbers from 0 on.
    """
    pixels, has_alpha = _decode(path)
    pixels = pixels[..., :-1] if has_alpha else pixels
    if (pixels.astype(np.int64) != pixels).any() or (pixels < 0).any():
        raise InputError(f"the labels {path} are no whole numbers from 0 on; save them as integers")
    values: npt.NDArray[np.int64] = pixels.astype(np.int64)
    if values.shape[-1] == 1 or (values == values[..., :1]).all():
        return values[..., 0]
    if values.shape[-1] != 3:
        raise InputError(f"the labels {path} have {values.shape[-1]} channels; 1 or 3 are possible")
    packed: npt.NDArray[np.int64] = values @ np.array([1 << 16, 1 << 8, 1])
    return packed


def read_probabilities(path: Path) -> npt.NDArray[np.float32]:
    """Probabilities from 0 to 1 as (y, x); integers are divided by the largest of their type.

    Raises:
        InputError: if the picture is damaged, coloured, or its values lie elsewhere.
    """
    pixels = read_image(path)
    largest = 1 if pixels.dtype == np.float32 else np.iinfo(pixels.dtype).max
    probabilities: npt.NDArray[np.float32] = pixels[0].astype(np.float32) / np.float32(largest)
    if len(pixels) != 1 or probabilities.min() < 0 or probabilities.max() > 1:
        raise InputError(
            f"{path} has {len(pixels)} channel(s) with values from {pixels.min()} to "
            f"{pixels.max()}; probabilities are one channel from 0 to 1"
        )
    return probabilities


def _decode(path: Path) -> tuple[Pixels, bool]:
    """Pixels (y, x, c), and whether the last channel is alpha."""
    decode = _decode_tiff if path.suffix.lower().startswith(".tif") else _decode_other
    try:
        return decode(path)
    except ImportError as error:
        raise OptionError(
            f"reading {path} needs {error.name}; pip install 'tilesegment[train]'"
        ) from error
    except InputError:
        raise
    except Exception as error:  # decoders answer damaged files with errors of every kind
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"cannot read {path}: {reason}; is the file whole?") from error


def _decode_tiff(path: Path) -> tuple[Pixels, bool]:
    import tifffile

    with tifffile.TiffFile(path) as file:
        series = file.series[0]
        axes = "".join(
            axis for axis, size in zip(series.axes, series.shape, strict=True) if size > 1
        )
        pixels = series.asarray().squeeze()
        has_alpha = bool(series.keyframe.extrasamples) and axes[-1] == "S" and pixels.shape[-1] > 1
    if axes == "YX":
        return pixels[..., None], False
    if axes in ("YXS", "YXC"):
        return pixels, has_alpha
    if axes in ("SYX", "CYX"):
        return np.moveaxis(pixels, 0, -1), False
    raise InputError(f"{path} has the axes {axes}; save every plane as a picture of its own")


def _decode_other(path: Path) -> tuple[Pixels, bool]:
    from PIL import Image

    with path.open("rb") as file:
        header = file.read(26)
    if header.startswith(b"\x89PNG") and header[24] == 16 and header[25] != 0:
        raise InputError(f"{path} is a 16-bit colour PNG, which loses bits here; save it as TIFF")
    with Image.open(path) as file:
        mode = file.mode
        if mode in ("P", "1"):
            has_colour = mode == "P" and file.palette is not None
            mode = "RGBA" if "transparency" in file.info else "RGB" if has_colour else "L"
            picture = file.convert(mode)
        else:
            picture = file.copy()
        pixels = np.asarray(picture)
    if mode not in ("L", "LA", "RGB", "RGBA", "I;16", "I", "F"):
        raise InputError(f"{path} has the colour mode {mode}; save it as grey or RGB")
    if mode == "I" and path.suffix.lower() == ".png":
        pixels = pixels.astype(np.uint16)
    return (pixels[..., None], False) if pixels.ndim == 2 else (pixels, mode in ("LA", "RGBA"))
