"""Measurements of objects in their label image: a Zarr array for each column.

They lie in the group ``measurements`` of the label image. The object with identity i is in row
i - 1 of every array, so that one is found without looking for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from tilesegment.errors import InputError
from tilesegment.storage.image import OMEVersion
from tilesegment.storage.limits import check_array, guarded

GROUP = "measurements"
ROWS = 65536
"""Rows that are written, and read for a table, at once."""
_CHUNK = 4096
_HELD_PIECES = 4

Columns = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class StoredMeasurements:
    """The measurements of all objects of a label image."""

    group: zarr.Group
    names: tuple[str, ...]
    """Of the columns, in their order."""
    count: int
    """Objects."""
    class_names: Mapping[int, str]
    """By class."""

    def read(self, start: int, stop: int) -> dict[str, npt.NDArray[Any]]:
        """Some rows of every column.

        Raises:
            InputError: if they are damaged.
        """
        try:
            return {name: np.asarray(guarded(self.group[name])[start:stop]) for name in self.names}
        except (KeyError, ValueError, RuntimeError, OSError) as error:
            raise InputError(
                f"the measurements in {self.group.store_path} are damaged ({error}); make the "
                "objects anew with --overwrite"
            ) from error

    def of(self, identity: int) -> dict[str, Any] | None:
        """The measurements of one object and the name of its class; None if there is no such."""
        if not 1 <= identity <= self.count:
            return None
        row = self.read(identity - 1, identity)
        found = {name: values[0].item() for name, values in row.items()}
        return {**found, "class_name": self.class_name(found["class"])}

    def class_name(self, value: int) -> str:
        """The name of a class; its number where it has none."""
        return self.class_names.get(value, str(value))

    def pieces(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        """All rows, in pieces."""
        for start in range(0, self.count, ROWS):
            yield self.read(start, min(start + ROWS, self.count))


class MeasurementLookup:
    """The measurements of one object after the other; quick where identities are near."""

    def __init__(self, stored: StoredMeasurements) -> None:
        self._stored = stored
        self._piece = lru_cache(_HELD_PIECES)(self._read)

    def _read(self, number: int) -> dict[str, list[Any]]:
        rows = self._stored.read(number * ROWS, min((number + 1) * ROWS, self._stored.count))
        return {name: values.tolist() for name, values in rows.items()}

    def of(self, identity: int) -> dict[str, Any] | None:
        """As `StoredMeasurements.of`."""
        if not 1 <= identity <= self._stored.count:
            return None
        number, row = divmod(identity - 1, ROWS)
        found = {name: values[row] for name, values in self._piece(number).items()}
        return {**found, "class_name": self._stored.class_name(found["class"])}


class MeasurementWriter:
    """Writes the measurements of a label image, `ROWS` objects at a time."""

    def __init__(
        self,
        directory: Path,
        version: OMEVersion,
        like: Columns,
        count: int,
        class_names: Mapping[int, str],
    ) -> None:
        # What a run that was cut short has begun of it is of no use.
        self._group = zarr.create_group(
            directory / GROUP, zarr_format=3 if version == "0.5" else 2, overwrite=True
        )
        for name, values in like.items():
            _create_column(self._group, name, values.dtype, count, version)
        self._group.attrs["columns"] = list(like)
        self._group.attrs["row"] = "identity - 1"
        self._group.attrs["classes"] = {str(value): name for value, name in class_names.items()}

    def write(self, start: int, columns: Columns) -> None:
        """Write rows from `start` on."""
        for name, values in columns.items():
            self._group[name][start : start + len(values)] = values


def _create_column(
    group: zarr.Group, name: str, dtype: np.dtype[Any], count: int, version: OMEVersion
) -> None:
    common: dict[str, Any] = {"name": name, "shape": (count,), "dtype": dtype}
    if version == "0.4":
        group.create_array(**common, chunks=(ROWS,))
        return
    group.create_array(
        **common,
        chunks=(_CHUNK,),
        shards=(ROWS,),
        compressors=ZstdCodec(level=1, checksum=True),
        dimension_names=["object"],
    )


def has_measurements(directory: Path) -> bool:
    """Whether a label image has measurements of its own; not behind a link that leads out."""
    group = directory / GROUP
    return group.is_dir() and group.resolve() == directory.resolve() / GROUP


def open_measurements(directory: Path) -> StoredMeasurements | None:
    """The measurements in a label image; None if it has none.

    Raises:
        InputError: if they are damaged.
    """
    if not has_measurements(directory):
        return None
    where = str(directory / GROUP)
    try:
        group = zarr.open_group(where, mode="r")
        names: Any = tuple(group.attrs["columns"])
        classes: Any = group.attrs["classes"]
        columns = [group[name] for name in names]
        for column in columns:
            check_array(column, where)
        class_names = {int(value): str(name) for value, name in classes.items()}
        return StoredMeasurements(group, names, columns[0].shape[0], class_names)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(f"the measurements in {where} are damaged ({error})") from error
