"""The phases of a set on Apache Beam: on the cores of this machine, or on a cluster.

Pictures never travel between workers: a worker reads a unit and writes its shard, so
that memory does not grow with the set, and a runner moves nothing but numbers of units.
All workers see one file system.
"""

from __future__ import annotations

import contextlib
import logging
import pathlib
import shlex
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import tqdm

from gptface_jax.core import extras, locks
from gptface_jax.core.errors import UserError
from gptface_jax.data.prepare import duplicates, finish, readers, settings, staging
from gptface_jax.data.prepare.finish import Encode
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
            "`gptface prepare --config` needs Apache Beam; "
            + extras.install("pipeline")
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
    workers: int = 1,
    options: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Writes a set; what was broken off, the same call goes on with.

    Args:
      config: see `settings`.
      out: folder of the set.
      make_stages: picklable; called once in every worker.
      make_encode: likewise, makes what gives records their image ids; None gives none.
      about: JSON that decides the content beside the config, such as the digest of a
        tokenizer; goes into all manifests.
      workers: processes of this machine; 1 works in this one.
      options: of Beam, "--runner=FlinkRunner --flink_master=host:8081"; `workers` does
        not count then.
      progress: show bars.

    Returns:
      The manifest.

    Raises:
      UserError: Beam is missing, a source cannot be opened, the folder holds anything
        else or is in use, or nothing is left.
    """
    if workers < 1:
        raise UserError(f"{workers} workers cannot prepare pictures; use 1 or more")
    import_beam()
    units, prints = readers.units(config)
    if not units:
        raise UserError("the sources hold 0 records; give some with pictures")
    about = dict(about or {})
    folder = Folder(pathlib.Path(out).expanduser().absolute())
    with locks.held(folder.root / locks.NAME, "prepares", "choose another --out"):
        staging.open_plan(folder, config, units, prints, about)
        run = _Runner(workers, options, progress)
        run("read", _first(folder, config, units, make_stages))
        works = finish.plan_copies(folder, config, len(units))
        # A few seconds' work: less than it takes to start processes.
        few = works[0].parts == 1 if works else True
        run("copies", _second(folder, works, len(units)), 1 if few else None)
        # One process uses all devices of a machine.
        third = _third(folder, config, len(units), works, make_encode)
        run("write", third, 1 if make_encode else None)
        names = [_name(config, unit) for unit in units]
        return finish.finish(folder, config, names, prints, about)


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
    def make():
        return readers.Reader(config), make_stages()

    def act(made, number: int) -> None:
        reader, stages = made
        outcomes = stages(reader(units[number]))
        staging.write_unit(folder, number, outcomes, config.keep_rejected)

    paths = {number: folder.report(number) for number in range(len(units))}
    return paths, _Piece(make, act)


def _second(folder, works: Sequence[duplicates.Work], units: int) -> Pieces:
    def act(_, number: int) -> None:
        finish.find_copies(folder, works[number], units)

    paths = {number: folder.found(work) for number, work in enumerate(works)}
    return paths, _Piece(lambda: None, act)


def _third(folder, config, units: int, works, make_encode) -> Pieces:
    def act(encode, number: int) -> None:
        finish.write_final(folder, config, number, works, encode)

    paths = {number: folder.final(number) for number in range(units)}
    return paths, _Piece(make_encode or (lambda: None), act)


class _Runner:
    """Function that makes the pieces that are missing, on Beam."""

    def __init__(self, workers: int, options: str, progress: bool):
        self.workers, self.progress = workers, progress
        self.options = shlex.split(options)

    def __call__(self, phase: str, pieces: Pieces, most: int | None = None) -> None:
        """Makes what is missing of a phase, by `most` processes of this machine."""
        import apache_beam as beam

        paths, act = pieces
        left = staging.missing(paths)
        if not left:
            return
        workers = min(self.workers, most or self.workers, len(left))
        runner, options = self._where(workers)
        with _bar(phase, {key: paths[key] for key in left}, self.progress):
            try:
                with beam.Pipeline(runner, options) as pipeline:
                    (
                        pipeline
                        | beam.Create(left)
                        | beam.Reshuffle()  # else all of them stay with one worker
                        | beam.Map(act)
                    )
            except Exception as error:
                raise _readable(error) from error
        if still := staging.missing({key: paths[key] for key in left}):
            raise UserError(
                f"{len(still)} pieces are missing after the phase '{phase}': do all "
                "workers see one file system? Run the same command again"
            )

    def _where(self, workers: int) -> tuple[Any, Any]:
        """Runner and options of Beam."""
        from apache_beam.options.pipeline_options import PipelineOptions

        if self.options:
            return None, PipelineOptions(self.options)
        mode = "multi_processing" if workers > 1 else "in_memory"
        flags = [f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
        return _quiet_runner(), PipelineOptions(flags)


def _quiet_runner() -> Any:
    """The runner of this machine, whose processes report errors alone.

    The direct runner hands its options to no other process, so that they would write
    what they begin and end.
    """
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from google.protobuf import struct_pb2

    # What a worker raises reaches the caller; it need not be logged as well.
    logging.getLogger("apache_beam").setLevel(logging.CRITICAL)
    options = struct_pb2.Struct()
    options["beam:option:default_sdk_harness_log_level:v1"] = "ERROR"
    about = beam_provision_api_pb2.ProvisionInfo(
        retrieval_token="unused", pipeline_options=options
    )
    return fn_runner.FnApiRunner(provision_info=fn_runner.ExtendedProvisionInfo(about))


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

        def watch() -> None:
            left = dict(paths)
            while True:
                ended = done.wait(0.5)
                left = {key: path for key, path in left.items() if not path.is_file()}
                if len(paths) - len(left) > bar.n:
                    bar.update(len(paths) - len(left) - bar.n)
                if ended:
                    return

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
