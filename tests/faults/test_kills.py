"""Killed at any moment, a run goes on as if nothing had been."""

import itertools
import random
import signal
import subprocess
import time

import numpy as np
import pytest
from processes import lines, run

from gptface_jax.train.checkpoint import restore_params

# A save every second step: about half of the moments lie in one.
CONFIG = {"total_steps": 24, "checkpoint_every": 2, "log_every": 1}
OPTIONS = {"config": CONFIG, "devices": 2, "pause": 0.04}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """(lines, seconds from the first batch to the end) by number of processes."""
    found = {}

    def get(count):
        if count not in found:
            workdir = tmp_path_factory.mktemp(f"undisturbed{count}") / "run"
            start = time.monotonic()
            for status, words, errors in run(workdir, count, **OPTIONS):
                assert (status, words) == (0, ["24", "False"]), errors
            found[count] = (lines(workdir), time.monotonic() - start)
        return found[count]

    return get


def drill(workdir, undisturbed, seed, count):
    """Kills one process at a random moment, runs again; returns what happened."""
    expected, seconds = undisturbed(count)
    rng = random.Random(seed)
    moment, victim = rng.uniform(0, 0.8 * seconds), rng.randrange(count)
    killed = run(workdir, count, kill_after=moment, victim=victim, **OPTIONS)
    there = (workdir / "checkpoints").glob("*")
    saved = max((int(p.name) for p in there if p.name.isdigit()), default=None)
    for status, words, errors in run(workdir, count, **OPTIONS):
        assert (status, words) == (0, ["24", "False"]), errors
    ours = lines(workdir)
    if count == 1:
        assert ours == expected  # bit for bit
    else:
        assert list(ours) == list(expected)
        np.testing.assert_allclose(list(ours.values()), list(expected.values()), 1e-5)
    was_killed = killed[victim][0] == -signal.SIGKILL
    return {"seed": seed, "processes": count, "moment": round(moment, 2),
            "victim": victim, "killed": was_killed, "saved": saved}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "count"), [(0, 1), (1, 1), (2, 2)])
def test_kill_9_at_a_random_moment(tmp_path, undisturbed, seed, count):
    drill(tmp_path / "run", undisturbed, seed, count)


@pytest.mark.slow
def test_the_drill_of_thirty(tmp_path, undisturbed):
    """Its record is in docs/training.md."""
    # The first run of each kind compiles: the length of the next one counts.
    losses = {count: undisturbed(count)[0] for count in (1, 2)}
    warm = {count: (losses[count], timed(tmp_path, count)) for count in (1, 2)}
    killed = 0
    for seed in itertools.count(100):
        done = drill(tmp_path / str(seed), warm.get, seed, 2 if seed % 3 == 2 else 1)
        print(done, flush=True)
        killed += done["killed"]
        if killed == 30:
            break


def timed(folder, count):
    """Seconds of a run by so many processes."""
    start = time.monotonic()
    run(folder / f"timed{count}", count, **OPTIONS)
    return time.monotonic() - start


@pytest.mark.slow
def test_kill_9_while_the_step_is_compiled_for_the_first_time(tmp_path, undisturbed):
    """Nothing is there yet; the next run starts anew in the same folder."""
    expected, _ = undisturbed(1)
    ((status, _, _),) = run(tmp_path / "run", kill_at=0, **OPTIONS)
    assert status == -signal.SIGKILL
    ((status, words, errors),) = run(tmp_path / "run", **OPTIONS)
    assert (status, words) == (0, ["24", "False"]), errors
    assert lines(tmp_path / "run") == expected


@pytest.mark.slow
def test_sigterm_leaves_time_to_save(tmp_path, undisturbed):
    expected, _ = undisturbed(1)
    options = {**OPTIONS, "config": {**CONFIG, "checkpoint_every": 0}}
    ((status, words, errors),) = run(
        tmp_path / "run", kill_at=9, signal="SIGTERM", **options
    )
    assert status == 0 and words[1] == "True", errors
    assert restore_params(tmp_path / "run")[1]["step"] == int(words[0])
    ((status, words, errors),) = run(tmp_path / "run", **options)
    assert words == ["24", "False"], errors
    assert lines(tmp_path / "run") == expected


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB; its size can be changed."""
    where = tmp_path / "disk"
    where.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(where)]
        return subprocess.run(command, capture_output=True).returncode

    if mount("size=400k"):
        pytest.skip("mounting a small file system needs root")
    yield where, lambda size: mount(f"remount,size={size}")
    subprocess.run(["umount", str(where)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_and_the_run_goes_on_when_there_is_room(
    tmp_path, undisturbed, small_disk
):
    where, resize = small_disk
    expected, _ = undisturbed(1)
    options = {**OPTIONS, "config": {**CONFIG, "keep": 30}}
    options["logs"] = tmp_path / "log"  # the disk may have no room for them
    ((status, _, errors),) = run(where / "run", **options)
    assert status == 1
    assert "No space left on device" in errors and "free some space" in errors
    assert resize("50m") == 0
    saved = restore_params(where / "run")[1]["step"]
    assert f"intact: steps {list(range(2, saved + 1, 2))}" in errors
    ((status, words, errors),) = run(where / "run", **options)
    assert (status, words) == (0, ["24", "False"]), errors
    assert lines(where / "run") == expected
