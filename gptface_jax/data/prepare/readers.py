"""Sources of `gptface prepare --config`, cut into units, and the samples of a unit.

A source is a mapping with a `kind`:

* "webdataset": `path`, a tar or a folder of tars, as img2dataset writes them;
* "parquet": `path`, a file or a folder of files, with pictures in a column (as
  img2dataset and Hugging Face have them); `image_column`, `text_column` name others;
* any kind of `data.sources` with its arguments: folder, tfds, celeba, arrayrecord,
  synthetic, ...

The first two take `metadata`, a folder with a Parquet of the same stem for each file, a
row a `key`; and `detections`, a folder that `gptface data detections` made. All but
tfds take `name`, which stands before the source of every record.

A unit is what one worker does at a time, and what is done again if it dies: a tar, some
row groups, a range of records.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gptface_jax.core.errors import Missing, UserError, nearest
from gptface_jax.data import fingerprint, sources
from gptface_jax.data.prepare import columns, detections, metadata, sample, tars
from gptface_jax.data.prepare.sample import Rejected, Sample
from gptface_jax.data.prepare.settings import Config

_STREAMED = ("webdataset", "parquet")
_NAMED = ("tfds", "named")  # to which `name` is something else


@dataclasses.dataclass(frozen=True)
class Files:
    """Arguments of a source of kind "webdataset" or "parquet"; see above."""

    kind: str
    path: str
    name: str = ""
    metadata: str = ""
    detections: str = ""
    image_column: str = ""
    text_column: str = ""
    limit: int = 0


@dataclasses.dataclass(frozen=True)
class Unit:
    """A part of a source.

    Attributes:
      source: its place in `Config.sources`.
      path: of the file; "" of a source that is read at random.
      start, stop: row groups of a Parquet, or records; 0 and 0 where there are none.
    """

    source: int
    path: str = ""
    start: int = 0
    stop: int = 0


def _files_of(spec: Mapping[str, Any]) -> tuple[Files, list[pathlib.Path]]:
    names = list(inspect.signature(Files).parameters)
    for key in spec:
        if key not in names:
            raise UserError(
                f"source '{spec['kind']}' has no argument '{key}'"
                f"{nearest(key, names)}; it takes " + ", ".join(names)
            )
    if not spec.get("path"):
        raise UserError(f"source '{spec['kind']}' has no path; say where the files are")
    given = Files(**spec)
    root, ending = pathlib.Path(given.path).expanduser(), _ending(given.kind)
    if not root.exists():
        raise Missing(f"source '{given.path}' does not exist; check the path")
    found = [root] if root.is_file() else sorted(root.rglob(f"*{ending}"))
    # Beside its tars img2dataset leaves Parquets without pictures.
    paths = [path for path in found if path.is_file()]
    if not paths:
        raise Missing(f"no '*{ending}' in '{given.path}'; check path and kind")
    if given.detections:
        detections.Detections(given.detections)  # raises where there are none
    if given.metadata and not pathlib.Path(given.metadata).expanduser().is_dir():
        raise Missing(f"metadata '{given.metadata}' is no folder; check the path")
    return given, paths[: given.limit or None]


def _ending(kind: str) -> str:
    return ".tar" if kind == "webdataset" else ".parquet"


def units(config: Config) -> tuple[list[Unit], list[Any]]:
    """The units of all sources in order, and a fingerprint of each source.

    Raises:
      UserError: a source that cannot be opened, or an argument that it does not have.
    """
    found, prints = [], []
    for number, spec in enumerate(config.sources):
        if spec.get("kind") in _STREAMED:
            given, paths = _files_of(spec)
            prints.append(fingerprint.large_files(paths))
            for path in paths:
                found += _of_file(number, given.kind, path, config.unit_size)
        else:
            source = _opened(spec)
            prints.append(fingerprint.of(source))
            for start in range(0, len(source), config.unit_size):
                stop = min(start + config.unit_size, len(source))
                found.append(Unit(number, "", start, stop))
    return found, prints


def _opened(spec: Mapping[str, Any]):
    """The records of a source that is read at random."""
    ours = spec["kind"] not in _NAMED
    return sources.open_source(
        {k: v for k, v in spec.items() if not (ours and k == "name")}
    )


def _name(spec: Mapping[str, Any]) -> str:
    """Prefix of the source of every record, "" for none."""
    return "" if spec["kind"] in _NAMED else spec.get("name", "")


def _of_file(number: int, kind: str, path: pathlib.Path, size: int) -> Iterator[Unit]:
    name = os.fspath(path.absolute())  # workers may stand elsewhere
    if kind == "webdataset":
        yield Unit(number, name)
        return
    groups = columns.row_groups(path)
    if not groups:
        yield Unit(number, name)  # that it cannot be read will be counted
    start = rows = 0
    for stop, count in enumerate(groups, 1):
        rows += count
        if rows >= size or stop == len(groups):
            yield Unit(number, name, start, stop)
            start, rows = stop, 0


class Reader:
    """Function from a unit to its samples; picklable, keeps what it has opened."""

    def __init__(self, config: Config):
        self.config = config

    def __getstate__(self):
        return {"config": self.config}

    @functools.cached_property
    def _open(self) -> dict[int, Any]:
        return {}

    def __call__(self, unit: Unit) -> Iterator[Sample | Rejected]:
        spec = self.config.sources[unit.source]
        if not unit.path:
            return self._records(unit, spec)
        given, path = Files(**spec), pathlib.Path(unit.path)
        try:
            rows = _metadata_rows(given.metadata, path) if given.metadata else {}
            more = self._more(given, rows, unit.source)
        except UserError:
            # Without it nobody knows what was opted out.
            return (
                s if isinstance(s, Rejected) else s.rejected(sample.NO_METADATA)
                for s in self._streamed(given, path, unit, None)
            )
        return self._with_rows(self._streamed(given, path, unit, more), rows)

    def _streamed(self, given: Files, path, unit: Unit, more):
        name = given.name
        if given.kind == "webdataset":
            found = tars.samples(path, self.config, more)
        else:
            groups = range(unit.start, unit.stop) if unit.stop else None
            names = given.image_column or None, given.text_column or None
            found = columns.samples(path, groups, self.config, *names, more)
        for item in found:
            if isinstance(item, Sample) and name:
                record = item.record
                record = dataclasses.replace(record, source=f"{name}/{record.source}")
                item = dataclasses.replace(item, record=record)
            yield item

    @staticmethod
    def _with_rows(
        items: Iterator[Sample | Rejected], rows: dict[str, Any]
    ) -> Iterator[Sample | Rejected]:
        """The items, and a rejection of every row that none of them has."""
        for item in items:
            rows.pop(item.key, None)
            yield item
        for key in rows:
            yield Rejected(key, sample.ROW_ALONE)

    def _more(
        self, given: Files, rows: Mapping[str, Any], number: int
    ) -> Callable[[str, Mapping], Mapping] | None:
        """Function from key and row to further columns; see the module."""
        if given.detections and number not in self._open:
            self._open[number] = detections.Detections(given.detections)
        found = self._open.get(number)
        if not rows and found is None:
            return None

        def more(key: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
            extra = dict(rows.get(key, {}))
            ids = {**row, **extra}
            sample_id = ids.get("SAMPLE_ID", ids.get("sample_id"))
            if found is not None and sample_id is not None:
                try:
                    faces = found.faces(int(sample_id))
                except (TypeError, ValueError, OverflowError):
                    raise UserError(f"SAMPLE_ID {sample_id!r} is no number") from None
                if faces is not None:
                    extra["faces"] = list(zip(faces.boxes, faces.points, faces.scores))
            return extra

        return more

    def _records(self, unit: Unit, spec) -> Iterator[Sample | Rejected]:
        if unit.source not in self._open:
            self._open[unit.source] = _opened(spec)
        source, name = self._open[unit.source], _name(spec)
        for index in range(unit.start, unit.stop):
            key = str(index)
            try:
                record = source[index]
            except (UserError, OSError, ValueError):
                yield Rejected(key, sample.UNREADABLE)
                continue
            if record.image is None:
                yield Rejected(key, sample.NO_PICTURE)
                continue
            if isinstance(record.image, bytes):
                if len(record.image) > self.config.decoding.max_bytes:
                    yield Rejected(key, sample.TOO_MANY_BYTES)
                    continue
            whole = f"{name}/{record.source}" if name else record.source
            record = dataclasses.replace(record, source=whole)
            yield Sample(key, record, faces=metadata.faces_of_record(record))


def _metadata_rows(folder: str, path: pathlib.Path) -> dict[str, Mapping[str, Any]]:
    """Rows of the table of a file by their key.

    Raises:
      UserError: there is none, it cannot be read, or it has no column `key`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pathlib.Path(folder).expanduser() / f"{path.stem}.parquet"
    try:
        rows = pq.read_table(table).to_pylist()
        return {str(row.pop("key")): row for row in rows}
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise UserError(f"metadata '{table}' cannot be read ({error})") from None
