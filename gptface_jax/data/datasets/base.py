"""What the builders share: features of a `Record`, and paths that stay inside."""

from __future__ import annotations

import io
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from gptface_jax.core.errors import Missing, UserError
from gptface_jax.data.tables import CELEBA_ATTRIBUTES


class FaceBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A set of faces that lie in a folder of the user's.

    Attributes:
      SPLITS: names.
      PUBLISHED: split -> examples, as the authors say; a split may be missing.
      HOMEPAGE, CITATION, TERMS: of the set.
    """

    VERSION = tfds.core.Version("1.0.0")
    SPLITS: ClassVar[tuple[str, ...]] = ("train",)
    PUBLISHED: ClassVar[Mapping[str, int]] = {}
    HOMEPAGE: ClassVar[str] = ""
    CITATION: ClassVar[str] = ""
    TERMS: ClassVar[str] = ""

    def __init__(self, *, source: str | os.PathLike, **options: Any):
        self.source = pathlib.Path(source).expanduser()
        if not self.source.is_dir():
            raise Missing(f"'{source}' is no folder; give that of the set's files")
        super().__init__(**options)

    def features(self) -> dict[str, Any]:
        """Features beside `image` and `source`."""
        raise NotImplementedError

    def index(self, split: str) -> Sequence[Any]:
        """Arguments of `example` for every example of a split; reads no picture."""
        raise NotImplementedError

    def example(self, item: Any) -> dict[str, Any]:
        """The example of an entry of `index`."""
        raise NotImplementedError

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
        features = {"image": image, "source": tfds.features.Text(), **self.features()}
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{type(self).__doc__}\n\n{self.TERMS}",
            features=tfds.features.FeaturesDict(features),
            homepage=self.HOMEPAGE,
            disable_shuffling=True,  # the reader shuffles
            citation=self.CITATION or None,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        # Of a part of a set a split may be missing, which TFDS does not write.
        there = [split for split in self.SPLITS if len(self.index(split))]
        return {split: self._examples(split) for split in there}

    def _generate_examples(self, split: str) -> Iterator:
        return self._examples(split)

    def _examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, item in enumerate(self.index(split)):
            yield f"{number:09d}", self.example(item)

    def file(self, *parts: str) -> pathlib.Path:
        """A file of the set.

        Raises:
          UserError: it is missing, or a table names one outside of the folder.
        """
        path = self.source.joinpath(*parts)
        if not path.resolve().is_relative_to(self.source.resolve()):
            raise UserError(f"'{'/'.join(parts)}' leads out of '{self.source}'")
        if not path.is_file():
            raise Missing(f"'{path}' is missing; see the layout in --help")
        return path

    def lines(self, *parts: str) -> list[list[str]]:
        """The lines of a table that are not empty, cut at spaces."""
        return [cells for _, cells in self.numbered(*parts)]

    def numbered(self, *parts: str) -> list[tuple[int, list[str]]]:
        """The lines of a table that are not empty, by their number from 1."""
        lines = enumerate(text_of(self.file(*parts)).splitlines(), 1)
        return [(number, line.split()) for number, line in lines if line.strip()]

    def jpeg(self, path: pathlib.Path) -> io.BytesIO:
        """A picture file as TFDS takes it; what is no JPEG is made one.

        Raises:
          UserError: it is no picture.
        """
        data = path.read_bytes()
        if data[:2] == b"\xff\xd8":
            return io.BytesIO(data)
        from gptface_jax.data import image_io

        buffer = io.BytesIO()
        Image.fromarray(image_io.decode(data)).save(buffer, "JPEG", quality=98)
        return io.BytesIO(buffer.getvalue())


def text_of(path: pathlib.Path) -> str:
    """The text of a UTF-8 file.

    Raises:
      UserError: it is none; the line is named.
    """
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"'{path}' line {line} is not UTF-8 text; save it as UTF-8, or get it again"
        ) from None


def attributes() -> dict[str, Any]:
    """Feature of CelebA's 40 attributes."""
    return {name: np.bool_ for name in CELEBA_ATTRIBUTES}


def attribute_rows(
    lines: Sequence[Sequence[str]], table: str
) -> dict[str, dict[str, bool]]:
    """Attributes by file of a table like list_attr_celeba.txt.

    Raises:
      UserError: a line that does not fit the names.
    """
    if len(lines) < 2:
        raise UserError(f"'{table}' has {len(lines)} lines; get it again")
    names, found = lines[1], {}
    for name, *values in lines[2:]:
        if len(values) != len(names) or not set(values) <= {"1", "-1", "0"}:
            raise UserError(
                f"'{table}': the line of '{name}' has {len(values)} values and the "
                f"second line {len(names)} names; get it again"
            )
        found[name] = {n: v == "1" for n, v in zip(names, values)}
    return found


def numbers(values: Sequence[str], where: str) -> np.ndarray:
    """Numbers of words, float32.

    Raises:
      UserError: one is none.
    """
    try:
        return np.array([float(value) for value in values], np.float32)
    except ValueError as error:
        raise UserError(f"{where}: {error}; get the file again") from None
