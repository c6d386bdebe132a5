"""Parquet files of pictures, as Hugging Face stores data sets."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import Missing, UserError, nearest
from gptface_jax.data import fingerprint, folders, image_io, tables
from gptface_jax.data.record import Record


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
        root = folders.must_exist(path, "Parquet path")
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
                    f"{nearest(column, columns)}; set {argument} {folders.WAYS}"
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
        understood = [self.text_column] if self.text_column else tables.TEXT_COLUMNS
        understood = [*understood, *tables.CELEBA_ATTRIBUTES, "Age"]
        known = np.full(self._table.num_rows, bool(self.classes))
        for name in set(understood) & set(names):
            known |= _filled(self._table[name])
        counts = {
            "rows without a picture, left out": self._table.num_rows - len(self.rows),
            folders.BARE: int((~known[self.rows]).sum()),
        }
        return folders.summary_line(self.name, len(self.rows), counts, unused)

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
            texts = tables.texts_from(row, self.text_column)
            fields = tables.fields_from(row, self.facts)
        except UserError as error:
            raise UserError(f"'{self.name}' row {number + 1}: {error}") from None
        data = self._picture(image) if isinstance(image, dict) else image
        if (parsing := row.get("parsing")) is not None:
            classes = self._picture(parsing) if isinstance(parsing, dict) else parsing
            fields["parsing"] = image_io.class_map(classes, image_io.size(data))
        classes = self._classes(row)
        if classes:
            fields["labels"] = {**(fields["labels"] or {}), **classes}
        return Record(
            image=data,
            text=next(iter(texts), ""),
            texts=texts if len(texts) > 1 else (),
            **fields,
            source=self.name,
        )

    def _picture(self, image: Mapping[str, Any]) -> bytes:
        held = image.get("bytes")
        return self._beside(image).read_bytes() if held is None else held

    def _beside(self, image: Mapping[str, Any]) -> pathlib.Path:
        """The file of a picture whose bytes are not in the table."""
        return self.files[0].parent / image["path"]

    def _classes(self, row) -> dict[str, float]:
        return {
            name: float(str(row[column]) == value)
            for name, (column, value) in self.classes.items()
        }


def _filled(column) -> np.ndarray:
    """Whether each cell holds anything, bool [rows]; NaN, "" and [] are nothing."""
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
