"""A folder of pictures: which files count, and what is known of each."""

from __future__ import annotations

import collections
import dataclasses
import importlib.util
import os
import pathlib
import posixpath
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from gptface_jax.core.errors import Missing, UserError, nearest
from gptface_jax.data import fingerprint, image_io, tables
from gptface_jax.data.record import Record

# Read where the extra `heif` is installed.
_HEIF = (".heic", ".heif")
_READS_HEIF = importlib.util.find_spec("pillow_heif") is not None
ENDINGS = (
    *".jpg .jpeg .jfif .png .webp .bmp .tif .tiff .gif .avif".split(),
    *(_HEIF if _READS_HEIF else ()),
)
# Pictures that are counted where they are passed over.
_UNREADABLE = (*_HEIF, ".jxl", ".jp2", ".psd", ".svg", ".raw", ".dng", ".cr2")
# Of several in one folder the last one counts.
_TABLES = ("metadata.parquet", "metadata.csv", "metadata.jsonl")


# Kinds of what is passed over, beside endings.
NO_FILES, HIDDEN, WITHOUT_ROW = "no files", "hidden", "without a row"
LINKED, OUTSIDE = "linked folders", "links out of the folder"
FAULTS = "rows that cannot be used"


@dataclasses.dataclass(frozen=True)
class Listing:
    """Files of a folder by kind; names are as seen from it, with "/".

    Attributes:
      pictures: in order of their parts.
      others: all further files but hidden ones.
      skipped: what looks like pictures and is none, or cannot be read: kind -> count;
        "hidden", "no files" and "linked folders" are kinds, the others are endings.
    """

    pictures: tuple[str, ...]
    others: frozenset[str]
    skipped: Mapping[str, int]

    def skipped_words(self) -> str:
        """ "3 .heic, 2 hidden", or ""."""
        return ", ".join(f"{n} {kind}" for kind, n in sorted(self.skipped.items()))


def listing(folder: str | os.PathLike, deep: bool = True) -> Listing:
    """The files of a folder.

    Left out is what begins with "." or "__", as file or as folder above it: other
    programs put such copies and thumbnails beside pictures (._a.jpg, __MACOSX,
    .ipynb_checkpoints). So are folders and devices that are called like pictures, and
    links to folders, which may lead in a circle.

    Args:
      folder: it exists.
      deep: also all folders below.
    """
    root = pathlib.Path(folder)
    pictures, others, skipped = [], set(), collections.Counter()
    for parent, subfolders, names in os.walk(root):
        visible = [n for n in subfolders if not n.startswith((".", "__"))]
        subfolders[:] = visible if deep else ()  # `os.walk` enters what is left
        skipped[LINKED] += sum(os.path.islink(f"{parent}/{n}") for n in subfolders)
        for name in names:
            path = pathlib.Path(parent, name)
            ending, shown = path.suffix.lower(), path.relative_to(root).as_posix()
            if name.startswith((".", "__")):
                skipped[HIDDEN] += ending in ENDINGS
            elif ending in ENDINGS and path.is_file():
                pictures.append(shown)
            elif ending in (*ENDINGS, *_UNREADABLE):
                skipped[NO_FILES if ending in ENDINGS else ending] += 1
            else:
                others.add(shown)
        if not deep:
            break
    pictures.sort(key=lambda name: name.split("/"))
    return Listing(tuple(pictures), frozenset(others), +skipped)


def normal(name: str) -> str:
    """A name as it compares: composed letters, whichever way a system stores them."""
    return unicodedata.normalize("NFC", name)


def resolve(base: pathlib.Path, name: str) -> pathlib.Path:
    """The file below `base` that a name means, which may be of another normal form.

    One with "\\" between folders is found too. What is not there comes back as it is.
    """
    for given in (name, name.replace("\\", "/")):
        path = base / given
        if path.exists():
            return path
        found = base
        for part in pathlib.PurePath(given).parts:
            there = found / part
            if not there.exists() and found.is_dir():
                same = (n for n in os.listdir(found) if normal(n) == normal(part))
                there = found / next(same, part)
            found = there
        if found.exists():
            return found
    return base / name


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What is told of one picture.

    Attributes:
      name: of its file, as seen from the root.
      texts: as in `Record`.
      fields: further ones of `Record`, see `tables.fields_from`.
      parsing: file of its classes, as seen from the root; "" for none.
      caption: a file of texts, one a line, as seen from the root; "" for none.
      cells: of the columns that were to be kept, by name.
    """

    name: str
    texts: tuple[str, ...] = ()
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    parsing: str = ""
    caption: str = ""
    cells: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Folder(Sequence):
    """A folder of pictures, with a table or texts beside them if there are any.

    The table is metadata.jsonl, metadata.csv or metadata.parquet, by the Hugging Face
    imagefolder convention: every row names its picture in `file_name`, as seen from the
    table's own folder; `text` (or `caption`) and CelebA-named columns are read too, and
    `landmarks` (x0, y0, x1, y1, ... in pixels) and `parsing`, a PNG of classes named
    like the picture, with `parsing_scheme` where it is not "celebamask-hq".
    Tables may lie in subfolders instead. Beside 0.jpg a file 0.txt, as trainers of
    diffusion models have it, holds a text a line; it counts where the row has none, or
    where there is no row. With a table, pictures with neither are left out; without
    one and without texts, text = "".

    Args:
      path: the folder.
      split: name of a subfolder, to use that alone.
      text_column: name; the text defaults to text or caption.
      facts: further columns of the table, whose cells become `Record.facts`.
      keep: columns whose values stay as they are, for `cells`; those that are in no
        table are passed over.
      trusted: otherwise nothing outside the folder is read, by a link or by a row that
        names it, and rows with a fault are counted instead of raised.

    Attributes:
      rows: a `Row` a record.
      columns: names of all columns of the tables.
      skipped: what looks like a picture and is no record: as in `Listing`, how many
        are "without a row", and of a folder that is not trusted "rows that cannot be
        used" and "links out of the folder".

    Raises:
      UserError: no pictures, or a table with a fault; the line is named.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        split: str | None = None,
        text_column: str | None = None,
        facts: Sequence[str] = (),
        keep: Sequence[str] = (),
        trusted: bool = True,
    ):
        self.root, self.text_column = pathlib.Path(path).expanduser(), text_column
        if not self.root.exists():
            raise Missing(f"folder '{path}' does not exist; check the path")
        if not self.root.is_dir():
            raise UserError(f"'{path}' is a file; give the folder that holds pictures")
        parts = sorted(f.name for f in self.root.iterdir() if f.is_dir())
        if split and split not in parts:
            raise UserError(
                f"folder '{path}' has no subfolder '{split}' that could be the split; "
                "it has: " + (", ".join(parts[:20]) or "none")
            )
        reader = _Reader(
            self.root, split, text_column, tuple(facts), tuple(keep), trusted
        )
        self.rows, self.columns = reader.rows(), frozenset(reader.columns)
        self._summary, self._tables = reader.summary(self.rows), reader.tables()
        self.skipped = {**reader.found.skipped, WITHOUT_ROW: reader.without_row}
        self.skipped[FAULTS] = len(reader.faults)
        if not self.rows:
            skipped = reader.found.skipped_words()
            raise UserError(
                f"folder '{self.root / (split or '')}' holds no picture "
                f"({', '.join(ENDINGS)})" + (f"; skipped: {skipped}" if skipped else "")
            )

    def cells(self, index: int) -> dict[str, Any]:
        """Values of the kept columns of a record, by name."""
        return self.rows[index].cells

    def num_bytes(self, index: int) -> int:
        """Bytes of a record's largest file, which need not be read to know."""
        row = self.rows[index]
        names = [name for name in (row.name, row.caption, row.parsing) if name]
        return max((self.root / name).stat().st_size for name in names)

    def summary(self) -> str:
        """One line: how many pictures, and what of the folder is not used."""
        return self._summary

    def fingerprint(self) -> str:
        """16 hex digits that stay the same wherever the folder lies."""
        return self._print(sizes=True)

    def order(self) -> str:
        """`fingerprint` without the sizes of the files."""
        return self._print(sizes=False)

    def _print(self, sizes: bool) -> str:
        captions = {row.caption for row in self.rows if row.caption}
        names = [*(row.name for row in self.rows), *sorted(captions)]
        return fingerprint.many_files(self.root, names, self._tables, sizes)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Record:
        row = self.rows[index]
        path = self.root / row.name
        if not path.is_file():
            raise UserError(f"picture '{path}' does not exist any more")
        texts = row.texts
        if row.caption and not texts:
            texts = _lines(self.root / row.caption)
        data, fields = path.read_bytes(), dict(row.fields)
        if row.parsing:
            size = image_io.size(data)
            fields["parsing"] = image_io.class_map(self.root / row.parsing, size)
        return Record(
            image=data,
            text=next(iter(texts), ""),
            texts=texts if len(texts) > 1 else (),
            **fields,
            source=f"{self.root.name}/{row.name}",
        )


def _lines(path: pathlib.Path) -> tuple[str, ...]:
    """The texts of a caption file, one a line."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is not UTF-8 text; save it as UTF-8") from None
    return tuple(line.strip() for line in lines if line.strip())


class _Reader:
    """Reads a folder once, and counts what it does not use."""

    def __init__(
        self,
        root: pathlib.Path,
        split: str | None,
        text_column: str | None,
        facts: tuple[str, ...],
        keep: tuple[str, ...],
        trusted: bool = True,
    ):
        self.root, self.text_column, self.facts = root, text_column, facts
        self.keep, self.trusted = keep, trusted
        self.faults: list[str] = []  # of rows, where they are not trusted
        self.found = listing(root)
        if split:
            skipped = listing(root / split).skipped
            self.found = dataclasses.replace(self.found, skipped=skipped)
        if not trusted:
            self.found = self._inside(self.found)
        self.within = f"{split}/" if split else ""
        self.names = {normal(name): name for name in self.found.pictures}
        self.columns: set[str] = set()
        self.unused: list[str] = []  # tables beside those that count
        self.without_row = 0
        self.maps: set[str] = set()  # of classes, which are no pictures of faces

    def _inside(self, found: Listing) -> Listing:
        """The files that do not lead out of the folder."""

        def stays(name: str) -> bool:  # folders that are links are not listed
            return not (self.root / name).is_symlink() or self._is_inside(name)

        pictures = tuple(filter(stays, found.pictures))
        outside = len(found.pictures) - len(pictures)
        others = frozenset(filter(stays, found.others))
        skipped = {**found.skipped, OUTSIDE: outside} if outside else found.skipped
        return Listing(pictures, others, skipped)

    def _is_inside(self, name: str) -> bool:
        path = (self.root / name).resolve()
        return path.is_relative_to(self.root.resolve())

    def rows(self) -> list[Row]:
        rows = [row for table in self.tables() for row in self._of(table)]
        named = [("text_column", self.text_column), *(("facts", f) for f in self.facts)]
        for argument, column in named:
            if column and column not in self.columns:
                raise UserError(
                    f"no table in '{self.root}' has a column '{column}'"
                    f"{nearest(column, self.columns)}; set {argument} to "
                    + (", ".join(sorted(self.columns)) or "those of a metadata.jsonl")
                )
        seen = {row.name for row in rows} | self.maps
        for name in self.found.pictures:
            if not name.startswith(self.within) or name in seen:
                continue
            caption = self._caption(name)
            if caption or not self.columns:
                rows.append(Row(name, caption=caption))
            else:
                self.without_row += 1
        return rows

    def tables(self) -> list[str]:
        """One a folder, of the split or in the root."""
        chosen: dict[str, str] = {}
        self.unused = []
        for name in _TABLES:
            for path in self.found.others:
                folder, base = posixpath.split(path)
                if base == name and (not folder or f"{path}".startswith(self.within)):
                    if folder in chosen:
                        self.unused.append(chosen[folder])
                    chosen[folder] = path
        return [chosen[folder] for folder in sorted(chosen, key=lambda p: p.split("/"))]

    def _of(self, table: str) -> list[Row]:
        rows, path = [], self.root / table
        faults = None if self.trusted else self.faults
        for line, cells in tables.read_rows(path, faults):
            self.columns |= set(cells)
            try:
                name = self._picture(posixpath.dirname(table), cells.get("file_name"))
                if not name.startswith(self.within):
                    continue  # of another split
                texts = tables.texts_from(cells, self.text_column)
                row = Row(
                    name,
                    texts,
                    tables.fields_from(cells, self.facts),
                    self._map(posixpath.dirname(table), cells.get("parsing")),
                    "" if texts else self._caption(name),
                    {name: cells[name] for name in self.keep if name in cells},
                )
            except UserError as error:
                told = f"'{path}' line {line}: {error}"
                if self.trusted:
                    raise UserError(told) from None
                self.faults.append(told)
                continue
            rows.append(row)
        self.columns.add("file_name")  # also of an empty table
        return rows

    def _picture(self, folder: str, given: Any) -> str:
        """The name of a row's picture, as it is on the disk."""
        if not (given and isinstance(given, str)):
            raise UserError("there is no 'file_name'; add it")
        for name in (given, given.replace("\\", "/")):
            path = posixpath.normpath(posixpath.join(folder, name))
            if normal(path) in self.names:
                return self.names[normal(path)]
            if not (self.trusted or self._is_inside(path)):
                raise UserError(f"'{given}' leads out of the folder")
            if not path.startswith(self.within) or (self.root / path).is_file():
                return path
        raise UserError(f"there is no picture '{given}'; correct file_name")

    def _map(self, folder: str, given: Any) -> str:
        """The name of a row's map of classes, or ""."""
        if (given := tables.given(given)) is None:
            return ""
        path = posixpath.normpath(posixpath.join(folder, str(given)))
        if not (self._is_inside(path) and (self.root / path).is_file()):
            raise UserError(f"there is no map '{given}'; correct parsing")
        self.maps.add(path)
        return path

    def _caption(self, picture: str) -> str:
        """The file of texts beside a picture, or ""."""
        path = os.path.splitext(picture)[0] + ".txt"
        held = path in self.found.others and (self.root / path).stat().st_size
        return path if held else ""

    def summary(self, rows: Sequence[Row]) -> str:
        pictures = len({row.name for row in rows}) + self.without_row
        bare = sum(not _told(row) for row in rows)
        return summary_line(
            self.root / self.within,
            pictures,
            {f"{WITHOUT_ROW}, left out": self.without_row, BARE: bare},
            tables.ignored(self.columns, "file_name", self.text_column, *self.facts),
            self.unused,
            self.found.skipped_words(),
        )


BARE = "without text or labels"


def _told(row: Row) -> bool:
    """Whether anything is known of a picture."""
    fields = row.fields
    known = fields.get("labels") or fields.get("expression") or "landmarks" in fields
    return bool(row.texts or row.caption or row.parsing or known)


def _hinted(column: str) -> str:
    """A column's name, with that of CelebA where only capital letters differ."""
    names = {name.lower(): name for name in tables.CELEBA_ATTRIBUTES}
    known = names.get(column.lower().replace(" ", "_"))
    return f"{column} (did you mean {known!r}?)" if known else column


# Both ways to give a source its arguments, for messages.
WAYS = "(in data.train or data.eval of a config; as --data KEY=VALUE of a command)"


def must_exist(path: str | os.PathLike, what: str) -> pathlib.Path:
    """The path, expanded.

    Raises:
      Missing: there is nothing.
    """
    found = pathlib.Path(path).expanduser()
    if not found.exists():
        raise Missing(f"{what} '{path}' does not exist; check the path")
    return found


def summary_line(
    source: Any,
    pictures: int,
    counts: Mapping[str, int],
    ignored: Sequence[str],
    unused: Sequence[str] = (),
    skipped: str = "",
) -> str:
    """One line on what was found and what is not used.

    Args:
      source: name of the folder or table.
      pictures: how many.
      counts: words -> how many of them are so.
      ignored: columns of which nothing is taken.
      unused: files of which nothing is taken.
      skipped: words.
    """
    facts = [f"{pictures} photos"]
    facts += [f"{count} {words}" for words, count in counts.items() if count]
    said = ", ".join(facts)
    if ignored:
        said += "; columns ignored: " + ", ".join(map(_hinted, ignored))
    if unused:
        said += "; tables ignored: " + ", ".join(unused)
    if skipped:
        said += f"; skipped: {skipped}"
    if ignored or any(counts.values()):
        said += f" (understood: {tables.UNDERSTOOD}; texts in 0.txt beside 0.jpg)"
    return f"'{source}': {said}"
