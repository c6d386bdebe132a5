"""Where records come from: every source is a random-access sequence of `Record`.

Sources are picklable (data workers are processes) and open their files lazily.
"""

from __future__ import annotations

import functools
import inspect
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import tables
from gptface_jax.data.record import Record

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
# Both ways to give a source its arguments.
_WHERE = "(in data.train or data.eval of a config; as --data KEY=VALUE of a command)"


def _must_exist(path: str | os.PathLike, what: str) -> pathlib.Path:
    found = pathlib.Path(path).expanduser()
    if not found.exists():
        raise UserError(f"{what} '{path}' does not exist; check the path")
    return found


class Folder(Sequence):
    """A folder of pictures, with metadata.jsonl or metadata.csv if there is one.

    The Hugging Face imagefolder convention: every row names its picture in
    `file_name`, as seen from the metadata's own folder; `text` (or `caption`) and
    CelebA-named columns are read too. Metadata may lie in subfolders instead.
    Without any, all pictures below the folder, text = "".

    Args:
      path: the folder.
      split: name of a subfolder, to use that alone.
      text_column: name; the text defaults to text or caption.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str | None = None,
        text_column: str | None = None,
    ):
        self.root, self.text_column = _must_exist(path, "folder"), text_column
        if not self.root.is_dir():
            raise UserError(f"'{path}' is a file; give the folder that holds pictures")
        parts = sorted(f.name for f in self.root.iterdir() if f.is_dir())
        if split and split not in parts:
            raise UserError(
                f"folder '{path}' has no subfolder '{split}' that could be the split; "
                "it has: " + (", ".join(parts[:20]) or "none")
            )
        folder = self.root / (split or "")
        self.rows = self._read_rows(folder)
        if not self.rows:
            raise UserError(f"folder '{folder}' holds no picture ({IMAGE_ENDINGS})")

    def _read_rows(self, folder: pathlib.Path) -> list[dict[str, Any]]:
        """The rows of pictures below `folder`, `file_name` as seen from the root."""
        found = {}  # of two in one folder the second kind counts
        for name in ("metadata.csv", "metadata.jsonl"):
            files = (*folder.rglob(name), *self.root.glob(name))
            found |= {f.parent: f for f in files}
        if not found:
            files = sorted(folder.rglob("*"))
            pictures = [f for f in files if f.suffix.lower() in IMAGE_ENDINGS]
            return [{"file_name": str(f.relative_to(self.root))} for f in pictures]
        rows = []
        for place, table in sorted(found.items()):
            for number, row in tables.read_rows(table):
                name = row.get("file_name")
                if not (name and isinstance(name, str)):
                    raise UserError(
                        f"'{table}' row {number} has no 'file_name'; add it"
                    )
                if place in folder.parents and folder not in (place / name).parents:
                    continue  # of another split
                name = str(place.relative_to(self.root) / name)
                rows.append({**row, "file_name": name})
        return rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        row = self.rows[index]
        path = self.root / row["file_name"]
        if not path.is_file():
            raise UserError(f"picture '{path}' of the metadata does not exist")
        return Record(
            image=path.read_bytes(),
            text=tables.text_from(row, self.text_column),
            labels=tables.labels_from(row),
            expression=row.get("expression") or "",
            identity=row.get("identity") or row.get("person"),
            source=f"{self.root.name}/{row['file_name']}",
        )


class Parquet(Sequence):
    """Parquet files with an image struct {bytes, path} (Hugging Face datasets).

    Args:
      path: a file, or a folder of `<split>-*.parquet`.
      split: which files of a folder.
      image_column, text_column: names; the text defaults to text or caption.
      classes: further labels from cells that hold one of several words, as
        {"Wearing_Mask": "label=mask"}: 1 where column "label" holds "mask", else 0.
      colour: only the pictures that are stored with colours.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str | None = None,
        image_column: str = "image",
        text_column: str | None = None,
        classes: Mapping[str, str] | None = None,
        colour: bool = False,
    ):
        root = _must_exist(path, "Parquet path")
        pattern = f"{split}-*.parquet" if split else "*.parquet"
        self.files = [root] if root.is_file() else sorted(root.glob(pattern))
        if not self.files:
            raise UserError(f"no '{pattern}' in '{path}'; check path and split")
        self.image_column, self.text_column = image_column, text_column
        self.name = root.stem if root.is_file() else root.name
        columns = self._table.column_names
        self.classes = {k: v.partition("=")[::2] for k, v in (classes or {}).items()}
        named = [("image_column", image_column), ("text_column", text_column)]
        named += [("classes", column) for column, _ in self.classes.values()]
        for argument, column in named:
            if column and column not in columns:
                raise UserError(
                    f"'{self.files[0]}' has no column '{column}'"
                    f"{nearest(column, columns)}; set {argument} {_WHERE}"
                )
        self.rows = self._coloured() if colour else range(self._table.num_rows)
        if colour and not len(self.rows):
            raise UserError(f"'{path}' holds no picture with colours; leave out colour")

    def _coloured(self) -> np.ndarray:
        """Numbers of the rows whose picture has more than one channel."""
        import io

        from PIL import Image

        def bands(cell):
            data = cell["bytes"] if isinstance(cell, dict) else cell
            with Image.open(io.BytesIO(data)) as picture:  # reads the header alone
                return len(picture.getbands())

        cells = self._table.column(self.image_column)
        return np.array([i for i, c in enumerate(cells) if bands(c.as_py()) > 1], int)

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_table"}

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
        row = self._table.slice(int(self.rows[index]), 1).to_pylist()[0]
        image = row.pop(self.image_column)
        return Record(
            image=image["bytes"] if isinstance(image, dict) else image,
            text=tables.text_from(row, self.text_column),
            labels=self._labels(row),
            expression=row.get("expression") or "",
            landmarks=_points(row.get("landmarks")),
            identity=row.get("person") or row.get("identity"),
            source=self.name,
        )

    def _labels(self, row) -> dict[str, float] | None:
        labels = tables.labels_from(row)
        for name, (column, value) in self.classes.items():
            labels = {**(labels or {}), name: float(str(row[column]) == value)}
        return labels


def _points(flat) -> np.ndarray | None:
    return None if flat is None else np.asarray(flat, np.float32).reshape(-1, 2)


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
        self.root = root / images
        _, names, *lines = table.read_text().splitlines()
        self.names = names.split()
        rows = [line.split() for line in lines if line.strip()]
        if split:
            rows = self._of_split(root, rows, split)
        self.rows = rows
        people = root / "identity_CelebA.txt"
        pairs = people.read_text().splitlines() if people.is_file() else []
        self.identity = dict(p.split() for p in pairs if p.strip())

    @staticmethod
    def _of_split(root, rows, split):
        code = {"train": "0", "validation": "1", "test": "2"}.get(split)
        if code is None:
            raise UserError(f"CelebA split '{split}': use train, validation or test")
        table = _must_exist(root / "list_eval_partition.txt", "partition table")
        part = dict(line.split() for line in table.read_text().splitlines() if line)
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

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self._source[index]
        flat = {**row, **row.get("attributes", {})}
        return Record(
            image=row[self.image_column],
            text=tables.text_from(flat, self.text_column),
            labels=tables.labels_from(flat),
            source=self.args[0],
        )


class Mixture(Sequence):
    """Several sources in chosen proportions, as one.

    Args:
      sources: the parts.
      weights: share of each; by default their lengths.
      length: records in one pass; by default the sum of the lengths. A part is
        repeated, or read in part, to fill its share.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[Record]],
        weights: Sequence[float] | None = None,
        length: int | None = None,
    ):
        self.sources = list(sources)
        if not self.sources:
            raise UserError(
                "a mixture needs sources, a list of specs; give one or more"
            )
        sizes = [len(s) for s in self.sources]
        shares = np.array(weights or sizes, float)
        if len(shares) != len(sizes) or (shares <= 0).any():
            raise UserError(f"mixture weights {list(weights or [])}: one > 0 a source")
        total = length or sum(sizes)
        self.bounds = np.round(np.cumsum(shares) / shares.sum() * total).astype(int)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self.bounds, index, side="right"))
        start = 0 if part == 0 else int(self.bounds[part - 1])
        source = self.sources[part]
        return source[(index - start) % len(source)]


class Subset(Sequence):
    """Records `start` to `stop` of a source."""

    def __init__(self, source: Sequence[Record], start: int, stop: int):
        self.source, self.range = source, range(len(source))[start:stop]

    def __len__(self) -> int:
        return len(self.range)

    def __getitem__(self, index: int) -> Record:
        return self.source[self.range[index]]


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
    }


def open_source(spec: Mapping[str, Any]) -> Sequence[Record]:
    """Opens a source from its config.

    Args:
      spec: `kind` ("folder", "parquet", "celeba", "tfds", "arrayrecord",
        "tokens", "synthetic", "textures" or "mixture") and the arguments of that
        class; a mixture takes `sources` (a list of specs), `weights` and `length`.
        Any spec may hold `limit`, the number of records to use.

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
    try:
        source: Sequence[Record] = kinds[kind](**options)
    except TypeError as error:
        raise UserError(f"data source '{kind}': {error}") from None
    if limit is None:
        return source
    if limit < 1:
        raise UserError(f"limit is {limit}; use 1 record or more, or leave it out")
    return Subset(source, 0, limit)
