"""Samples of Parquet files, read a few rows at a time."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gptface_jax.core.errors import UserError
from gptface_jax.data.prepare import metadata, sample
from gptface_jax.data.prepare.sample import Rejected, Sample
from gptface_jax.data.prepare.settings import Config

_TOGETHER = 64  # rows; of large pictures some 100 MB
# Hugging Face's column of structs, and those of img2dataset's output format parquet.
_IMAGES = ("image", "jpg", "png", "webp", "image_bytes")


def row_groups(path: pathlib.Path) -> list[int]:
    """Rows of each row group of a file; [] where it is no Parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = pq.ParquetFile(path).metadata
        return [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError):
        return []


def samples(
    path: pathlib.Path,
    groups: range | None,
    config: Config,
    image_column: str | None = None,
    text_column: str | None = None,
    more: Callable[[str, Mapping], Mapping] | None = None,
) -> Iterator[Sample | Rejected]:
    """Every row as a sample, or why it is none.

    Args:
      path: of the file.
      groups: row groups to read; None where the file could not be opened before.
      config: its limits count.
      image_column, text_column: by default those of known names.
      more: key and row -> further columns, or None.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        left = sum(file.metadata.row_group(i).num_rows for i in groups or ())
        batches = file.iter_batches(_TOGETHER, row_groups=list(groups or ()))
    except (pa.ArrowException, OSError, ValueError, IndexError):
        left, batches = 0, iter(())
    if not left:
        yield Rejected(path.name, sample.UNREADABLE)
        return
    number = groups.start << 32
    try:
        for batch in batches:
            for row in _rows(batch):
                left -= 1
                yield _sample(path, number, row, config, image_column, text_column,
                              more)  # fmt: skip
                number += 1
    except (pa.ArrowException, OSError, ValueError):
        for _ in range(left):  # the file says how many there are
            yield Rejected(f"{path.stem}/{number}", sample.UNREADABLE)
            number += 1


def _rows(batch: Any) -> Iterator[Mapping[str, Any] | None]:
    """Rows of a batch; None for one whose text is no UTF-8."""
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for i in range(batch.num_rows):
            try:
                yield batch.slice(i, 1).to_pylist()[0]
            except UnicodeDecodeError:
                yield None


def _sample(
    path: pathlib.Path,
    number: int,
    row: Mapping[str, Any] | None,
    config: Config,
    image_column: str | None,
    text_column: str | None,
    more: Callable[[str, Mapping], Mapping] | None,
) -> Sample | Rejected:
    key = f"{number >> 32}-{number & 0xFFFFFFFF}"
    if row is None:
        return Rejected(key, sample.NOT_UTF8)
    row = dict(row)
    if isinstance(row.get("key"), (str, int)):
        key = str(row["key"])
    names = [image_column] if image_column else [n for n in _IMAGES if n in row]
    image = row.pop(names[0], None) if names else None
    data = _bytes(image, path.parent, config.decoding.max_bytes)
    if isinstance(data, str):
        return Rejected(key, data)
    if text_column:
        row["text"] = row.get(text_column)
    try:
        row |= more(key, row) if more else {}
        return metadata.sample_of(key, data, row, f"{path.stem}/{key}")
    except UserError:
        return Rejected(key, sample.WRONG_TYPE)


def _bytes(image: Any, folder: pathlib.Path, most: int) -> bytes | str:
    """The file of a cell, or why there is none."""
    if isinstance(image, Mapping):
        held, path = image.get("bytes"), image.get("path")
        if held is None and isinstance(path, str) and path:
            return _beside(folder, path, most)
        image = held
    if image is None:
        return sample.NO_PICTURE
    if not isinstance(image, bytes):
        return sample.WRONG_TYPE
    return image if len(image) <= most else sample.TOO_MANY_BYTES


def _beside(folder: pathlib.Path, name: str, most: int) -> bytes | str:
    """A picture file that a table names, which must lie in its folder."""
    try:
        inside = folder.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(inside):
            return sample.UNSAFE_NAME
        if not path.is_file():
            return sample.NO_PICTURE
        if path.stat().st_size > most:
            return sample.TOO_MANY_BYTES
        return path.read_bytes()
    except (OSError, ValueError, RuntimeError):
        return sample.UNREADABLE
