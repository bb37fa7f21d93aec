"""Measurements of objects in their label image: a Zarr array for each column.

They lie in the group ``measurements`` of the label image. The object with identity i is in row
i - 1 of every array, so that one is found without looking for it. Tables in files (Parquet, CSV)
are copies of them, written in pieces.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import ZstdCodec

from tilesegment.errors import InputError, OptionError
from tilesegment.storage.exporting.destination import published
from tilesegment.storage.image import OMEVersion
from tilesegment.storage.limits import check_array, guarded

GROUP = "measurements"
ROWS = 65536
"""Rows that are written, and read for a table, at once."""
TABLES = (".parquet", ".csv")
_CHUNK = 4096

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
        self._group = zarr.create_group(directory / GROUP, zarr_format=3 if version == "0.5" else 2)
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


def check_table(path: Path) -> None:
    """Whether a table can be written there.

    Raises:
        OptionError: if its ending is none of a table, or a library is not installed.
    """
    if path.suffix.lower() not in TABLES:
        raise OptionError(f"{path}: its ending says no table; use one of {', '.join(TABLES)}")
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise OptionError(
            "a table needs pyarrow, which is not installed: pip install 'tilesegment[objects]'"
        ) from error


def write_table(path: Path, stored: StoredMeasurements) -> None:
    """Write Parquet or CSV, a row group for each piece, with the names of classes.

    Raises:
        OutputError: if the disk refuses.
    """
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    def named(columns: Columns) -> Any:
        names = [stored.class_name(value) for value in columns["class"].tolist()]
        table: dict[str, Any] = {}
        for name, values in columns.items():
            table[name] = pa.array(values)
            if name == "class":
                table["class_name"] = pa.array(names, pa.string())
        return pa.record_batch(table)

    schema = named(stored.read(0, 0)).schema
    with published(path) as partial:
        if path.suffix.lower() == ".csv":
            writer = pyarrow.csv.CSVWriter(partial, schema)
        else:
            writer = pyarrow.parquet.ParquetWriter(partial, schema, compression="zstd")
        with writer:
            for piece in stored.pieces():
                writer.write_batch(named(piece))
