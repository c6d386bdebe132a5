"""One writer of a folder, with real processes; another host is one of another name.

Or a container of Linux's, with host name, process numbers and /proc of its own.
"""

import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from gptface_jax.core import files, locks
from gptface_jax.core.errors import UserError

# HOST SECONDS PATH: holds the lock so long, after saying "held"; else says why not.
WORKER = """
import socket, sys, time
host, seconds, path = sys.argv[1], float(sys.argv[2]), sys.argv[3]
if host:
    socket.gethostname = lambda: host
from gptface_jax.core import locks
locks.HEARTBEAT, locks.EXPIRES = 0.2, 1.5
sys.stdin.readline()
try:
    with locks.held(path, "trains", "choose another"):
        print("held", flush=True)
        time.sleep(seconds)
except Exception as error:
    print(error, flush=True)
"""


@pytest.fixture
def start():
    workers = []

    def begin(path, seconds=60.0, host="", go=True, within=()):
        worker = subprocess.Popen(
            [*within, sys.executable, "-c", WORKER, host, str(seconds), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        workers.append(worker)
        if go:
            worker.stdin.write("\n")
            worker.stdin.flush()
        return worker

    yield begin
    for worker in workers:
        worker.kill()
        worker.wait()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(locks, "HEARTBEAT", 0.2)
    monkeypatch.setattr(locks, "EXPIRES", 1.5)


def test_the_second_one_is_told_who_was_first_and_touches_nothing(
    tmp_path, start, quick
):
    path = tmp_path / "run" / "running.lock"
    first = start(path)
    assert first.stdout.readline() == "held\n"
    before = {p.name: p.read_bytes() for p in path.parent.iterdir()}
    with pytest.raises(UserError) as caught, locks.held(path, "trains", "go away"):
        pass
    since = json.loads(before["running.lock.json"])["since"]
    assert str(caught.value) == (
        f"'{path.parent}' is in use: process {first.pid} on {socket.gethostname()} "
        f"(since {since}) trains there; wait for it to end, stop it, or go away"
    )
    assert {p.name: p.read_bytes() for p in path.parent.iterdir()} == before


def test_a_lock_ends_with_its_owner(tmp_path, start, quick):
    path = tmp_path / "running.lock"
    with locks.held(path, "trains", "go away"):
        assert sorted(os.listdir(tmp_path)) == ["running.lock", "running.lock.json"]
    assert not os.listdir(tmp_path)
    first = start(path)
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert path.exists()
    begin = time.monotonic()
    with locks.held(path, "trains", "go away") as lock:
        lock.check()
        assert json.loads((tmp_path / "running.lock.json").read_text())["process"] == (
            os.getpid()
        )
    assert time.monotonic() - begin < 1.0  # at once: nothing is waited for
    assert not os.listdir(tmp_path)


def test_killed_and_not_yet_waited_for(tmp_path, start, quick):
    """A zombie has a process number, and holds nothing."""
    path = tmp_path / "running.lock"
    first = start(path)
    assert first.stdout.readline() == "held\n"
    first.send_signal(signal.SIGKILL)
    time.sleep(0.3)
    with locks.held(path, "trains", "go away"):
        pass


def test_an_owner_on_another_host_lives_while_its_file_is_renewed(
    tmp_path, start, quick, capsys
):
    path = tmp_path / "running.lock"
    far = start(path, host="far.example")
    assert far.stdout.readline() == "held\n"
    with (
        pytest.raises(UserError, match=rf"process {far.pid} on far\.example \(since"),
        locks.held(path, "trains", "go away"),
    ):
        pass
    far.send_signal(signal.SIGKILL)
    far.wait()
    begin = time.monotonic()
    with locks.held(path, "trains", "go away"):
        assert time.monotonic() - begin > 1.0  # it had its time
    assert "still lives" in capsys.readouterr().err


def container(name):
    """What starts a command as process 1 of a container of that name."""
    rooms = ("--user", "--map-root-user", "--uts", "--pid", "--mount", "--mount-proc")
    command = ["unshare", *rooms, "--fork", "--kill-child"]
    command += ["sh", "-c", 'hostname "$0" && exec "$@"', name]
    try:
        done = subprocess.run([*command, "true"], capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no containers here: {error}")
    if done.returncode:
        pytest.skip(f"no containers here: {done.stderr.strip()}")
    return command


@pytest.mark.parametrize("name", ["far.example", socket.gethostname()])
def test_an_owner_in_a_container(tmp_path, start, quick, name, capsys):
    """Number 1 lives here as well; that says nothing of the one in there."""
    path = tmp_path / "running.lock"
    far = start(path, within=container(name))
    assert far.stdout.readline() == "held\n"
    with (
        pytest.raises(UserError, match=rf"process 1 on {re.escape(name)} \(since"),
        locks.held(path, "trains", "go away"),
    ):
        pass
    far.kill()
    far.wait()
    begin = time.monotonic()
    with locks.held(path, "trains", "go away"):
        assert time.monotonic() - begin > 1.0  # it had its time
        # From in there our number is nobody's, and we live.
        other = start(path, within=container(name))
        said = f"process {os.getpid()} on {socket.gethostname()} (since"
        assert said in other.stdout.readline()
    assert "still lives" in capsys.readouterr().err


def test_who_stood_still_for_too_long_writes_no_more(tmp_path, start, quick):
    path = tmp_path / "running.lock"
    with locks.held(path, "trains", "go away") as lock:
        lock.check()
        files.write_text(path, "of another")
        time.sleep(1.0)
        with pytest.raises(UserError, match="no longer this process's"):
            lock.check()


@pytest.mark.parametrize("stale", [False, True])
def test_of_several_started_at_once_exactly_one_wins(tmp_path, start, stale):
    path = tmp_path / "running.lock"
    if stale:
        killed = start(path)
        assert killed.stdout.readline() == "held\n"
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    workers = [start(path, seconds=3.0, go=False) for _ in range(6)]
    time.sleep(1.0)
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    said = [worker.stdout.readline() for worker in workers]
    assert said.count("held\n") == 1, said
    assert sum("is in use" in line for line in said) == 5, said


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "running.lock"
    with pytest.raises(UserError, match="cannot write in .*; go"):
        with locks.held(path, "trains", "go away"):
            pass


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / ("x" * 250)
    files.write_text(path, "first")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "first" and os.listdir(tmp_path) == [path.name]
    assert len({files.partial_name(path) for _ in range(99)}) == 99
    files.partial_name(path).touch()
    files.remove_partial(tmp_path)
    assert os.listdir(tmp_path) == [path.name]


def test_an_address_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("gs://bucket/run", pathlib.Path("s3://bucket/run"), "hdfs://n/run"):
        with pytest.raises(UserError, match="is an address.*mount the bucket"):
            with locks.held(pathlib.Path(path) / locks.NAME, "trains", "wait"):
                pass
        with pytest.raises(UserError, match="is an address"):
            files.check_place(path)
    assert not list(tmp_path.iterdir())
    files.check_local("C:/runs")
    files.check_local("runs/a:b")
