"""Samples of Parquet files, read a row at a time."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gptface_jax.data.prepare import metadata, sample
from gptface_jax.data.prepare.sample import Fault, Rejected, Sample
from gptface_jax.data.prepare.settings import Config

_BOMB = 100  # times the file's size; no row group of pictures is so large unpacked
# Hugging Face's column of structs, and those of img2dataset's output format parquet.
_IMAGES = ("image", "jpg", "png", "webp", "image_bytes")


def row_groups(path: pathlib.Path) -> list[int]:
    """Rows of each row group of a file; [] where it is no Parquet."""
    import pyarrow.parquet as pq

    try:
        about = pq.ParquetFile(path).metadata
        return [about.row_group(i).num_rows for i in range(about.num_row_groups)]
    except Exception:  # of a hostile file anything may come
        return []


def _unpacks(about: Sequence[Any], path: pathlib.Path, config: Config) -> bool:
    """Whether one of the row groups of a file is far larger in memory than the file."""
    # Not by column: pyarrow ends the process where the footer of one is damaged.
    most = max(config.decoding.max_bytes, _BOMB * path.stat().st_size)
    return any(group.total_byte_size > most for group in about)


def keys(path: pathlib.Path, groups: range, config: Config) -> set[str]:
    """Keys of the rows of some row groups; none of those that are too large to read."""
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if _unpacks([file.metadata.row_group(i) for i in groups], path, config):
            return set()
        table = file.read_row_groups(list(groups), ["key"])
    except Exception:  # of a hostile file anything may come
        return set()
    found = (row.get("key") for row in rows(table) if isinstance(row, dict))
    return {str(key) for key in found if isinstance(key, (str, int))}


def samples(
    path: pathlib.Path,
    groups: range | None,
    config: Config,
    image_column: str | None = None,
    text_column: str | None = None,
    more: Callable[[str, Mapping], Mapping] | None = None,
    name: str = "",
    facts: Sequence[str] = (),
) -> Iterator[Sample | Rejected]:
    """Every row as a sample, or why it is none; a key may come twice.

    Args:
      path: of the file.
      groups: row groups to read; None where the file could not be opened before.
      config: its limits count.
      image_column, text_column: by default those of known names.
      more: key and row -> further columns, or None.
      name: stands before the key in `Record.source`; by default that of the file.
      facts: columns whose cells become `Record.facts`.
    """
    import pyarrow.parquet as pq

    name = name or path.stem
    try:
        file = pq.ParquetFile(path)
        about = [file.metadata.row_group(i) for i in groups or ()]
        left = sum(group.num_rows for group in about)
        # One row: more would be faster by nothing, and some of them are large.
        batches = file.iter_batches(1, row_groups=list(groups or ()))
    except Exception:  # of a hostile file anything may come
        left = 0
    # A footer that tells more rows than the file has bytes would be read for days.
    if not 0 < left <= path.stat().st_size:
        yield Rejected(path.name, sample.UNREADABLE)
        return
    number = groups.start << 32
    make = functools.partial(
        _sample,
        folder=path.parent,
        config=config,
        image_column=image_column,
        text_column=text_column,
        more=more,
        name=name,
        facts=facts,
    )
    reason = sample.UNREADABLE
    if _unpacks(about, path, config):
        reason, batches = sample.TOO_MANY_BYTES, ()
    try:
        for batch in batches:
            for row in rows(batch):
                left -= 1
                key = f"{number >> 32}-{number & 0xFFFFFFFF}"
                number += 1
                if isinstance(row, str):
                    yield Rejected(key, row)
                    continue
                if isinstance(row.get("key"), (str, int)):
                    key = str(row["key"])
                yield sample.guarded(key, functools.partial(make, key, row))
    except Exception:
        pass  # the file says how many are left
    for _ in range(left):
        yield Rejected(f"{name}/{number}", reason)
        number += 1


def rows(batch: Any) -> Iterator[dict[str, Any] | str]:
    """Rows of a batch or table; of one that holds no Python values the reason."""
    try:
        yield from batch.to_pylist()
        return
    except Exception:  # a date of the year 5,000,000, a time zone of nowhere, ...
        pass  # which of them it is, only each by itself tells
    for i in range(batch.num_rows):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield sample.NOT_UTF8
        except Exception as error:
            yield sample.failed(error)


def _sample(
    key: str,
    row: dict[str, Any],
    folder: pathlib.Path,
    config: Config,
    image_column: str | None,
    text_column: str | None,
    more: Callable[[str, Mapping], Mapping] | None,
    name: str,
    facts: Sequence[str],
) -> Sample:
    """The sample of a row.

    Raises:
      UserError: it is none.
    """
    names = [image_column] if image_column else [n for n in _IMAGES if n in row]
    image = row.pop(names[0], None) if names else None
    data = _bytes(image, folder, config.decoding.max_bytes)
    if text_column:
        row["text"] = row.get(text_column)
    row = metadata.joined(row, more(key, row)) if more else row
    return metadata.sample_of(key, data, row, f"{name}/{key}", facts=facts)


def _bytes(image: Any, folder: pathlib.Path, most: int) -> bytes:
    """The file of a cell.

    Raises:
      Fault: there is none.
    """
    if isinstance(image, Mapping):
        held, path = image.get("bytes"), image.get("path")
        if held is None and isinstance(path, str) and path:
            return _beside(folder, path, most)
        image = held
    if image is None:
        raise Fault(sample.NO_PICTURE)
    if not isinstance(image, bytes):
        raise Fault(sample.WRONG_TYPE)
    if len(image) > most:
        raise Fault(sample.TOO_MANY_BYTES)
    return image


def _beside(folder: pathlib.Path, name: str, most: int) -> bytes:
    """A picture file that a table names, which must lie in its folder."""
    try:
        inside = folder.resolve()
        path = (folder / name).resolve()
        if not path.is_relative_to(inside):
            raise Fault(sample.UNSAFE_NAME)
        if not path.is_file():
            raise Fault(sample.NO_PICTURE)
        if path.stat().st_size > most:
            raise Fault(sample.TOO_MANY_BYTES)
        return path.read_bytes()
    except Fault:
        raise
    except (OSError, ValueError, RuntimeError):
        raise Fault(sample.UNREADABLE) from None
