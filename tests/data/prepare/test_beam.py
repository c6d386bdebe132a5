"""A whole set by the command: what is in it, and that it survives what goes wrong."""

import functools
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import hostile_files as hostile
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptface_jax.cli.main import main
from gptface_jax.core import extras, processes
from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, shard_format
from gptface_jax.data.prepare import (
    beam,
    duplicates,
    finish,
    readers,
    sample,
    settings,
    staging,
    texts,
)
from gptface_jax.data.sources import open_source

CONFIG = "configs/data/laion_face.py:tiny"


def run(out, *more):
    words = ["prepare", "--quiet", "--workers", "1", "--config", CONFIG, "--out", out]
    return main([str(w) for w in (*words, *more)])


def digests(folder):
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(pathlib.Path(folder).rglob("*.arrayrecord"))
    }


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """24 drawn faces in three units."""
    out = tmp_path_factory.mktemp("beam") / "set"
    assert run(out) == 0
    return out


def test_the_set_holds_what_was_drawn(prepared):
    manifest = finish.read(prepared)
    assert manifest["counts"] == {
        "read": 24, "further_faces": 0, "rejected": 0, "records": 24
    }  # fmt: skip
    assert sorted(p.name for p in prepared.iterdir()) == [
        "manifest.json", "rejected", "train", "validation"
    ]  # fmt: skip
    drawn = {open_source({"kind": "synthetic", "count": 24, "size": 64})[i].text
             for i in range(24)}  # fmt: skip
    texts = []
    for split, count in manifest["splits"].items():
        records = open_source({"kind": "arrayrecord", "path": prepared / split})
        assert len(records) == count
        for i in range(count):
            record = records[i]
            texts.append(record.text)
            assert record.source == "synthetic" and record.landmarks.shape == (68, 2)
    assert set(texts) == drawn


def test_it_needs_beam(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert run(tmp_path / "out", "--beam=--runner=FlinkRunner") == 2
    assert extras.install("pipeline") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_finished_or_foreign_folder_is_left_alone(prepared, tmp_path, capsys):
    before = digests(prepared)
    assert run(prepared) == 0 and digests(prepared) == before  # nothing is left to do
    assert "24 read, 0 rejected, 24 records" in capsys.readouterr().out
    assert run(prepared, "--config.crop.size=48") == 2 and digests(prepared) == before
    assert "already holds a finished set of another" in capsys.readouterr().err
    (tmp_path / "mine.txt").write_text("mine")
    assert run(tmp_path) == 2
    assert "holds other files" in capsys.readouterr().err


_TAR = "--config.sources=({{'kind':'webdataset','path':'A_TAR',{}}},)"


@pytest.mark.parametrize(
    "more, message",
    [
        (["--images", "x"], "--images does not go with --config"),
        (["--size", "128"], "--size does not go with --config"),
        (["--shard-size", "512"], "--shard-size does not go with --config"),
        (["--seed", "3"], "--seed does not go with --config"),
        (["--frame", "x"], "--frame does not go with --config"),
        (["--config.crop.mode=x"], "crop.mode is 'x'"),
        (["--config.sources=({'kind':'webdataset','path':'/none'},)"], "not exist"),
        (["--config.sources=({'kind':'webdataset','paht':'/none'},)"], "path"),
        ([_TAR.format("'metadata':'/none'")], "metadata '/none' is no folder"),
        ([_TAR.format("'metadata':'/'")], "has no table of any file, such as '/a.parq"),
        ([_TAR.format("'detections':'/none'")], "holds no detections"),
    ],
)
def test_refusals(tmp_path, capsys, more, message):
    tar = hostile.tar_of(tmp_path / "a.tar", [])
    more = [word.replace("A_TAR", str(tar)) for word in more]
    assert run(tmp_path / "out", *more) == 2
    assert message in capsys.readouterr().err


# Ends the process without a word once a unit is staged, or when one is written at last.
_KILLED = """
import os, signal, sys
from gptface_jax.data.prepare import finish, staging
from gptface_jax.cli.main import main
places = {"first": (staging, "write_unit"), "last": (finish, "write_final")}
module, name = places[sys.argv[1]]
whole, calls = getattr(module, name), []
def dying(*args):
    if len(calls) == 1:
        if sys.argv[1] == "first":  # in the middle of a unit
            args = (*args[:2], dying_samples(args[2]), *args[3:])
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    calls.append(args)
    return whole(*args)
def dying_samples(outcomes):
    for i, outcome in enumerate(outcomes):
        if i == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        yield outcome
setattr(module, name, dying)
main(sys.argv[2:])
"""


@pytest.mark.parametrize("phase", ["first", "last"])
def test_a_killed_run_goes_on(prepared, tmp_path, phase):
    out = tmp_path / "set"
    command = f"prepare --quiet --workers 1 --config {CONFIG} --out {out}"
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, phase, *command.split()],
        timeout=120, capture_output=True,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    staged = sorted((out / "staging").glob("unit-*.arrayrecord"))
    assert len(staged) == (1 if phase == "first" else 3)
    before = {p: p.stat().st_mtime_ns for p in [*staged, *out.glob("train/*")]}
    if phase == "last":
        assert any(p.parent.name == "train" for p in before)
        (out / "train" / ".part-000009.arrayrecord.0.partial").touch()  # of a worker
    with pytest.raises(UserError, match="no finished set"):
        finish.read(out)
    seen = {}
    real = beam.finish.finish

    def look(folder, *args):
        seen.update({p: p.stat().st_mtime_ns for p in before if p.exists()})
        return real(folder, *args)

    beam.finish.finish = look
    try:
        assert run(out) == 0
    finally:
        beam.finish.finish = real
    assert seen == before  # what was complete was not done again
    assert digests(out) == digests(prepared)
    assert not (out / "staging").exists()
    assert not list(out.rglob("*.partial"))


def test_what_was_killed_while_it_was_tidied_up_is_tidied(
    tmp_path, capsys, monkeypatch
):
    real = shutil.rmtree

    def killed(folder, *args, **options):
        if folder == tmp_path / "set" / "staging":
            raise KeyboardInterrupt
        real(folder, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(finish.shutil, "rmtree", killed)
        assert run(tmp_path / "set") == 130
    assert (tmp_path / "set" / "staging").exists()
    capsys.readouterr()
    assert run(tmp_path / "set") == 0
    assert "24 records" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == [
        "manifest.json", "rejected", "train", "validation"
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists the open files")
def test_parts_of_tables_are_not_all_open_at_once(tmp_path, monkeypatch):
    """As many as a large set has are more than a process may open."""
    monkeypatch.setattr(finish, "_TOGETHER", 100)
    folder = staging.Folder(tmp_path)
    works = duplicates.plan(100, 2, part=5)
    rng, units = np.random.default_rng(0), 4
    numbers = [(unit << 32) + place for unit in range(units) for place in range(9)]
    folder.staging.mkdir()
    found = {"exact": [], "near": []}
    for work in works:
        some = np.sort(rng.choice(np.array(numbers, np.uint64), 3, replace=False))
        np.save(folder.found(work), some)
        found["near" if work.mask else "exact"].append(some)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    there = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    assert len(works) > 30
    resource.setrlimit(resource.RLIMIT_NOFILE, (there + 15, hard))
    try:
        finish.merge_copies(folder, works, units)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for kind, parts in found.items():
        merged = np.load(folder.copies(kind))
        np.testing.assert_array_equal(merged, np.sort(np.concatenate(parts)))
    finish.merge_copies(staging.Folder(tmp_path), [], units)  # it is there
    shutil.rmtree(folder.staging)
    folder.staging.mkdir()
    finish.merge_copies(folder, [], units)
    assert not len(np.load(folder.copies("near"), mmap_mode="r"))


def test_few_calls_wait_whatever_their_number():
    given, ahead = [], []

    def keys():
        for i in range(100):
            given.append(i)
            yield i

    done = []
    for result in processes.results(abs, keys(), 2, processes.end_with_parent):
        done.append(result)
        ahead.append(len(given) - len(done))
    assert sorted(done) == list(range(100)) and max(ahead) <= 8


def test_an_unfinished_set_of_another_config_is_refused(tmp_path, capsys, monkeypatch):
    def broken(*args):
        raise RuntimeError("out of luck")

    with monkeypatch.context() as patched:
        patched.setattr(finish, "write_final", broken)
        with pytest.raises(RuntimeError, match="out of luck"):
            run(tmp_path / "set")
    assert run(tmp_path / "set", "--config.crop.size=32") == 2
    assert "another config" in capsys.readouterr().err


def test_a_full_disk_is_told_in_one_line(tmp_path, capsys, monkeypatch):
    def full(self, data):
        with self._reported():
            raise RuntimeError("No space left on device; source line 7")

    monkeypatch.setattr(shard_format.shard_writer, "write", full)
    assert run(tmp_path / "set") == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.startswith("gptface prepare: cannot write '") and said.endswith(
        "(No space left on device); free space on the disk, and run the same command "
        "again"
    )
    monkeypatch.undo()
    os.chdir(pathlib.Path(__file__).parents[3])
    assert run(tmp_path / "set") == 0


def test_a_record_that_is_lost_fails_the_job(tmp_path, capsys, monkeypatch):
    """in = out + rejected."""
    real = finish.staging.records_of

    def lossy(path, *args):
        records = real(path, *args)
        if path.suffix == ".arrayrecord":
            next(records, None)
        return records

    monkeypatch.setattr(finish.staging, "records_of", lossy)
    assert run(tmp_path / "set") == 2
    assert "do not add up" in capsys.readouterr().err
    assert not (tmp_path / "set" / "manifest.json").exists()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Drawn faces in a tar and a Parquet, with copies, opt-outs and scores."""
    root = tmp_path_factory.mktemp("mixed")
    source = open_source({"kind": "synthetic", "count": 12, "size": 64})
    pictures = [source[i].image for i in range(12)]

    def about(i, **more):
        return hostile.about(
            caption=f"face number {i}", url=f"http://h{i}.org/{i}.jpg",
            boxes=[[8, 8, 56, 56]], **more,
        )  # fmt: skip

    files = [hostile.encoded(p) for p in pictures]
    samples = [(f"{i}", {"jpg": files[i], "json": about(i)}) for i in range(8)]
    samples[6] = ("6", {"jpg": files[6], "json": about(6, punsafe=0.9)})
    samples.append(("8", {"jpg": files[0], "json": about(8)}))  # the same bytes
    again = hostile.encoded(pictures[1], quality=90)
    samples.append(("9", {"jpg": again, "json": about(9)}))  # looks the same
    hostile.tar_of(root / "00000.tar", samples)
    columns = {
        "jpg": [files[2], *files[10:12]],
        "caption": ["x y z"] * 3,
        "url": ["http://a/b"] * 3,
        "boxes": [[[8.0, 8, 56, 56]]] * 3,
    }
    pq.write_table(pa.table(columns), root / "table.parquet")
    (root / "optout.txt").write_text("h7.org\n")
    return root


def test_duplicates_are_dropped_over_the_whole_set(mixed, tmp_path):
    sources = (
        {"kind": "webdataset", "path": str(mixed), "name": "web"},
        {"kind": "parquet", "path": str(mixed)},
    )
    assert run(tmp_path / "set", f"--config.sources={sources}",
               f"--config.opt_out={mixed}/optout.txt") == 0  # fmt: skip
    manifest = finish.read(tmp_path / "set")
    assert manifest["rejected"] == {
        sample.EXACT: 2, sample.NEAR: 1, sample.OPTED_OUT: 1,
        "score: punsafe too high": 1,
    }  # fmt: skip
    assert manifest["counts"]["read"] == 13 and manifest["counts"]["records"] == 8
    assert manifest["opt_out"]["entries"] == 1
    records = [
        record
        for split in manifest["splits"]
        for records in [open_source({"kind": "arrayrecord",
                                     "path": tmp_path / "set" / split})]
        for record in (records[i] for i in range(len(records)))
    ]  # fmt: skip
    assert "web/00000/0" in {r.source for r in records}  # the first of the copies
    rejected = open_source({"kind": "arrayrecord", "path": tmp_path / "set/rejected"})
    reasons = [rejected[i].facts["reason"] for i in range(len(rejected))]
    (gone,) = [rejected[i] for i in range(len(rejected))
               if rejected[i].facts["reason"] == sample.OPTED_OUT]  # fmt: skip
    assert gone.text == gone.source == "" and gone.image is None
    assert sorted(reasons) == sorted(
        [sample.EXACT] * 2 + [sample.NEAR, sample.OPTED_OUT, "score: punsafe too high"]
    )


def test_image_ids_on_the_way(tmp_path, tiny, monkeypatch):
    """The codes that the tokenizer gives the pictures beside them."""
    from gptface_jax.experiments import opening
    from gptface_jax.pipelines.image_tokenizer import ImageTokenizer

    network = opening.open_network(tiny / "vqgan", "vqgan")
    more = [
        "--config.crop.encoding=png",
        f"--config.crop.size={network.config.resolution}",
        f"--config.image_ids.tokenizer={tiny / 'vqgan'}",
        "--config.image_ids.keep_pictures=True",
        "--config.image_ids.batch_size=4",
    ]
    codebooks, write = [], finish.files.write_text

    def look(path, text):
        if path == tmp_path / "set" / "manifest.json":  # killed now, all is there
            codebooks.extend((tmp_path / "set").glob("*/codebook.npy"))
        write(path, text)

    monkeypatch.setattr(finish.files, "write_text", look)
    assert run(tmp_path / "set", *more) == 0
    assert len(codebooks) == 2
    records = open_source({"kind": "tokens", "path": tmp_path / "set" / "train"})
    pictures = np.stack([image_io.decode(records[i].image) for i in range(8)])
    wanted = ImageTokenizer(network, 4).encode(pictures)
    found = np.stack([records[i].image_ids for i in range(8)])
    assert found.dtype == np.uint16 and np.mean(found == wanted) > 0.99
    assert records.codebook.shape[0] == records.manifest["codebook_size"]
    assert records.manifest["tokenizer_digest"] == network.codes_digest


_IN_PROCESS = "apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        _IN_PROCESS,
        "DirectRunner --direct_running_mode=multi_processing --direct_num_workers=2",
    ],
    ids=["one process", "two processes"],
)
def test_beam_makes_the_same_set(prepared, tmp_path, options):
    assert run(tmp_path / "set", f"--beam=--runner={options}") == 0
    assert digests(tmp_path / "set") == digests(prepared)


def test_a_worker_that_is_killed_ends_the_job():
    """As the system does where memory is short."""
    killed = beam._Piece(os.getpid, os.kill)
    with pytest.raises(UserError, match="worker process died.*fewer --workers than 2"):
        keys = [0, 0, signal.SIGKILL, 0, 0]
        list(processes.results(beam._act, keys, 2, beam._begin, killed))


class Deadly(beam.Stages):
    """Stages in which the samples of these keys end the process."""

    def __call__(self, items):
        for item in items:
            if item.key in ("3", "5"):  # of one unit
                os._exit(9)
            yield from super().__call__([item])


def _deadly(config):
    return Deadly(config, texts.texts(config.texts))


def test_a_sample_that_ends_its_process_is_rejected_at_last(tmp_path):
    """As a fault in a library that reads pictures does; two ends are taken for bad
    luck, then the unit is read one by one."""
    config = settings.read(load_config(CONFIG).to_dict())
    make = functools.partial(_deadly, config)
    for _ in range(2):
        with pytest.raises(processes.Died):
            beam.prepare(config, tmp_path / "set", make, workers=2, progress=False)
    manifest = beam.prepare(config, tmp_path / "set", make, workers=2, progress=False)
    assert manifest["rejected"] == {sample.CRASHED: 2}
    assert manifest["counts"]["records"] == 22
    assert not (tmp_path / "set" / "staging").exists()


def test_a_file_that_ends_the_process_is_named(tmp_path, monkeypatch):
    config = settings.read(load_config(CONFIG).to_dict())
    units, _ = readers.units(config)
    folder = staging.Folder(tmp_path)
    folder.staging.mkdir()
    folder.at(0).write_text("3")

    def die(*_):
        raise processes.Died("dead")
        yield

    monkeypatch.setattr(beam.processes, "results", die)
    with pytest.raises(UserError, match=r"reading synthetic\[0:\d+\] ends the process"):
        beam._read_carefully(folder, config, units, None, 0)


def workers_of(process) -> list[int]:
    """Numbers of the processes in which it works."""
    found = []
    for thread in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
        for number in (thread / "children").read_text().split():
            line = pathlib.Path(f"/proc/{number}/cmdline").read_bytes()
            found += [int(number)] * (b"spawn_main" in line)
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc lists the workers")
def test_two_processes_that_are_killed_and_begun_again(tmp_path):
    """A worker, then the process that started them; at last all is as ever."""
    single = "--config.unit_size=1"
    assert run(tmp_path / "alone", single) == 0
    out = tmp_path / "set"
    command = f"prepare --quiet --workers 2 --config {CONFIG} --out {out} {single}"
    words = [sys.executable, "-m", "gptface_jax.cli.main", *command.split()]

    def begun(first):
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 200
        while not (first.exists() and workers_of(process)):
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.005)
        return process, workers_of(process)

    process, workers = begun(out / "staging/unit-000000.json")
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 2 and "a worker process died" in said
    process, workers = begun(out / "plan.json")
    process.kill()
    process.communicate(timeout=60)  # until none of them holds the pipe any more
    assert not any(pathlib.Path(f"/proc/{worker}/exe").exists() for worker in workers)
    done = subprocess.run(words, timeout=300, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert digests(out) == digests(tmp_path / "alone")


def test_errors_of_other_processes_are_told_as_well():
    """As the runner gives them: a traceback as text, once or twice."""
    text = (
        "Traceback (most recent call last):\n  File 'x', line 3, in act\n"
        "gptface_jax.core.errors.UserError: cannot write 'a b'; free space [while "
        "running 'Map(<_Piece>)-ptransform-7']\n"
    )
    for error in (RuntimeError(text), RuntimeError(f"bundle 1 failed: {text}{text}")):
        found = beam._readable(error)
        assert isinstance(found, UserError)
        assert str(found) == "cannot write 'a b'; free space"
    other = RuntimeError("out of luck")
    assert beam._readable(other) is other
