"""Many edits at once: jobs from a file, compiled batches, results that resume."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import inspect
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import tqdm

from gptface_jax.apps import verbs
from gptface_jax.apps.api import Edit, Samples
from gptface_jax.apps.jobs import FILES, Job, read_jobs
from gptface_jax.apps.perception_api import Seen
from gptface_jax.core import files, locks
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import registry
from gptface_jax.pipelines import provenance, rows

__all__ = ["Job", "Results", "read_jobs", "run"]


def run(
    model: Any,
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
      model: what `apps.api.load` opened.
      jobs: what to do, the same on every host.
      out: folder for ID.png and ID.json of every job, and for results.jsonl: an object
        a job, with its figures or its "error".
      verb: of `registry.verbs()`.
      batch_size: photos that a device works on at once; 3D heads come one by one.
      ending: of the pictures: .png, .jpg or .webp.
      strips: write before/mask/after strips too.
      threads: that read and write pictures.
      devices: default all of this process; edits are shared by them.
      progress: show a bar.

    Returns:
      {"done": jobs run, "failed": of these, "skipped": finished before}, and "none":
      answers that mean nothing, where the model wrote some.

    Raises:
      UserError: the folder cannot be written, another process runs jobs there, or an
        option that makes no sense.
    """
    known = registry.verbs()
    if verb not in known:
        raise UserError(f"verb '{verb}' is unknown; use {', '.join(known)}")
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


@dataclasses.dataclass(frozen=True)
class _Work:
    """Options that the jobs of a run have in common.

    Attributes:
      model, verb: what is done.
      folder, ending, strips: what is written.
      given: paths of the files that jobs work on.
    """

    model: Any
    verb: str
    folder: pathlib.Path
    ending: str
    strips: bool
    given: frozenset[str]

    def advance(self, job: Job, steps, answer):
        """The job with its steps and next request, or with None and its result."""
        try:
            if job.error:
                raise UserError(job.error)
            if isinstance(answer, Exception):
                raise answer
            target = self.folder / f"{job.name}{self.ending}"
            if self.verb in verbs.WRITTEN and os.path.abspath(target) in self.given:
                raise UserError(
                    f"'{target}' is a picture to work on and would be lost; write to "
                    "another folder"
                )
            if steps is None:
                steps = _steps(self.model, self.verb, job)
            try:
                return job, steps, steps.send(answer)
            except StopIteration as end:
                found = _written(end.value, self.folder, job, self.ending, self.strips)
                return job, None, found
        except Exception as error:  # one bad job never stops the rest
            known = isinstance(error, (UserError, OSError))
            said = str(error) if known else f"{type(error).__name__}: {error}"
            return job, None, {"error": said}


def _files_of(jobs: Sequence[Job]) -> frozenset[str]:
    """Absolute paths of the files that jobs name."""
    named = (job.values.get(key) for job in jobs for key in FILES)
    return frozenset(os.path.abspath(name) for name in named if isinstance(name, str))


def _run(
    model, jobs, folder, verb, batch_size, ending, strips, threads, devices, progress
) -> dict[str, int]:
    """`run` of a folder that is this process's."""
    results = Results(folder, jax.process_index(), jax.process_count())
    mine = jobs[jax.process_index() :: jax.process_count()]
    # Of several systems on one set of weights the digest is the same.
    system = type(model).__name__ if model.several else None
    maker = "-".join(filter(None, (model.digest, model.dtype, system)))
    todo = [job for job in mine if not results.has(job, maker, ending, strips)]
    work = _Work(model, verb, folder, ending, strips, _files_of(jobs))
    counts = {"done": 0, "failed": 0, "skipped": len(mine) - len(todo)}
    # Only edits are shared by devices.
    size = batch_size * (len(devices) if verb in verbs.DRAWN else 1)
    bar = tqdm.tqdm(total=len(todo), unit=verb, disable=not progress)
    queue, waiting, pending = iter(todo), {}, set()
    with (
        results,
        bar,
        concurrent.futures.ThreadPoolExecutor(threads) as pool,
    ):
        while True:
            held = sum(map(len, waiting.values()))
            # No more photos in memory than about four batches, however many jobs there
            # are.
            for job in _first(queue, 4 * size - held - len(pending)):
                pending.add(pool.submit(work.advance, job, None, None))
            # A bucket runs when it is full; else one waits for more requests, and only
            # when none can come the fullest runs as it is.
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
                    if none := _no_answers(found):
                        counts["none"] = counts.get("none", 0) + none
                    bar.set_postfix(failed=counts["failed"], refresh=False)
                    bar.update(1)
            elif largest is not None:
                # Taken out and put back, so that the buckets take turns where several
                # are full.
                group = waiting.pop(largest)
                if group[size:]:
                    waiting[largest] = group[size:]
                requests = [request for *_, request in group[:size]]
                answers = _answers(getattr(model, "editor", None), requests, size)
                for (job, steps, _), answer in zip(group, answers):
                    pending.add(pool.submit(work.advance, job, steps, answer))
            else:
                break
    results.sort(jobs)
    return counts


def _no_answers(found: Mapping[str, Any]) -> int:
    """How many answers of a result mean nothing, see `answers.Answer`."""
    said = (f for f in found.get("found", ()) if isinstance(f, Mapping))
    return sum("question" in f and f["value"] is None for f in said)


def _answers(editor, requests: Sequence[Any], size: int) -> list[Any]:
    """The answer to each request, or the exception that it raises by itself."""
    try:
        described = isinstance(requests[0], rows.Rows)
        return (rows if described else editor).answer(requests, size)
    except Exception as error:  # of one of them, or of their common options
        if len(requests) == 1:
            return [error]
        # One by one, so that the error is that job's alone.
        return [_answers(editor, [request], size)[0] for request in requests]


def _first(queue: Iterable[Job], count: int):
    for _, job in zip(range(count), queue):
        yield job


def _steps(model, verb: str, job: Job):
    """A generator of requests that ends with an Edit, or with what was found."""
    method, values = getattr(model, verb), dict(job.values)
    if "seed" in inspect.signature(method).parameters:
        values["seed"] = job.seed
    if verb in verbs.DRAWN:
        return model.steps(verb, values)
    return _found(method, values)


def _found(method, values):
    """Results of jobs that are no edits."""
    if steps := getattr(method, "steps", None):
        found = yield from steps(method.__self__, **values)
    else:  # a batch of its own
        found = method(**values)
    if isinstance(found, (Samples, Seen)):
        return found
    found = found if isinstance(found, list) else [found]
    return [dataclasses.asdict(f) if dataclasses.is_dataclass(f) else f for f in found]


def _written(result: Any, folder: pathlib.Path, job: Job, ending, strips) -> dict:
    if isinstance(result, Seen):
        path, _ = result.save(folder / f"{job.name}{ending}")
        return {"file": path.name, "found": result.described()["faces"]}
    if not isinstance(result, (Edit, Samples)):
        return {"found": result}
    details = {**result.details, "job": job.name, "source": dict(job.source)}
    if isinstance(result, Samples):
        path, _ = Samples(result, details).save(folder / f"{job.name}{ending}")
        return {"file": path.name, "text": details["text"]}
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
        """Name of the file that a host writes."""
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
        order = {job.name: i for i, job in enumerate(jobs)}
        rows = sorted(self.ours.values(), key=lambda row: order.get(row["id"], -1))
        files.write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
