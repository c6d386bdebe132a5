"""The phases of a set: on processes of this machine, or on a cluster by Apache Beam.

Pictures never travel between workers: a worker reads a unit and writes its shard, so
that memory does not grow with the set, and a runner moves nothing but numbers of units.
All workers see one file system.

Beam's own runner of one machine waits for ever for a worker that was killed, as the
system does where memory is short; hence a pool, which tells at once.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import pathlib
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core import extras, locks, processes
from gptface_jax.core.errors import UserError
from gptface_jax.data.prepare import (
    duplicates,
    finish,
    readers,
    sample,
    settings,
    staging,
)
from gptface_jax.data.prepare.finish import Encode
from gptface_jax.data.prepare.sample import Rejected
from gptface_jax.data.prepare.stages import Stages
from gptface_jax.data.prepare.staging import Folder


def import_beam() -> Any:
    """The package apache_beam.

    Raises:
      UserError: it is not installed.
    """
    # It says at every import that no BigQuery client is there.
    logging.getLogger().addFilter(_no_bigquery)
    try:
        import apache_beam
    except ImportError:
        raise UserError(
            "`gptface prepare --beam` needs Apache Beam; " + extras.install("pipeline")
        ) from None
    finally:
        logging.getLogger().removeFilter(_no_bigquery)
    return apache_beam


def _no_bigquery(record: logging.LogRecord) -> bool:
    return "bigquery" not in record.getMessage()


def prepare(
    config: settings.Config,
    out: str | pathlib.Path,
    make_stages: Callable[[], Stages],
    make_encode: Callable[[], Encode] | None = None,
    *,
    about: Mapping[str, Any] | None = None,
    beside: Mapping[str, np.ndarray] | None = None,
    workers: int = 1,
    options: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Writes a set; what was broken off, the same call goes on with.

    A set that the same call has finished stays as it is.

    Args:
      config: see `settings`.
      out: folder of the set.
      make_stages: picklable; called once in every worker.
      make_encode: likewise, makes what gives records their image ids; None gives none.
      about: JSON that decides the content beside the config, such as the digest of a
        tokenizer; goes into all manifests.
      beside: see `finish.finish`.
      workers: processes of this machine; 1 works in this one.
      options: of Beam, "--runner=FlinkRunner --flink_master=host:8081"; `workers` does
        not count then.
      progress: show bars.

    Returns:
      The manifest.

    Raises:
      UserError: Beam is asked for and missing, a source cannot be opened, the folder
        holds anything else or is in use, a worker died, or nothing is left.
    """
    if workers < 1:
        raise UserError(f"{workers} workers cannot prepare pictures; use 1 or more")
    if options:
        import_beam()
    units, prints = readers.units(config)
    if not units:
        raise UserError("the sources hold 0 records; give some with pictures")
    about = dict(about or {})
    folder = Folder(pathlib.Path(out).expanduser().absolute())
    with locks.held(folder.root / locks.NAME, "prepares", "choose another --out"):
        if finished := staging.open_plan(folder, config, units, prints, about):
            return finished
        run = _Runner(workers, options, progress)
        run("read", _first(folder, config, units, make_stages))
        works = finish.plan_copies(folder, config, len(units))
        # A few seconds' work: less than it takes to start processes.
        few = works[0].parts == 1 if works else True
        run("copies", _second(folder, works, len(units)), 1 if few else None)
        finish.merge_copies(folder, works, len(units))
        # One process uses all devices of a machine.
        third = _third(folder, config, len(units), make_encode)
        run("write", third, 1 if make_encode else None)
        names = [_name(config, unit) for unit in units]
        return finish.finish(folder, config, names, prints, about, beside or {})


def _name(config: settings.Config, unit: readers.Unit) -> str:
    spec = config.sources[unit.source]
    name = spec.get("name") or spec["kind"]
    if unit.name:
        name = f"{name}/{unit.name}"
    return f"{name}[{unit.start}:{unit.stop}]" if unit.stop else name


class _Piece:
    """Function that makes one piece; what it needs is made once in a worker."""

    def __init__(self, make: Callable[[], Any], act: Callable[[Any, Any], None]):
        self._make, self._act, self._made = make, act, None

    def __getstate__(self):
        return {**self.__dict__, "_made": None}

    def __call__(self, key: Any) -> None:
        if self._made is None:
            self._made = (self._make(),)
        self._act(self._made[0], key)


Pieces = tuple[Mapping[Any, pathlib.Path], _Piece]


def _first(folder, config, units: Sequence[readers.Unit], make_stages) -> Pieces:
    paths = {number: folder.report(number) for number in range(len(units))}
    make = functools.partial(_readers, config, make_stages)
    act = functools.partial(_read, folder, config, units, make_stages)
    return paths, _Piece(make, act)


def _readers(config, make_stages) -> tuple[readers.Reader, Stages]:
    return readers.Reader(config), make_stages()


def _read(
    folder, config, units: Sequence[readers.Unit], make_stages, made, number: int
) -> None:
    reader, stages = made
    unit, path = units[number], folder.tries(number)
    tries = int(path.read_text()) if path.exists() else 0
    try:
        if tries >= _TRIES:
            _read_carefully(folder, config, units, make_stages, number)
        else:
            # What kills a worker ends the job, and would the next time, and so on.
            path.write_text(str(tries + 1))
            outcomes = stages(reader(unit))
            keep, expected = config.keep_rejected, unit.records
            staging.write_unit(folder, number, outcomes, keep, expected)
    finally:  # also where it was told why it ended, or was asked to
        path.unlink(missing_ok=True)


_TRIES = 2  # that a unit has before its samples are looked at one by one


def _read_carefully(folder, config, units, make_stages, number: int) -> None:
    """Reads a unit in a process of its own, without the samples that end it.

    Raises:
      UserError: it ends where no sample is told yet.
    """
    deadly: list[int] = []
    while True:
        make = functools.partial(_readers, config, make_stages)
        act = functools.partial(_read_singly, folder, config, units, tuple(deadly))
        try:
            for _ in processes.results(_act, [number], 1, _begin, _Piece(make, act)):
                pass
        except processes.Died:
            at = int(folder.at(number).read_text())
            if at in deadly:
                raise UserError(
                    f"reading {_name(config, units[number])} ends the process, after "
                    f"{at} samples; take the file out of the source"
                ) from None
            deadly.append(at)
        else:
            return


def _read_singly(folder, config, units, deadly, made, number: int) -> None:
    """Writes a unit, and which sample it is at; those that are deadly are rejected."""
    reader, stages = made
    samples = iter(reader(units[number]))

    def outcomes():
        for place in itertools.count():
            folder.at(number).write_text(str(place))
            if (item := next(samples, None)) is None:
                return
            if place in deadly:
                yield Rejected(item.key, sample.CRASHED)
            else:
                yield from stages([item])

    expected = units[number].records
    staging.write_unit(folder, number, outcomes(), config.keep_rejected, expected)
    folder.at(number).unlink()


def _second(folder, works: Sequence[duplicates.Work], units: int) -> Pieces:
    paths = {number: folder.found(work) for number, work in enumerate(works)}
    return paths, _Piece(_nothing, functools.partial(_compare, folder, works, units))


def _nothing() -> None:
    pass


def _compare(folder, works, units: int, _: None, number: int) -> None:
    finish.find_copies(folder, works[number], units)


def _third(folder, config, units: int, make_encode) -> Pieces:
    paths = {number: folder.final(number) for number in range(units)}
    act = functools.partial(_write, folder, config)
    return paths, _Piece(make_encode or _nothing, act)


def _write(folder, config, encode: Encode | None, number: int) -> None:
    finish.write_final(folder, config, number, encode)


class _Runner:
    """Function that makes the pieces that are missing, here or on Beam."""

    def __init__(self, workers: int, options: str, progress: bool):
        self.workers, self.options, self.progress = workers, options, progress

    def __call__(self, phase: str, pieces: Pieces, most: int | None = None) -> None:
        """Makes what is missing of a phase, by `most` processes of this machine."""
        paths, act = pieces
        left = staging.missing(paths)
        if not left:
            return
        workers = min(self.workers, most or self.workers, len(left))
        with _bar(phase, {key: paths[key] for key in left}, self.progress):
            if self.options:
                _on_beam(act, left, self.options)
            elif workers > 1:
                for _ in processes.results(_act, left, workers, _begin, act):
                    pass
            else:
                for key in left:
                    act(key)
        if still := staging.missing({key: paths[key] for key in left}):
            raise UserError(
                f"{len(still)} pieces are missing after the phase '{phase}': do all "
                "workers see one file system? Run the same command again"
            )


_piece: _Piece | None = None  # of a worker, which makes what it needs once


def _begin(act: _Piece) -> None:
    global _piece
    _piece = act


def _act(key: Any) -> None:
    assert _piece is not None
    _piece(key)


def _on_beam(act: _Piece, keys: Sequence[Any], options: str) -> None:
    """Makes pieces where the options of Beam say."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        with beam.Pipeline(options=PipelineOptions(shlex.split(options))) as pipeline:
            (
                pipeline
                | beam.Create(keys)
                | beam.Reshuffle()  # else all of them stay with one worker
                | beam.Map(act)
            )
    except Exception as error:
        raise _readable(error) from error


def _readable(error: Exception) -> Exception:
    """The error itself, or that for a person which a worker raised.

    Beam adds where it happened; of another process it gives the traceback as text.
    """
    mark, text = f"{UserError.__name__}: ", str(error)
    if not isinstance(error, UserError):
        if mark not in text:
            return error
        text = text.rpartition(mark)[2]
    return UserError(text.partition(" [while running")[0].splitlines()[0])


@contextlib.contextmanager
def _bar(
    phase: str, paths: Mapping[Any, pathlib.Path], progress: bool
) -> Iterator[None]:
    """Shows how many pieces are there: no runner tells, but the folder does."""
    if not progress:
        yield
        return
    done = threading.Event()
    with tqdm.tqdm(total=len(paths), unit="unit", desc=phase) as bar:
        names = {path.name for path in paths.values()}
        folders = {path.parent for path in paths.values()}

        def watch() -> None:
            while True:
                ended = done.wait(2)
                there = (name for folder in folders for name in os.listdir(folder))
                bar.update(sum(name in names for name in there) - bar.n)
                if ended:
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
