"""Measurements as a table in a file: Parquet or CSV, written in pieces."""

from pathlib import Path
from typing import Any

from tilesegment.errors import OptionError
from tilesegment.storage.exporting.destination import published
from tilesegment.storage.measurements import Columns, StoredMeasurements

TABLES = (".parquet", ".csv")


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
