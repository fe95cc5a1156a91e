"""Rows as Arrow tables and as Parquet bytes: checking what is appended, writing a file, reading it back in pieces.

Knows one file at a time; which files make a stream is in parts.py. A Parquet file of ours is zstd with
dictionaries and page checksums, and its writer returns the CRC-32 of all bytes, because page checksums
leave out the headers and the footer.
"""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from interplay.errors import StoreError, nearest

Columns = Mapping[str, Sequence[Any] | np.ndarray[Any, Any] | pa.Array]

_GROUP_BYTES = 32 * 2**20  # a row group: large enough to compress, small enough to merge in little memory


# --- what is appended ------------------------------------------------------------------------------


def as_table(stream: str, schema: pa.Schema, columns: Columns | pa.Table) -> pa.Table:
    """A table of exactly this schema. Raises `StoreError` that names the column."""
    given = dict(zip(columns.column_names, columns.columns, strict=True)) if isinstance(columns, pa.Table) else dict(columns)
    unknown = [name for name in given if name not in schema.names]
    if unknown:
        raise StoreError(f"column {unknown[0]!r} is not in {stream}{nearest(unknown[0], schema.names)}; it has: {', '.join(schema.names)}")
    missing = [field.name for field in schema if field.name not in given and not field.nullable]
    if missing:
        raise StoreError(f"column {missing[0]!r} of {stream} is missing; only columns that may be null can be left out")
    lengths = {name: len(values) for name, values in given.items()}
    if len(set(lengths.values())) > 1:
        raise StoreError(f"columns of {stream} have different lengths: {', '.join(f'{name} {n}' for name, n in lengths.items())}")
    count = next(iter(lengths.values()), 0)
    arrays = [_as_array(stream, field, given[field.name]) if field.name in given else pa.nulls(count, field.type) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def _as_array(stream: str, field: pa.Field, values: Any) -> pa.Array | pa.ChunkedArray:
    try:
        array = _converted(field.type, values)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise StoreError(f"column {field.name!r} of {stream} must be {field.type}: {one_line(error)}") from error
    if array.null_count and not field.nullable:
        raise StoreError(f"column {field.name!r} of {stream} holds {array.null_count} nulls, and may hold none")
    return array


def _converted(kind: pa.DataType, values: Any) -> pa.Array | pa.ChunkedArray:
    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values if values.type == kind else values.cast(kind)
    if pa.types.is_fixed_size_list(kind):
        sketch_UK = np.asarray(values, dtype=np.float16).reshape(len(values), -1)
        if len(values) and sketch_UK.shape[1] != kind.list_size:
            raise ValueError(f"got {sketch_UK.shape[1]} numbers in each row")
        return pa.FixedSizeListArray.from_arrays(pa.array(sketch_UK.reshape(-1)), type=kind)
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode().cast(kind)
    return pa.array(values, kind)


# --- one file --------------------------------------------------------------------------------------


class DamagedError(StoreError):
    """A file that should be readable is not."""

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"{path} is damaged ({one_line(error)}); the other parts can still be read")
        self.path, self.fault = path, f"damaged ({one_line(error)})"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160]


def checksum(path: Path) -> int:
    """CRC-32 of all bytes of a file."""
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


class _Summed(io.RawIOBase):
    """A file that counts its CRC while it is written, front to back."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self.file, self.crc = file, 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.crc = zlib.crc32(data, self.crc)
        return self.file.write(data)

    def tell(self) -> int:
        return self.file.tell()


def write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> tuple[int, int]:
    """Write and fsync; returns rows and CRC-32."""
    rows = 0
    with open(path, "wb") as file:
        summed = _Summed(file)
        with pq.ParquetWriter(pa.PythonFile(summed, mode="w"), schema, **_options(schema)) as writer:
            for table in tables:
                if table.num_rows:
                    writer.write_table(table)
                    rows += table.num_rows
        file.flush()
        os.fsync(file.fileno())
    return rows, summed.crc


def _options(schema: pa.Schema) -> dict[str, Any]:
    """zstd, and dictionaries for what repeats, which measured numbers do not."""
    # BYTE_STREAM_SPLIT would make sketches a tenth smaller, but DuckDB 2.0 cannot read it for half-floats
    repeating = [field.name for field in schema if not pa.types.is_floating(field.type) and not pa.types.is_fixed_size_list(field.type)]
    return {"compression": "zstd", "use_dictionary": repeating, "write_page_checksum": True}


def row_groups(paths: Iterable[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """Rows of files in pieces of bounded memory. Raises `DamagedError` for a file that can no longer be read."""
    waiting: list[pa.Table] = []
    size = 0
    for path in paths:
        for table in pieces(path, schema):
            waiting.append(table)
            size += table.nbytes
            if size >= _GROUP_BYTES:
                yield joined(waiting)
                waiting, size = [], 0
    if waiting:
        yield joined(waiting)


def pieces(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of one file. Raises `DamagedError`."""
    target = schema if columns is None else pa.schema([schema.field(name) for name in columns])
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            for group in range(file.num_row_groups):
                held = [name for name in target.names if name in file.schema_arrow.names]
                yield _completed(file.read_row_group(group, columns=held), target)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(path, error) from error


def _completed(table: pa.Table, target: pa.Schema) -> pa.Table:
    """The wanted columns: what an older file has not is null, what a newer one has besides is left out. Raises `pa.ArrowInvalid` where null may not be."""
    missing = [field.name for field in target if field.name not in table.column_names]
    if any(not target.field(name).nullable for name in missing):
        raise pa.ArrowInvalid(f"no column {missing[0]}")
    arrays = [pa.nulls(len(table), field.type) if field.name in missing else table[field.name].cast(field.type) for field in target]
    return pa.Table.from_arrays(arrays, schema=target)


def joined(tables: Sequence[pa.Table]) -> pa.Table:
    """One contiguous table, so that it becomes one row group."""
    return pa.concat_tables(tables).unify_dictionaries().combine_chunks()
