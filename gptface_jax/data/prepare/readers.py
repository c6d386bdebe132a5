"""Sources of `gptface prepare --config`, cut into units, and the samples of a unit.

A source is a mapping with a `kind`:

* "webdataset": `path`, a tar or a folder of tars, as img2dataset writes them;
* "parquet": `path`, a file or a folder of files, with pictures in a column (as
  img2dataset and Hugging Face have them); `image_column`, `text_column` name others;
* any kind of `data.sources` with its arguments: folder, tfds, celeba, arrayrecord,
  synthetic, ...

The first two take `facts`, columns that become those of records; `metadata`, a folder
with a Parquet for each file, at the same place below it (split_1/00000.parquet for
split_1/00000.tar), a row a `key`; and `detections`, a folder that `gptface data
detections` made. They, the table of a folder and the features of a TFDS set tell
addresses, scores and faces; `opt_out`, `filters.max_scores` and `filters.allowed` are
refused for others but what is drawn, and with `opt_out` a picture whose address nothing
tells is rejected. All but tfds take `name`, which stands before the
source of every record.

A unit is what one worker does at a time, and what is done again if it dies: a tar, some
row groups, a range of records.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import os
import pathlib
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from gptface_jax.core.errors import Missing, UserError, nearest
from gptface_jax.data import fingerprint, folders, sources
from gptface_jax.data.prepare import columns, detections, metadata, sample, tars
from gptface_jax.data.prepare.sample import Rejected, Sample
from gptface_jax.data.prepare.settings import Config

_STREAMED = ("webdataset", "parquet")
_WITH_TABLE = ("folder", "tfds")
_NAMED = ("tfds", "named")  # to which `name` is something else
_COMPRESSED = tuple(".tar.gz .tgz .tar.bz2 .tbz2 .tar.xz .txz .tar.zst".split())
# What a folder of pictures passes over -> why; other kinds are files of other formats.
_PASSED_OVER = {
    folders.NO_FILES: sample.NO_FILE,
    folders.WITHOUT_ROW: sample.NO_ROW,
    folders.LINKED: sample.NO_FILE,
    folders.OUTSIDE: sample.UNSAFE_NAME,
    folders.FAULTS: sample.BAD_ROW,
}
_DRAWN = ("synthetic", "synthetic_edits", "rendered", "textures")  # nobody's pictures


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
    facts: tuple[str, ...] = ()
    limit: int = 0


@dataclasses.dataclass(frozen=True)
class Unit:
    """A part of a source.

    Attributes:
      source: its place in `Config.sources`.
      path: of the file; "" of a source that is read at random.
      start, stop: row groups of a Parquet, or records; 0 and 0 where there are none.
      name: of the file, as seen from the source's folder.
      last: whether no unit of the same file follows.
    """

    source: int
    path: str = ""
    start: int = 0
    stop: int = 0
    name: str = ""
    last: bool = True

    @property
    def records(self) -> int | None:
        """How many samples it has; None of a file, which tells when it is read."""
        return None if self.path else self.stop - self.start

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return os.path.splitext(self.name)[0]


def _files_of(spec: Mapping[str, Any]) -> tuple[Files, dict[str, pathlib.Path]]:
    """Arguments of a source, and its files by name as seen from its folder."""
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
    paths = [root] if root.is_file() else _named_so(root, ending)
    if not any(path.is_file() for path in paths):
        raise Missing(f"no '*{ending}' in '{given.path}'; check path and kind")
    if given.detections:
        detections.Detections(given.detections)  # raises where there are none
    if given.metadata and not pathlib.Path(given.metadata).expanduser().is_dir():
        raise Missing(f"metadata '{given.metadata}' is no folder; check the path")
    folder = root.parent if root.is_file() else root
    chosen = paths[: given.limit or None]
    named = {path.relative_to(folder).as_posix(): path for path in chosen}
    tables = [_table(given.metadata, os.path.splitext(name)[0]) for name in named]
    if given.metadata and not any(table.is_file() for table in tables):
        raise Missing(
            f"metadata '{given.metadata}' has no table of any file, such as "
            f"'{tables[0]}'; lay them as the files of '{given.path}' lie"
        )
    return given, named


def _named_so(root: pathlib.Path, ending: str) -> list[pathlib.Path]:
    """All below a folder that is called as what is read there, whatever it is.

    Folders that hold such files are none of it: Spark calls one "set.parquet". Links to
    folders are, which nobody follows: they may lead in a circle.
    """
    endings = (ending, *(_COMPRESSED if ending == ".tar" else ()))
    found = sorted(
        path
        for path in root.rglob("*")
        if path.name.endswith(endings) or (path.is_symlink() and path.is_dir())
    )
    above = {folder for path in found for folder in path.parents}
    return [path for path in found if path not in above]


def _table(folder: str, stem: str) -> pathlib.Path:
    """The table of metadata of a file."""
    return pathlib.Path(folder).expanduser() / f"{stem}.parquet"


def _told(given: Files, names: Iterable[str]) -> list[pathlib.Path]:
    """Files of the metadata and the detections of a source."""
    stems = (os.path.splitext(name)[0] for name in names if given.metadata)
    found = [_table(given.metadata, stem) for stem in stems]
    if given.detections:
        below = pathlib.Path(given.detections).expanduser().rglob("*.npy")
        found += sorted(below)
    return [path for path in found if path.is_file()]


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
            there = [path for path in paths.values() if path.is_file()]
            told = _told(given, paths)
            prints.append(fingerprint.large_files([*there, *told]))
            for name, path in paths.items():
                found += _of_file(number, given.kind, name, path, config.unit_size)
        else:
            source = _opened(spec, config)
            table = _table_of(source)
            _check_unknown(spec, config, table.columns if table else frozenset())
            prints.append(fingerprint.of(source))
            total = len(source) + len(_passed_over(source))
            for start in range(0, total, config.unit_size):
                stop = min(start + config.unit_size, total)
                found.append(Unit(number, "", start, stop))
    return found, prints


def _check_unknown(
    spec: Mapping[str, Any], config: Config, told: frozenset[str]
) -> None:
    """Raises UserError where a config asks for what a source cannot tell.

    Args:
      spec: its arguments.
      config: what asks.
      told: columns of its table, if it is a folder.
    """
    limits = config.filters
    asked = [("opt_out", config.opt_out, metadata.URL)] * bool(config.opt_out)
    for key in ("max_scores", "allowed"):
        asked += [(f"filters.{key}", name, (name,)) for name in getattr(limits, key)]
    for key, value, columns_ in asked:
        if spec["kind"] not in _DRAWN and not told.intersection(columns_):
            raise UserError(
                f"{key} is {value!r}, and the source of kind '{spec['kind']}' has no "
                f"column {' or '.join(columns_)}; bring it as {' or '.join(_STREAMED)},"
                " as a folder with such a column in its metadata.csv or as a TFDS set "
                f"with such a feature, or prepare it apart, without {key}"
            )


def _opened(spec: Mapping[str, Any], config: Config):
    """The records of a source that is read at random."""
    ours = spec["kind"] not in _NAMED
    given = {k: v for k, v in spec.items() if not (ours and k == "name")}
    if spec["kind"] == "folder":
        given["trusted"] = False
    if spec["kind"] in _WITH_TABLE:
        limits = config.filters
        # Faces of a TFDS set are in its records; no box there is "not known".
        faces = metadata.FACES if spec["kind"] == "folder" else ()
        scores = (*limits.max_scores, *limits.allowed)
        given["keep"] = (*metadata.URL, *faces, *scores)
    return sources.open_source(given)


def _table_of(source: Any) -> folders.Folder | sources.Tfds | None:
    """The folder or TFDS set that a source is, or whose first records it is."""
    whole = source.source if isinstance(source, sources.Subset) else source
    return whole if isinstance(whole, (folders.Folder, sources.Tfds)) else None


def _passed_over(source: Any) -> list[str]:
    """Why each of what a source passes over is no record; they follow its records.

    Hidden files are not among them: a rule, as for members of a tar.
    """
    skipped = dict(getattr(source, "skipped", {}))
    skipped.pop(folders.HIDDEN, None)
    return [
        _PASSED_OVER.get(kind, sample.NOT_A_PICTURE)
        for kind, count in sorted(skipped.items())
        for _ in range(count)
    ]


def _name(spec: Mapping[str, Any]) -> str:
    """Prefix of the source of every record, "" for none."""
    return "" if spec["kind"] in _NAMED else spec.get("name", "")


def _of_file(
    number: int, kind: str, name: str, path: pathlib.Path, size: int
) -> Iterator[Unit]:
    # Workers may stand elsewhere.
    whole = Unit(number, os.fspath(path.absolute()), name=name)
    tabular = kind == "parquet" and path.is_file()
    groups = columns.row_groups(path) if tabular else []
    if not groups:  # a file that cannot be read will be counted
        yield whole
    start = rows = 0
    for stop, count in enumerate(groups, 1):
        rows += count
        if rows >= size or stop == len(groups):
            last = stop == len(groups)
            yield dataclasses.replace(whole, start=start, stop=stop, last=last)
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
        if unit.path:
            found = self._of_file(unit, Files(**spec))
        else:
            found = self._records(unit, spec)
        if self.config.opt_out and spec["kind"] not in _DRAWN:
            return map(_with_address, found)
        return found

    def _of_file(self, unit: Unit, given: Files) -> Iterator[Sample | Rejected]:
        """Samples of a file, one a key, and what its metadata tells of none of them."""
        path = pathlib.Path(unit.path)
        rows, odd = None, collections.Counter()
        if given.metadata:
            rows, odd = _metadata_rows(given.metadata, unit.stem)
        more = self._more(given, rows, unit.source)
        name = f"{given.name}/{unit.stem}" if given.name else unit.stem
        if not path.is_file():  # opening a pipe would never end
            found = [Rejected(unit.name, sample.NO_FILE)]
        elif path.name.endswith(_COMPRESSED):
            found = [Rejected(unit.name, sample.COMPRESSED)]
        elif given.kind == "webdataset":
            found = tars.samples(path, self.config, more, name, given.facts)
        else:
            groups = range(unit.start, unit.stop) if unit.stop else None
            names = given.image_column or None, given.text_column or None
            found = columns.samples(
                path, groups, self.config, *names, more, name, given.facts
            )
        seen = (
            columns.keys(path, range(unit.start), self.config) if unit.start else set()
        )
        for item in found:
            if item.key in seen:
                item = Rejected(item.key, sample.DUPLICATE_KEY)
            seen.add(item.key)
            yield item
        if not unit.last:
            return
        used = {_row_key(rows or {}, key) for key in seen}
        for key in rows or ():
            if key not in used:
                yield Rejected(key, sample.ROW_ALONE)
        yield from [Rejected("", sample.BAD_ROW)] * odd.pop("", 0)
        for key in odd:
            if key not in used:
                yield Rejected(key, sample.DUPLICATE_KEY)

    def _more(
        self, given: Files, rows: Mapping[str, Any] | None, number: int
    ) -> Callable[[str, Mapping], Mapping] | None:
        """Function from key and row to further columns; see the module."""
        if given.detections and number not in self._open:
            self._open[number] = detections.Detections(given.detections)
        found = self._open.get(number)
        if rows is None and found is None:
            return None

        def more(key: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
            # Without its row nobody knows whether a picture was opted out.
            own = _row_key(rows or {}, key)
            if rows is not None and own not in rows:
                raise sample.Fault(sample.NO_ROW if rows else sample.NO_METADATA)
            extra = dict(rows[own]) if rows else {}
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
            self._open[unit.source] = _opened(spec, self.config)
        source, name = self._open[unit.source], _name(spec)
        for index in range(unit.start, min(unit.stop, len(source))):
            make = functools.partial(self._record, source, index, name)
            yield sample.guarded(str(index), make)
        if unit.stop > len(source):
            for index, reason in enumerate(_passed_over(source), len(source)):
                if unit.start <= index < unit.stop:
                    yield Rejected(str(index), reason)

    def _record(self, source, index: int, name: str) -> Sample:
        """The sample of a record.

        Raises:
          UserError: it is none.
        """
        table, most = _table_of(source), self.config.decoding.max_bytes
        try:
            of_files = isinstance(table, folders.Folder)
            large = of_files and table.num_bytes(index) > most  # not even read
            record = None if large else source[index]
        except (UserError, OSError, ValueError):
            raise sample.Fault(sample.UNREADABLE) from None
        if record is None:
            raise sample.Fault(sample.TOO_MANY_BYTES)
        if record.image is None:
            raise sample.Fault(sample.NO_PICTURE)
        if isinstance(record.image, bytes):
            if len(record.image) > most:
                raise sample.Fault(sample.TOO_MANY_BYTES)
        whole = f"{name}/{record.source}" if name else record.source
        if name and "/" not in record.source:
            whole = f"{whole}/{index}"  # or it would be taken for one picture's
        record = dataclasses.replace(record, source=whole)
        row = table.cells(index) if table else {}
        faces = metadata.faces_of(row) or metadata.faces_of_record(record)
        return Sample(str(index), record, metadata.url_of(row), row, faces)


def _with_address(item: Sample | Rejected) -> Sample | Rejected:
    """The sample, unless nobody knows whether it was opted out; then nothing of it."""
    if isinstance(item, Sample) and not item.url:
        return Rejected(item.key, sample.NO_ADDRESS)
    return item


def _row_key(rows: Mapping[str, Any], key: str) -> str:
    """The key of a sample's row: tars write "./0" for "0"."""
    return key if key in rows else posixpath.normpath(key)


def _metadata_rows(
    folder: str, stem: str
) -> tuple[dict[str, Mapping[str, Any]], collections.Counter[str]]:
    """Rows of the table of a file by their key, and how many others there are by key.

    These are keys that are there twice, for nobody knows which row is meant, and ""
    for rows without one. Of a table that cannot be read there is nothing.
    """
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(_table(folder, stem))
        rows = list(columns.rows(table))
        keys = [_own_key(row) for row in rows]
    except Exception:  # of a hostile file anything may come
        return {}, collections.Counter()
    count = collections.Counter(keys)
    found = {k: row for k, row in zip(keys, rows) if k and count[k] == 1}
    return found, collections.Counter(
        {key: n for key, n in count.items() if key not in found}
    )


def _own_key(row: Any) -> str:
    """Takes the key out of a row of metadata; "" where it has none."""
    key = row.pop("key", None) if isinstance(row, dict) else None
    return "" if key is None else str(key)
