"""Many edits at once: jobs from a file, compiled batches, results that resume."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import hashlib
import inspect
import json
import os
import pathlib
import unicodedata
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import tqdm

from gptface_jax.apps.api import DRAWN, SEAMS, Edit, Model
from gptface_jax.core import arguments, files, locks
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import folders
from gptface_jax.experiments import registry
from gptface_jax.pipelines import provenance
from gptface_jax.systems.gptface.options import DecodeConfig

# Arguments that name files, which a job gives relative to the file of jobs.
_FILES = ("image", "mask", "damage", "first", "second", "seam")
_PLACES = ("mask", "box", "region")
_LONGEST = 200  # bytes of an id; its files have endings as well


@dataclasses.dataclass(frozen=True)
class Job:
    """One line of a file of jobs.

    Attributes:
      name: its id, by which its files are called and its random numbers drawn.
      values: the arguments of the verb's method, and options of the decoder.
      error: why it cannot be run, or "".
      source: the files that it names, as they were given: argument -> name.
    """

    name: str
    values: Mapping[str, Any]
    error: str = ""
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Of all that decides its result but the model; a changed job is run again."""
        text = json.dumps([self.name, dict(self.values)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def seed(self) -> int:
        """Of its own: the job's seed mixed with its id."""
        return zlib.crc32(f"{self.values.get('seed', 0)} {self.name}".encode())


def read_jobs(
    source: str | os.PathLike,
    verb: str,
    defaults: Mapping[str, Any] | None = None,
    base: str | os.PathLike | None = None,
) -> list[Job]:
    """Jobs of a JSON-lines file, or one for each picture of a folder.

    A line is an object of arguments of `Model.<verb>`, of `DecodeConfig` and an "id"
    (default: the number of the line). Files are relative to the file of jobs. A line
    that makes no sense is a Job with an error.

    Args:
      source: FILE.jsonl or a folder; its pictures' ids are their names. What is passed
        over there `data.folders.listing` says.
      verb: of `registry.verbs()`.
      defaults: arguments of jobs that do not give them.
      base: what their files are relative to; default the folder of the jobs' file.

    Raises:
      UserError: nothing to read, or two jobs of one id.
    """
    path, defaults = pathlib.Path(source), dict(defaults or {})
    if path.is_dir():
        first = "first" if verb == "stitch" else "image"
        pictures = folders.listing(path, deep=False).pictures
        names = _names(pictures)
        lines = [json.dumps({"id": n, first: p}) for n, p in zip(names, pictures)]
        folder = path
    else:
        try:
            # Not at every line end of Unicode's: a JSON text may hold some.
            lines = path.read_text("utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(
                f"cannot read jobs from '{source}': {reason}; give a file of JSON "
                "lines or a folder of pictures"
            ) from None
        folder = pathlib.Path(path.parent if base is None else base)
    jobs = [
        _parse(line, number, verb, defaults, folder)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not jobs:
        raise UserError(f"'{source}' holds no jobs")
    seen = set()
    for job in jobs:
        if job.name in seen:
            raise UserError(f"two jobs of '{source}' have the id '{job.name}'")
        seen.add(job.name)
    return jobs


def _names(pictures: Sequence[str]) -> list[str]:
    """Ids of a folder's pictures: their names, where one is taken with the ending."""
    paths = [pathlib.PurePath(folders.normal(name)) for name in pictures]
    stems = collections.Counter(path.stem for path in paths)
    found: dict[str, None] = {}
    for number, path in enumerate(paths, 1):
        name = path.stem if stems[path.stem] == 1 else path.name
        name = "".join(c if _fits(c) else "-" for c in name).lstrip("._-")
        name = _cut(name, _LONGEST - 10) or "picture"
        while name in found:
            name += f"-{number}"
        found[name] = None
    return list(found)


def _fits(character: str) -> bool:
    """Whether an id may hold it: a letter or digit of any script, or ". _ -"."""
    # Marks are parts of letters: vowels in Hindi, accents that have no composed form.
    mark = unicodedata.category(character).startswith("M")
    return character.isalnum() or mark or character in "._-"


def _cut(name: str, most: int) -> str:
    """At most so many bytes of it, and whole letters."""
    return name.encode()[:most].decode("utf-8", "ignore")


def _id(given: Any) -> str:
    """An id as it is compared and written."""
    name = folders.normal(str(given))
    fits = name[:1].isalnum() and all(map(_fits, name))
    if not fits or len(name.encode()) > _LONGEST:
        raise UserError(
            f"id {given!r} names no file; use letters, digits, '.', '_' and '-', the "
            f"first a letter or digit, {_LONGEST} bytes at most"
        )
    return name


def _parse(line: str, number: int, verb: str, defaults, base: pathlib.Path) -> Job:
    name, source = f"{number:06d}", {}
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            raise UserError(f"line {number} is no JSON object")
        # What a table leaves empty is not given.
        values = {k: v for k, v in values.items() if v is not None and v == v}
        name = _id(values.pop("id", name))
        for key in set(_FILES) & set(values):
            straight = key == "seam" and values[key] in SEAMS
            if isinstance(values[key], str) and not straight:
                source[key] = values[key]
                values[key] = str(folders.resolve(base, values[key]))
        if any(place in values for place in _PLACES):
            defaults = {k: v for k, v in defaults.items() if k not in _PLACES}
        known, values = _arguments(verb), {**defaults, **values}
        for key in values:
            if key not in known:
                raise UserError(f"'{key}' is no option of {verb}{nearest(key, known)}")
        values = arguments.checked(getattr(Model, verb), values, DecodeConfig)
        missing = [k for k, needed in known.items() if needed and k not in values]
        if missing:
            raise UserError(f"'{missing[0]}' is missing")
    except ValueError as error:
        said = error if isinstance(error, UserError) else f"no JSON: {error}"
        return Job(name, {"line": line}, str(said), source)
    return Job(name, values, source=source)


def _arguments(verb: str) -> dict[str, bool]:
    """Argument of the verb -> whether it has to be given."""
    parameters = list(inspect.signature(getattr(Model, verb)).parameters.values())[1:]
    own = {p.name: p.default is p.empty for p in parameters if p.kind != p.VAR_KEYWORD}
    return (
        dict.fromkeys((f.name for f in dataclasses.fields(DecodeConfig)), False) | own
    )


def run(
    model: Model,
    jobs: Sequence[Job],
    out: str | os.PathLike,
    *,
    verb: str = "edit",
    batch_size: int = 8,
    ending: str = ".png",
    strips: bool = False,
    threads: int = 4,
    devices: Sequence[jax.Device] | None = None,
    progress: bool = True,
) -> dict[str, int]:
    """Runs jobs and writes their files and results; goes on where it was stopped.

    Photos are decoded and results encoded by threads while the devices work. Jobs of
    the same decoder options share batches of one size, compiled once. Random numbers
    follow from a job's id and seed, so that its result does not depend on the jobs
    beside it. On several hosts each takes every n-th job, and none waits for another.

    Args:
      model: the networks.
      jobs: what to do, the same on every host.
      out: folder for ID.png and ID.json of every job, and for results.jsonl: an object
        a job, with its figures or its "error".
      verb: of `registry.verbs()`.
      batch_size: pictures that a device edits at once.
      ending: of the pictures: .png, .jpg or .webp.
      strips: write before/mask/after strips too.
      threads: that read and write pictures.
      devices: default all of this process.
      progress: show a bar.

    Returns:
      {"done": jobs run, "failed": of these, "skipped": finished before}.

    Raises:
      UserError: the folder cannot be written, another process runs jobs there, or an
        option that makes no sense.
    """
    verbs = registry.verbs()
    if verb not in verbs:
        raise UserError(f"verb '{verb}' is unknown; use {', '.join(verbs)}")
    if batch_size < 1 or threads < 1:
        raise UserError(
            f"batch_size is {batch_size} and threads {threads}; use 1 or more"
        )
    devices = list(devices or jax.local_devices())
    if devices != list(jax.local_devices()[:1]):
        model = model.on(devices)
    folder = pathlib.Path(out)
    name = Results.name(jax.process_index(), jax.process_count())
    lock = (folder / name).with_suffix(".lock")
    with locks.held(lock, f"runs jobs ({verb})", "write to another folder"):
        return _run(
            model, jobs, folder, verb, batch_size, ending, strips, threads, devices,
            progress,
        )  # fmt: skip


def _run(
    model, jobs, folder, verb, batch_size, ending, strips, threads, devices, progress
) -> dict[str, int]:
    """`run` of a folder that is this process's."""
    results = Results(folder, jax.process_index(), jax.process_count())
    mine = jobs[jax.process_index() :: jax.process_count()]
    maker = "-".join(filter(None, (model.digest, model.editor.dtype)))
    todo = [job for job in mine if not results.has(job, maker, ending, strips)]
    named = (job.values.get(key) for job in jobs for key in _FILES)
    given = {os.path.abspath(file) for file in named if isinstance(file, str)}
    counts = {"done": 0, "failed": 0, "skipped": len(mine) - len(todo)}

    def advance(job: Job, steps, answer):
        """Up to the job's next request, or to its result."""
        try:
            if job.error:
                raise UserError(job.error)
            if isinstance(answer, Exception):
                raise answer
            target = folder / f"{job.name}{ending}"
            if verb in DRAWN and os.path.abspath(target) in given:
                raise UserError(
                    f"'{target}' is a picture to work on and would be lost; write to "
                    "another folder"
                )
            if steps is None:
                steps = _steps(model, verb, job)
            try:
                return job, steps, steps.send(answer)
            except StopIteration as end:
                return job, None, _written(end.value, folder, job, ending, strips)
        except Exception as error:  # one bad job never stops the rest
            known = isinstance(error, (UserError, OSError))
            said = str(error) if known else f"{type(error).__name__}: {error}"
            return job, None, {"error": said}

    size = batch_size * len(devices)
    bar = tqdm.tqdm(total=len(todo), unit=verb, disable=not progress)
    queue, waiting, pending = iter(todo), {}, set()
    with (
        results,
        bar,
        concurrent.futures.ThreadPoolExecutor(threads) as pool,
    ):
        while True:
            held = sum(map(len, waiting.values()))
            for job in _first(queue, 4 * size - held - len(pending)):
                pending.add(pool.submit(advance, job, None, None))
            largest = max(waiting, key=lambda b: len(waiting[b]), default=None)
            full = largest is not None and len(waiting[largest]) >= size
            if not full and pending:
                finished, pending = concurrent.futures.wait(
                    pending, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for job, steps, found in (f.result() for f in finished):
                    if steps is not None:
                        waiting.setdefault(found.bucket, []).append((job, steps, found))
                        continue
                    results.add(job, maker, found)
                    counts["done"] += 1
                    counts["failed"] += "error" in found
                    bar.set_postfix(failed=counts["failed"], refresh=False)
                    bar.update(1)
            elif largest is not None:
                group = waiting.pop(largest)
                if group[size:]:
                    waiting[largest] = group[size:]
                answers = _answers(model.editor, [r for *_, r in group[:size]], size)
                for (job, steps, _), answer in zip(group, answers):
                    pending.add(pool.submit(advance, job, steps, answer))
            else:
                break
    results.sort(jobs)
    return counts


def _answers(editor, requests: Sequence[Any], size: int) -> list[Any]:
    """The answer to each request, or the exception that it raises by itself."""
    try:
        return editor.answer(requests, size)
    except Exception as error:  # of one of them, or of their common options
        if len(requests) == 1:
            return [error]
        return [_answers(editor, [request], size)[0] for request in requests]


def _first(queue: Iterable[Job], count: int):
    for _, job in zip(range(count), queue):
        yield job


def _steps(model: Model, verb: str, job: Job):
    """A generator of requests that ends with an Edit, or with what was found."""
    values = {**job.values, "seed": job.seed}
    if verb in DRAWN:
        return model.steps(verb, values)
    return _found(getattr(model, verb), values)


def _found(method, values):
    """Text about a picture: one job is a batch of its own."""
    found = method(**values)
    return [dataclasses.asdict(f) if dataclasses.is_dataclass(f) else f for f in found]
    yield


def _written(result: Any, folder: pathlib.Path, job: Job, ending, strips) -> dict:
    if not isinstance(result, Edit):
        return {"found": result}
    details = {**result.details, "job": job.name, "source": dict(job.source)}
    result = dataclasses.replace(result, details=details)
    path, *_ = result.save(folder / f"{job.name}{ending}", strip=strips)
    kept = ("text", "tokens", "iterations", "final_log_prob")
    notes = [*details["notes"], *result.losses(path)]
    return {"file": path.name, **{k: details[k] for k in kept}, "notes": notes}


class Results:
    """results.jsonl of a folder, or on several hosts results-HOST-of-HOSTS.jsonl.

    A line a job, the last one counts; what was torn by a kill is ignored.
    """

    def __init__(self, folder: pathlib.Path, host: int = 0, hosts: int = 1):
        self.folder, self.path = folder, folder / self.name(host, hosts)
        self.rows: dict[str, dict] = {}
        self.ours: dict[str, dict] = {}  # of this host
        for path in sorted(folder.glob("results*.jsonl")):
            for line in path.read_text("utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self.rows[row["id"]] = row
                except (ValueError, KeyError, TypeError):
                    continue
                if path == self.path:
                    self.ours[row["id"]] = row

    @staticmethod
    def name(host: int, hosts: int) -> str:
        """Of the file that a host writes."""
        return "results.jsonl" if hosts == 1 else f"results-{host}-of-{hosts}.jsonl"

    def __enter__(self):
        torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
        self.file = open(self.path, "a", encoding="utf-8")
        if torn:
            self.file.write("\n")
        return self

    def __exit__(self, *_):
        self.file.close()

    def has(self, job: Job, model: str, ending: str, strips: bool) -> bool:
        """Whether this very job was finished by this very model, files and all."""
        row = self.rows.get(job.name, {})
        same = row.get("job") == job.digest and row.get("model") == model
        if not same or "error" in row:
            return False
        if "file" not in row:
            return True
        path = self.folder / f"{job.name}{ending}"
        wanted = [path, *([provenance.beside(path)[0]] if strips else [])]
        return row["file"] == path.name and all(p.is_file() for p in wanted)

    def add(self, job: Job, model: str, found: dict) -> None:
        row = {"id": job.name, "job": job.digest, "model": model}
        row |= {"source": dict(job.source), **found}
        self.ours[job.name] = row
        self.file.write(json.dumps(row) + "\n")
        self.file.flush()

    def sort(self, jobs: Sequence[Job]) -> None:
        """Rewrites the file: a line a job, in their order; other jobs come first."""
        place = {job.name: i for i, job in enumerate(jobs)}
        rows = sorted(self.ours.values(), key=lambda row: place.get(row["id"], -1))
        files.write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
