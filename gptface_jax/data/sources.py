"""Where records come from: every source is a random-access sequence of `Record`.

Sources are picklable (data workers are processes) and open their files lazily.
"""

from __future__ import annotations

import functools
import inspect
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import Missing, UserError, nearest
from gptface_jax.data import fingerprint, folders, schemes, tables
from gptface_jax.data.composed import Chosen, Mixture, Named, Subset
from gptface_jax.data.folders import Folder
from gptface_jax.data.record import Record

# Both ways to give a source its arguments.
_WHERE = "(in data.train or data.eval of a config; as --data KEY=VALUE of a command)"


def _must_exist(path: str | os.PathLike, what: str) -> pathlib.Path:
    found = pathlib.Path(path).expanduser()
    if not found.exists():
        raise Missing(f"{what} '{path}' does not exist; check the path")
    return found


class Parquet(Sequence):
    """Parquet files with an image struct {bytes, path} (Hugging Face datasets).

    Where bytes are missing, `path` names a file, as seen from the Parquet's folder;
    rows without either are left out.

    Args:
      path: a file, or a folder of `<split>-*.parquet`.
      split: which files of a folder.
      image_column, text_column: names; the text defaults to text or caption.
      classes: further labels from cells that hold one of several words, as
        {"Wearing_Mask": "label=mask"}: 1 where column "label" holds "mask", else 0.
      colour: only the pictures that are stored with colours.
      facts: further columns, whose cells become `Record.facts`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str | None = None,
        image_column: str = "image",
        text_column: str | None = None,
        classes: Mapping[str, str] | None = None,
        colour: bool = False,
        facts: Sequence[str] = (),
    ):
        root = _must_exist(path, "Parquet path")
        pattern = f"{split}-*.parquet" if split else "*.parquet"
        self.files = [root] if root.is_file() else sorted(root.glob(pattern))
        if not self.files:
            raise Missing(f"no '{pattern}' in '{path}'; check path and split")
        self.image_column, self.text_column = image_column, text_column
        self.name = root.stem if root.is_file() else root.name
        columns = self._table.column_names
        self.classes = {k: v.partition("=")[::2] for k, v in (classes or {}).items()}
        named = [("image_column", image_column), ("text_column", text_column)]
        named += [("classes", column) for column, _ in self.classes.values()]
        self.facts = tuple(facts)
        named += [("facts", column) for column in self.facts]
        for argument, column in named:
            if column and column not in columns:
                raise UserError(
                    f"'{self.files[0]}' has no column '{column}'"
                    f"{nearest(column, columns)}; set {argument} {_WHERE}"
                )
        self.rows = self._with_pictures()
        if not len(self.rows):
            raise UserError(f"'{path}' holds no picture in column '{image_column}'")
        if colour:
            self.rows = self._coloured()
        if not len(self.rows):
            raise UserError(f"'{path}' holds no picture with colours; leave out colour")

    def _coloured(self) -> np.ndarray:
        """Numbers of those rows whose picture has more than one channel."""
        import io

        from PIL import Image

        def bands(cell):
            data = self._picture(cell) if isinstance(cell, dict) else cell
            with Image.open(io.BytesIO(data)) as picture:  # reads the header alone
                return len(picture.getbands())

        cells = self._table.column(self.image_column)
        return np.array([i for i in self.rows if bands(cells[int(i)].as_py()) > 1], int)

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_table"}

    def fingerprint(self) -> str:
        return fingerprint.large_files(self.files)

    def _with_pictures(self) -> np.ndarray:
        """Numbers of the rows whose picture is there: as bytes, or as a file."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self._table[self.image_column]
        if not pa.types.is_struct(column.type):
            return np.flatnonzero(pc.is_valid(column))
        there = np.array(pc.is_valid(pc.struct_field(column, "bytes")))
        for number in np.flatnonzero(~there):
            image = column[int(number)].as_py() or {}
            there[number] = bool(image.get("path")) and self._beside(image).is_file()
        return np.flatnonzero(there)

    def summary(self) -> str:
        """One line: how many pictures, and what of the table is not used."""
        used = {self.image_column, self.text_column, "landmarks"}
        used |= {column for column, _ in self.classes.values()} | set(self.facts)
        names = self._table.column_names
        unused = tables.ignored(names, *used)
        told = [self.text_column] if self.text_column else tables.TEXT_COLUMNS
        told = [*told, *tables.CELEBA_ATTRIBUTES, "Age"]
        known = np.full(self._table.num_rows, bool(self.classes))
        for name in set(told) & set(names):
            known |= _filled(self._table[name])
        counts = {
            "rows without a picture, left out": self._table.num_rows - len(self.rows),
            folders.BARE: int((~known[self.rows]).sum()),
        }
        return folders.told(self.name, len(self.rows), counts, unused)

    @functools.cached_property
    def _table(self):
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pa.concat_tables([pq.read_table(f) for f in self.files])
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(
                f"'{self.files[0]}' is no readable Parquet: {error}"
            ) from None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        number = int(self.rows[index])
        row = self._table.slice(number, 1).to_pylist()[0]
        image = row.pop(self.image_column)
        try:
            texts, labels = tables.texts_from(row, self.text_column), self._labels(row)
        except UserError as error:
            raise UserError(f"'{self.name}' row {number + 1}: {error}") from None
        identity = tables.given(row.get("person"))
        if identity is None:
            identity = tables.given(row.get("identity"))
        return Record(
            image=self._picture(image) if isinstance(image, dict) else image,
            text=next(iter(texts), ""),
            texts=texts if len(texts) > 1 else (),
            labels=labels,
            facts=tables.facts_from(row, self.facts),
            expression=tables.given(row.get("expression")) or "",
            **_points(row.get("landmarks")),
            identity=identity,
            source=self.name,
        )

    def _picture(self, image: Mapping[str, Any]) -> bytes:
        held = image.get("bytes")
        return self._beside(image).read_bytes() if held is None else held

    def _beside(self, image: Mapping[str, Any]) -> pathlib.Path:
        """The file of a picture whose bytes are not in the table."""
        return self.files[0].parent / image["path"]

    def _labels(self, row) -> dict[str, float] | None:
        labels = tables.labels_from(row)
        for name, (column, value) in self.classes.items():
            labels = {**(labels or {}), name: float(str(row[column]) == value)}
        return labels


def _filled(column) -> np.ndarray:
    """bool [rows]: whether a cell holds anything; NaN, "" and [] are nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind, there = column.type, pc.is_valid(column)
    if pa.types.is_floating(kind):
        there = pc.and_(there, pc.invert(pc.is_nan(column)))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        there = pc.and_(there, pc.greater(pc.utf8_length(column), 0))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        there = pc.and_(there, pc.greater(pc.list_value_length(column), 0))
    return np.array(pc.fill_null(there, False))


def _points(flat) -> dict[str, Any]:
    """Fields of a record with landmarks, their scheme by their number."""
    if flat is None:
        return {}
    points = np.asarray(flat, np.float32).reshape(-1, 2)
    return {"landmarks": points, "landmark_scheme": schemes.of_points(len(points))}


class CelebA(Sequence):
    """CelebA as downloaded: a picture folder and list_attr_celeba.txt.

    Args:
      path: folder with `list_attr_celeba.txt`, the pictures in
        `img_align_celeba/` (or `images`), optionally `list_eval_partition.txt`
        and `identity_CelebA.txt`.
      split: "train", "validation" or "test" (needs the partition file), or None.
      images: name of the picture folder.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str | None = None,
        images: str = "img_align_celeba",
    ):
        root = _must_exist(path, "CelebA folder")
        table = _must_exist(root / "list_attr_celeba.txt", "attribute table")
        self.root, self.tables = root / images, [table]
        _, names, *lines = [*table.read_text("utf-8-sig").splitlines(), "", ""]
        self.names = names.split()
        rows = [line.split() for line in lines if line.strip()]
        for row in rows:
            if len(row) != len(self.names) + 1:
                raise UserError(
                    f"'{table}': the line of '{row[0]}' has {len(row) - 1} values and "
                    f"the second line {len(self.names)} names; get the file again"
                )
        if split:
            rows = self._of_split(root, rows, split)
        self.rows = rows
        people = root / "identity_CelebA.txt"
        self.tables += [people] * people.is_file()
        pairs = people.read_text("utf-8-sig").splitlines() if people.is_file() else []
        self.identity = dict(p.split() for p in pairs if p.strip())

    def fingerprint(self) -> str:
        names = [row[0] for row in self.rows]
        return fingerprint.many_files(
            self.root, names, [table.absolute() for table in self.tables]
        )

    @staticmethod
    def _of_split(root, rows, split):
        code = {"train": "0", "validation": "1", "test": "2"}.get(split)
        if code is None:
            raise UserError(f"CelebA split '{split}': use train, validation or test")
        table = _must_exist(root / "list_eval_partition.txt", "partition table")
        part = dict(
            line.split() for line in table.read_text("utf-8-sig").splitlines() if line
        )
        return [r for r in rows if part.get(r[0]) == code]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        name, *values = self.rows[index]
        return Record(
            image=(self.root / name).read_bytes(),
            labels=tables.labels_from(dict(zip(self.names, values))),
            identity=self.identity.get(name),
            source=f"{self.root.parent.name}/{name}",
        )


class Tfds(Sequence):
    """Any TensorFlow Datasets set with an `image` feature, read without TensorFlow.

    `attributes` (as in celeb_a) become labels, `text`, `caption` or `captions`
    the text.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        data_dir: str | None = None,
        image_column: str = "image",
        text_column: str | None = None,
    ):
        self.args = (name, split, data_dir)
        self.image_column, self.text_column = image_column, text_column
        if len(self) == 0:
            raise UserError(f"TFDS '{name}' has nothing in split '{split}'")
        first = self._source[0]
        columns = {**first, **first.get("attributes", {})}
        named = {"image_column": image_column, "text_column": text_column}
        for argument, column in named.items():
            if column and column not in columns:
                raise UserError(
                    f"TFDS '{name}' has no feature '{column}'"
                    f"{nearest(column, columns)}; set {argument} {_WHERE}"
                )

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_source"}

    @functools.cached_property
    def _source(self):
        import tensorflow_datasets as tfds

        name, split, data_dir = self.args
        raw = {self.image_column: tfds.decode.SkipDecoding()}
        try:
            return tfds.data_source(name, split=split, data_dir=data_dir, decoders=raw)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"TFDS '{name}' split '{split}' cannot be opened ({reason}); prepare "
                "it as array_record, with the extra tfds-build where TensorFlow is "
                f"needed, and set data_dir {_WHERE}"
            ) from None

    def fingerprint(self) -> str:
        info = getattr(self._source, "dataset_info", None)
        return fingerprint.few_words(getattr(info, "full_name", ""), len(self))

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self._source[index]
        flat = {**row, **row.get("attributes", {})}
        texts = tables.texts_from(flat, self.text_column)
        return Record(
            image=row[self.image_column],
            text=next(iter(texts), ""),
            texts=texts if len(texts) > 1 else (),
            labels=tables.labels_from(flat),
            source=self.args[0],
        )


def _kinds() -> dict[str, Any]:
    from gptface_jax.data import shards, synthetic, textures

    return {
        "folder": Folder,
        "parquet": Parquet,
        "celeba": CelebA,
        "tfds": Tfds,
        "arrayrecord": shards.Records,
        "tokens": shards.Tokens,
        "synthetic": synthetic.SyntheticFaces,
        "textures": textures.Textures,
        "mixture": Mixture,
        "named": Named,
    }


def summaries(source: Sequence[Record]) -> list[str]:
    """A line for each folder or table in a source: what is in it, and not used."""
    if isinstance(source, Mixture):
        lines = [line for part in source.sources for line in summaries(part)]
        return list(dict.fromkeys(lines))
    if isinstance(source, (Chosen, Named, Subset)):
        return summaries(source.source)
    return [source.summary()] if hasattr(source, "summary") else []


def open_source(spec: Mapping[str, Any], tell: bool = False) -> Sequence[Record]:
    """Opens a source from its config.

    Args:
      spec: `kind` ("folder", "parquet", "celeba", "tfds", "arrayrecord",
        "tokens", "synthetic", "textures", "mixture" or "named") and the arguments of
        that class; a mixture takes `sources` (a list of specs), `weights` and `length`,
        and "named" a `source` (a spec) and a `name`.
        Any spec may hold `limit`, the number of records to use.
      tell: write `summaries` to stderr.

    Raises:
      UserError: an unknown kind or argument, or a source that cannot be opened.
    """
    options = {k: v for k, v in dict(spec).items() if v is not None}
    kind, limit = options.pop("kind", None), options.pop("limit", None)
    kinds = _kinds()
    if kind not in kinds:
        raise UserError(
            f"data kind '{kind}' is unknown{nearest(str(kind), kinds)}; known: "
            + ", ".join(kinds)
        )
    names = list(inspect.signature(kinds[kind]).parameters)
    for name in options:
        if name not in names:
            raise UserError(
                f"data source '{kind}' has no argument '{name}'{nearest(name, names)}; "
                "it takes " + ", ".join(names)
            )
    if kind == "mixture":
        options["sources"] = [open_source(s) for s in options.get("sources", ())]
    if kind == "named" and "source" in options:
        options["source"] = open_source(options["source"])
    try:
        source: Sequence[Record] = kinds[kind](**options)
    except TypeError as error:
        raise UserError(f"data source '{kind}': {error}") from None
    if tell:
        for line in summaries(source):
            print(line, file=sys.stderr)
    if limit is None:
        return source
    if limit < 1:
        raise UserError(f"limit is {limit}; use 1 record or more, or leave it out")
    return Subset(source, 0, limit)
