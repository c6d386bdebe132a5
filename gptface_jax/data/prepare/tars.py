"""Samples of webdataset tars, as img2dataset writes them, read as a stranger's.

Files of one key stand side by side: 000001234.jpg, .txt (a text), .json (url, caption
and further columns). Nothing is unpacked: names are names, and what is too large is not
read.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import posixpath
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gptface_jax.data.prepare import metadata, sample
from gptface_jax.data.prepare.sample import Rejected, Sample
from gptface_jax.data.prepare.settings import Config

PICTURES = frozenset("jpg jpeg jfif png webp gif bmp tif tiff avif heic heif".split())
_TEXTS = ("txt", "text", "caption")
_JSON_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


# Kinds of members that say something of the next one, a name or further fields.
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class _Member(tarfile.TarInfo):
    """A member whose header is not read where it is as large as a file."""

    def _proc_member(self, tar):
        if self.type in _HEADERS and self.size > _JSON_BYTES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)


@dataclasses.dataclass
class _Group:
    """Files of one key.

    Attributes:
      fault: why the picture is none of the set, whatever else there is.
    """

    key: str
    image: bytes | None = None
    texts: list[str] = dataclasses.field(default_factory=list)
    row: dict[str, Any] = dataclasses.field(default_factory=dict)
    fault: str = ""
    text_fault: str = ""


def samples(
    path: pathlib.Path,
    config: Config,
    more: Callable[[str, Mapping], Mapping] | None = None,
    name: str = "",
    facts: Sequence[str] = (),
) -> Iterator[Sample | Rejected]:
    """Every sample of a tar, or why it is none; a key may come twice.

    Args:
      path: of the tar, not compressed.
      config: its limits count.
      more: key and row -> further columns, or None.
      name: stands before the key in `Record.source`; by default that of the file.
      facts: columns whose cells become `Record.facts`.
    """
    for group in _groups(path, config):
        if isinstance(group, _Group):
            make = functools.partial(_sample, group, name or path.stem, more, facts)
            yield sample.guarded(group.key, make)
        else:
            yield group


def _sample(group: _Group, name: str, more, facts) -> Sample:
    """The sample of a group.

    Raises:
      UserError: it is none.
    """
    key, row = group.key, group.row
    if group.fault:
        raise sample.Fault(group.fault)
    if group.image is None:
        raise sample.Fault(sample.NO_PICTURE)
    told = row.get("key")
    if told is not None and str(told) not in (key, posixpath.basename(key)):
        raise sample.Fault(sample.OTHER_KEY)
    row = metadata.joined(row, more(key, row)) if more else row
    return metadata.sample_of(
        key,
        group.image,
        row,
        f"{name}/{key}",
        group.texts,
        facts,
        text_fault=group.text_fault,
    )


def _groups(path: pathlib.Path, config: Config) -> Iterator[_Group | Rejected]:
    group: _Group | None = None
    try:
        with tarfile.open(path, "r:", tarinfo=_Member) as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # else all of them stay in memory
                found = _named(member)
                if found is None:
                    continue
                key, ending = found
                if group is not None and group.key != key:
                    yield group
                    group = None
                group = group or _Group(key)
                _add(group, tar, member, ending, config)
            complete = _ends(tar)
    except Exception:  # of a hostile file anything may come
        # The sample that was being read may lack a part: it goes with the rest.
        key = group.key if group else path.name
        yield Rejected(key, sample.ENDS_EARLY if group else sample.UNREADABLE)
        return
    if group is not None:
        yield group
    if not complete:
        yield Rejected(path.name, sample.ENDS_EARLY)


def _ends(tar: tarfile.TarFile) -> bool:
    """Whether the tar ends as one does, with a block of zeros.

    `tarfile` takes a damaged header for the end.
    """
    tar.fileobj.seek(tar.offset)
    return tar.fileobj.read(_BLOCK) == bytes(_BLOCK)


def _named(member: tarfile.TarInfo) -> tuple[str, str] | None:
    """Key and ending of a member; None for a folder or a hidden file."""
    folder, name = posixpath.split(member.name)
    if member.isdir() or not name or name.startswith((".", "__")):
        return None
    stem, _, ending = name.partition(".")
    return posixpath.join(folder, stem), ending.lower()


def _add(group: _Group, tar, member: tarfile.TarInfo, ending: str, config) -> None:
    """Puts a member into its group, or notes what is wrong with it."""
    name = member.name.replace("\\", "/")
    if name.startswith("/") or ".." in name.split("/") or "\0" in name:
        group.fault = group.fault or sample.UNSAFE_NAME
    elif not member.isreg():
        group.fault = group.fault or sample.NO_FILE
    elif ending in PICTURES:
        if group.image is not None:
            group.fault = sample.DUPLICATE_KEY
        elif member.size > config.decoding.max_bytes:
            group.fault = sample.TOO_MANY_BYTES
        else:
            group.image = tar.extractfile(member).read()
    elif ending in _TEXTS:
        if member.size > config.texts.max_bytes:
            group.text_fault = sample.LONG_TEXT
            return
        try:
            group.texts.append(tar.extractfile(member).read().decode("utf-8-sig"))
        except UnicodeDecodeError:
            group.text_fault = sample.NOT_UTF8
    elif ending == "json":
        row = None
        if member.size <= _JSON_BYTES:
            row = read_json(tar.extractfile(member).read())
        # Without it nobody knows whether the picture was opted out.
        group.fault = group.fault or ("" if row is not None else sample.NO_METADATA)
        group.row |= row or {}


def read_json(data: bytes) -> Mapping[str, Any] | None:
    """The object that a file of JSON holds, None where it holds none."""
    try:
        row = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None
