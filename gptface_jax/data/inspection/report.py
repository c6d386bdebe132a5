"""A set as one page of HTML: what was kept, what was rejected and why, in pictures."""

from __future__ import annotations

import base64
import collections
import html
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import transforms
from gptface_jax.data.inspection.sets import Set
from gptface_jax.data.inspection.survey import Survey, step_of
from gptface_jax.data.record import Record

_SHOWN, _EACH = 60, 8  # pictures of the sheet, and of every reason
_THUMB = 128
_LONGEST = 160  # characters of a text
_TITLES = {
    "words": "words of a text",
    "luminance": "luminance of the cheeks, L* (light counts as much as skin)",
    "yaw": "yaw in degrees",
    "roll": "roll in degrees",
    "face": "side of the face in pixels",
    "age": "age in years",
}
_STYLE = """
:root { color-scheme: light dark; --bar: #4a7fb5; --line: #8884; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem;
  padding: 0 1rem; }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .6rem }
table { border-collapse: collapse } td, th { padding: .1rem .7rem .1rem 0;
  text-align: left; vertical-align: top } td.n { text-align: right;
  font-variant-numeric: tabular-nums }
.bar { background: var(--bar); height: .8rem; min-width: 1px }
.sheet { display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(8.4rem, 1fr)) }
figure { margin: 0; border: 1px solid var(--line); padding: .3rem; font-size: .78rem;
  overflow-wrap: anywhere }
figure img { width: 100%; display: block } figcaption small { opacity: .65 }
.none { aspect-ratio: 1; display: grid; place-items: center; opacity: .5 }
.two { display: grid; gap: 0 3rem;
  grid-template-columns: repeat(auto-fit, minmax(24rem, 1fr)) }
.sum { font-size: 1.05rem }
"""


def report(
    found: Set, sample: int | None, progress: Callable[[int], Any] = lambda n: None,
    decode: Callable[[np.ndarray], np.ndarray] | None = None,
) -> tuple[str, Survey]:  # fmt: skip
    """The page, and the numbers in it.

    Args:
      found: the set.
      sample: records that are looked at, evenly drawn; None takes all.
      progress: called with a number of records.
      decode: image ids int [h,w] -> pixels uint8 [S,S,3], to show records that have no
        picture but these; they count as records without a picture.
    """
    survey, sheet = Survey(), []
    total = len(found) if sample is None else min(sample, len(found))
    every = max(1, total // _SHOWN)
    for number, (split, record) in enumerate(found.sample(sample)):
        pixels = survey.add(record)
        if number % every == 0 and len(sheet) < _SHOWN:
            if pixels is None and decode and record.image_ids is not None:
                pixels = decode(record.image_ids)
            sheet.append(_figure(pixels, record.text, f"{split} {record.source}"))
        progress(1)
    parts = [
        f"<h1>{_text(found.name)}</h1>",
        *_accounts(found),
        _heading(f"{len(sheet)} of {total:,} records that were looked at"),
        _sheet(sheet),
        _heading("Numbers"),
        _numbers(survey),
        '<div class="two">',
        *(_histogram(name, survey.histograms[name]) for name in _TITLES),
        *_words(survey),
        "</div>",
        *_labels(survey),
        *_rejected(found.rejected),
    ]
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>{_text(found.name)}</title>\n<style>{_STYLE}</style>\n"
        f"<body>\n{body}\n</body></html>\n"
    ), survey


def _text(value: Any) -> str:
    """Text that cannot be mark-up; what is no Unicode is shown as a question mark."""
    return html.escape(str(value).encode("utf-8", "replace").decode("utf-8"))


def _heading(title: str) -> str:
    return f"<h2>{_text(title)}</h2>"


def _figure(pixels: np.ndarray | None, text: str, below: str) -> str:
    short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} ..."
    shown = f"{_text(short)}<br>" if short else ""
    picture = '<div class="none">no picture</div>'
    if pixels is not None:
        picture = f'<img alt="" src="data:image/jpeg;base64,{_thumb(pixels)}">'
    return (
        f"<figure>{picture}<figcaption>{shown}<small>{_text(below)}</small>"
        "</figcaption></figure>"
    )


def _thumb(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((_THUMB, _THUMB))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return base64.b64encode(buffer.getvalue()).decode()


def _sheet(figures: Iterable[str]) -> str:
    return '<div class="sheet">' + "\n".join(figures) + "</div>"


def _bar(width: float) -> str:
    """A bar so many rem wide; nothing for nothing."""
    return f'<div class="bar" style="width:{width:.2f}rem"></div>' if width else ""


def _bars(rows: Sequence[tuple[str, int]], width: float = 16) -> str:
    """Names, counts and bars, as a table."""
    most = max((count for _, count in rows), default=1) or 1
    lines = [
        f'<tr><td>{_text(name)}</td><td class="n">{count:,}</td>'
        f"<td>{_bar(width * count / most)}</td></tr>"
        for name, count in rows
    ]
    return "<table>" + "".join(lines) + "</table>"


def _accounts(found: Set) -> list[str]:
    """Where every record that was read went."""
    counts = found.manifest.get("counts")
    splits = {name: len(records) for name, records in found.splits.items()}
    if not counts:
        return [f'<p class="sum">{len(found):,} records.</p>']
    said = ", ".join(f"{name} {count:,}" for name, count in splits.items())
    more = counts["further_faces"]
    further = f" + {more:,} further faces" if more else ""
    rejected = sorted(found.manifest["rejected"].items(), key=lambda kv: -kv[1])
    return [
        f'<p class="sum">{counts["read"]:,} read{further} = {counts["records"]:,} '
        f"records + {counts['rejected']:,} rejected. {_text(said)}.</p>",
        _heading("Rejected, by reason"),
        _bars(rejected) if rejected else "<p>Nothing.</p>",
    ]


def _numbers(survey: Survey) -> str:
    values = survey.as_json()
    rows = [
        (name, value)
        for name, value in values.items()
        if not isinstance(value, Mapping) and value is not None
    ]
    copies = values["copies"]
    rows += [("exact copies among them", copies["exact"])]
    rows += [("near copies among them", copies["near"])]
    rows += [(f"pictures of {size}", n) for size, n in values["sizes"].items()]
    rows += [(f"from {name}", n) for name, n in values["sources"].items()]
    lines = (
        f'<tr><td>{_text(k)}</td><td class="n">{_text(v)}</td></tr>' for k, v in rows
    )
    return "<table>" + "".join(lines) + "</table>"


def _histogram(name: str, counts: collections.Counter[int]) -> str:
    if not counts:
        return ""
    step = step_of(name)
    low, high = min(counts), max(counts)
    edges = range(low, high + 1, step)
    if len(edges) > 40:  # a few far ones would make the rest a line
        edges = sorted(counts)
    rows = [(f"{edge} to {edge + step}", counts[edge]) for edge in edges]
    return f"<div>{_heading(_TITLES[name])}{_bars(rows)}</div>"


def _words(survey: Survey) -> list[str]:
    """The commonest words of everything that is told by words, such as expressions."""
    return [
        f"<div>{_heading(name)}{_bars(list(counts.items()))}</div>"
        for name, counts in survey.as_json()["words"].items()
    ]


def _labels(survey: Survey) -> list[str]:
    if not survey.labels:
        return []
    lines = []
    for name, (absent, unsure, present) in sorted(
        survey.labels.items(), key=lambda item: -item[1][2]
    ):
        known = absent + unsure + present
        mentions = survey.mentions.get(name)
        rate = ""
        if mentions and mentions.present:
            rate = f"{100 * mentions.said / mentions.present:.1f} %"
        lines.append(
            f'<tr><td>{_text(name)}</td><td class="n">{present:,}</td>'
            f'<td class="n">{unsure:,}</td><td class="n">{absent:,}</td>'
            f"<td>{_bar(12 * present / known)}</td>"
            f'<td class="n">{rate}</td></tr>'
        )
    head = (
        "<tr><th>attribute<th>present<th>unsure<th>absent<th>share"
        "<th>texts that mention it where it is present</tr>"
    )
    return [_heading("Labels"), f"<table>{head}{''.join(lines)}</table>"]


def _rejected(rejected: Sequence[Record] | None) -> list[str]:
    """A row of pictures for every reason."""
    if rejected is None:
        return []
    shown: dict[str, list[str]] = {}
    for index in range(len(rejected)):
        record = rejected[index]
        figures = shown.setdefault(record.facts.get("reason", "?"), [])
        if len(figures) == _EACH:
            continue
        pixels = None
        if record.image is not None:
            try:
                pixels = transforms.decode_picture(record)
            except UserError:
                pixels = None
        figures.append(_figure(pixels, record.text, record.source))
    parts = [_heading("Some of the rejected")]
    for reason, figures in sorted(shown.items()):
        parts += [f"<h3>{_text(reason)}</h3>", _sheet(figures)]
    return parts
