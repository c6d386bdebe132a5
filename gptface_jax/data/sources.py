"""Where records come from: every source is a random-access sequence of `Record`.

Sources are picklable (data workers are processes) and open their files lazily.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import fingerprint, folders, image_io, schemes, tables
from gptface_jax.data.composed import Chosen, Fold, Mixture, Named, Subset
from gptface_jax.data.folders import Folder
from gptface_jax.data.parquet import Parquet
from gptface_jax.data.record import Record


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
        root = folders.must_exist(path, "CelebA folder")
        table = folders.must_exist(root / "list_attr_celeba.txt", "attribute table")
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
        return self._print(sizes=True)

    def order(self) -> str:
        """`fingerprint` without the sizes of the pictures."""
        return self._print(sizes=False)

    def _print(self, sizes: bool) -> str:
        names = [row[0] for row in self.rows]
        tables_ = [table.absolute() for table in self.tables]
        return fingerprint.many_files(self.root, names, tables_, sizes)

    @staticmethod
    def _of_split(root, rows, split):
        code = {"train": "0", "validation": "1", "test": "2"}.get(split)
        if code is None:
            raise UserError(f"CelebA split '{split}': use train, validation or test")
        table = folders.must_exist(root / "list_eval_partition.txt", "partition table")
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
    the text; `expression`, `landmarks` [P,2], `boxes` [N,4], `parsing` (a PNG) and
    `source` what they are called, as `data.datasets` writes them.

    Args:
      name: of the data set.
      split: as TFDS names it.
      data_dir: where it was prepared; None for the default of TFDS.
      image_column, text_column: names of features.
      keep: features for `cells`; those that it does not have are passed over.

    Attributes:
      columns: names of all features.
    """

    def __init__(
        self,
        name: str,
        split: str = "train",
        data_dir: str | None = None,
        image_column: str = "image",
        text_column: str | None = None,
        keep: Sequence[str] = (),
    ):
        self.args, self.keep = (name, split, data_dir), tuple(keep)
        self.image_column, self.text_column = image_column, text_column
        if len(self) == 0:
            raise UserError(f"TFDS '{name}' has nothing in split '{split}'")
        first = self._source[0]
        columns = {**first, **first.get("attributes", {})}
        self.columns = frozenset(columns)
        named = {"image_column": image_column, "text_column": text_column}
        for argument, column in named.items():
            if column and column not in columns:
                raise UserError(
                    f"TFDS '{name}' has no feature '{column}'"
                    f"{nearest(column, columns)}; set {argument} {folders.WAYS}"
                )

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_source"}

    @functools.cached_property
    def _source(self):
        import tensorflow_datasets as tfds

        name, split, data_dir = self.args
        try:
            features = tfds.builder(name, data_dir=data_dir).info.features
            skipped = {self.image_column, *({"parsing"} & set(features))}
            raw = dict.fromkeys(skipped, tfds.decode.SkipDecoding())
            return tfds.data_source(name, split=split, data_dir=data_dir, decoders=raw)
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"'{name}' is no file or folder here, and as a data set of TFDS its "
                f"split '{split}' cannot be opened ({reason}); check the path, or "
                "prepare the set as array_record, with the extra tfds-build where "
                f"TensorFlow is needed, and set data_dir {folders.WAYS}"
            ) from None

    def fingerprint(self) -> str:
        info = getattr(self._source, "dataset_info", None)
        return fingerprint.few_words(getattr(info, "full_name", ""), len(self))

    def __len__(self) -> int:
        return len(self._source)

    def cells(self, index: int) -> dict[str, Any]:
        """Values of the kept features of a row, texts as str, by name."""
        row = self._source[index] if self.columns.intersection(self.keep) else {}
        flat = {**row, **row.get("attributes", {})}
        return {name: _value(flat[name]) for name in self.keep if name in flat}

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
            **_more_of_tfds(row),
            # Of "set/config" the set: what has a "/" names a picture.
            source=_word(row.get("source")) or self.args[0].partition("/")[0],
        )


def _value(cell: Any) -> Any:
    """A value of TFDS as Python has it; arrays stay."""
    cell = cell.item() if isinstance(cell, np.generic) else cell
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else cell


def _word(value: Any) -> str:
    return _value(value) if isinstance(value, bytes) else ""


def _more_of_tfds(row: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a record that `data.datasets` writes."""
    found: dict[str, Any] = {"expression": _word(row.get("expression"))}
    for name, columns in (("landmarks", 2), ("boxes", 4)):
        value = row.get(name)
        if isinstance(value, np.ndarray) and value.ndim == 2 and len(value):
            if value.shape[1] == columns:
                found[name] = np.asarray(value, np.float32)
    if "landmarks" in found:
        found["landmark_scheme"] = schemes.of_points(len(found["landmarks"]))
    if isinstance(parsing := row.get("parsing"), bytes):
        found["parsing"] = image_io.class_map(parsing, image_io.size(row["image"]))
    return found


def _kinds() -> dict[str, Any]:
    from gptface_jax.data import rendered, shards, synthetic, textures

    return {
        "folder": Folder,
        "parquet": Parquet,
        "celeba": CelebA,
        "tfds": Tfds,
        "arrayrecord": shards.Records,
        "tokens": shards.Tokens,
        "synthetic": synthetic.SyntheticFaces,
        "synthetic_edits": synthetic.SyntheticEdits,
        "rendered": rendered.RenderedFaces,
        "textures": textures.Textures,
        "mixture": Mixture,
        "named": Named,
        "fold": Fold,
    }


def summaries(source: Sequence[Record]) -> list[str]:
    """A line for each folder or table in a source: what is in it, and not used."""
    if isinstance(source, Mixture):
        lines = [line for part in source.sources for line in summaries(part)]
        return list(dict.fromkeys(lines))
    if isinstance(source, (Chosen, Named, Subset)):
        return summaries(source.source)
    return [source.summary()] if hasattr(source, "summary") else []


def open_source(spec: Mapping[str, Any], report: bool = False) -> Sequence[Record]:
    """The records of a source, opened by its config.

    Args:
      spec: `kind` ("folder", "parquet", "celeba", "tfds", "arrayrecord",
        "tokens", "synthetic", "synthetic_edits", "rendered", "textures", "mixture",
        "named" or "fold") and the arguments of that class; a mixture takes `sources` (a
        list of specs), `weights` and `length`, "named" a `source` (a spec) and a
        `name`, and "fold" a `source`, which part of its people is held out, and
        `people_of` (a spec), where the people are those of another source.
        Any spec may hold `limit`, the number of records to use.
      report: write `summaries` to stderr.

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
    for name in ("source", "people_of"):
        if name in options and kind in ("named", "fold"):
            options[name] = open_source(options[name])
    try:
        source: Sequence[Record] = kinds[kind](**options)
    except TypeError as error:
        raise UserError(f"data source '{kind}': {error}") from None
    if report:
        for line in summaries(source):
            print(line, file=sys.stderr)
    if limit is None:
        return source
    if limit < 1:
        raise UserError(f"limit is {limit}; use 1 record or more, or leave it out")
    return Subset(source, 0, limit)
