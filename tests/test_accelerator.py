"""The run on an accelerator: what it repeats, stops, packs and merges."""

import functools
import importlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import threading
import time
import tomllib

import numpy as np
import pytest

STEP = """
import pathlib, sys, time
kind, seen = sys.argv[1:]
pathlib.Path(seen).open("a").write(kind)
print("a table of", kind, flush=True)
if kind == "fails":
    sys.exit(3)
if kind == "hangs":
    time.sleep(60)
"""
# Counts a step a run, on from the newest checkpoint; what has `slow` waits for SIGTERM.
TRAIN = """
import pathlib, signal, sys, time
workdir = pathlib.Path(sys.argv[sys.argv.index("--workdir") + 1])
folder = workdir / "checkpoints"
step = 1 + max([int(p.name) for p in folder.glob("*")], default=0)
for number in (step - 1, step) if step > 1 else (step,):
    (folder / str(number) / "opt_state").mkdir(parents=True, exist_ok=True)
    (folder / str(number) / "opt_state" / "moments").write_bytes(bytes(3000))
    (folder / str(number) / "params").write_text(f"of step {number}")
(workdir / "metrics.jsonl").open("a").write(f'{{"step": {step}}}\\n')
if "slow" in " ".join(sys.argv):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    print("waits", flush=True)
    pathlib.Path("waits").touch()
    time.sleep(60)
"""


@pytest.fixture
def accelerator(root, monkeypatch, tmp_path):
    """The script, in a checkout of its own where `train` is the one above."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    module = importlib.import_module("accelerator")
    for path, text in {
        "gptface_jax/__init__.py": "",
        "gptface_jax/cli/__init__.py": "",
        "gptface_jax/cli/main.py": TRAIN,
        "benchmarks/step.py": STEP,
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.setattr(module, "HERE", tmp_path / "benchmarks")
    monkeypatch.setattr(module, "device", lambda: "a chip")
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    yield module
    for sign, handler in before.items():
        signal.signal(sign, handler)


@pytest.fixture
def seen(accelerator, monkeypatch, tmp_path):
    """What ran, by step; steps that work, fail and hang."""
    seen = tmp_path / "seen"

    def step(kind):
        words = f"step.py {kind} {seen}"
        return accelerator.Step(kind, f"About {kind}", words, words, 1)

    steps = tuple(step(kind) for kind in ("works", "fails", "hangs"))
    monkeypatch.setattr(accelerator, "STEPS", steps)
    return lambda kind: seen.read_text().count(kind)


def results(out):
    return json.loads((out / "results.json").read_text())


def test_what_failed_or_hung_runs_again(accelerator, seen, tmp_path):
    out = tmp_path / "out"
    for runs in (1, 2):
        assert accelerator.main(["--out", str(out), "--no-training"]) == 1
        assert (seen("works"), seen("fails"), seen("hangs")) == (1, runs, runs)
    found = results(out)
    assert found["works"]["status"] == 0 and found["fails"]["status"] == 3
    assert found["hangs"]["status"] == -15 and found["hangs"]["seconds"] < 20


def test_a_rehearsal_counts_for_nothing(accelerator, seen, tmp_path, monkeypatch):
    """Neither another command nor another device has done a step."""
    works = ["--out", str(tmp_path / "out"), "--only", "works"]
    monkeypatch.setattr(accelerator, "device", lambda: "cpu, jax 1")
    accelerator.main([*works, "--tiny"])
    with pytest.raises(SystemExit, match="no accelerator here .*give --tiny"):
        accelerator.main(works)
    with pytest.raises(SystemExit, match="holds no step that ran on an accelerator"):
        accelerator.merge(tmp_path / "out", tmp_path / "results" / "page.md")
    monkeypatch.setattr(accelerator, "device", lambda: "a chip")
    accelerator.main(works)
    assert seen("works") == 2
    assert results(tmp_path / "out")["works"]["device"] == "a chip"
    accelerator.main(works)
    assert seen("works") == 2
    (step, *_) = accelerator.STEPS
    other = accelerator.Step("works", step.title, f"{step.command}2", "", 1)
    monkeypatch.setattr(accelerator, "STEPS", (other,))
    accelerator.main(works)
    assert (tmp_path / "seen2").read_text() == "works"


def test_sections_and_the_row_of_the_index_are_replaced(accelerator, seen, tmp_path):
    out, page = tmp_path / "out", tmp_path / "results" / "accelerator.md"
    page.parent.mkdir()
    index = tmp_path / "results.md"
    index.write_text("| page | what |\n| --- | --- |\n| [Speed](x.md) | speed |\n")
    accelerator.main(["--out", str(out), "--no-training", "--only", "works"])
    accelerator.merge(out, page)
    before = (
        "| [Speed](x.md) | speed |\n| [On an accelerator](results/accelerator.md) | "
    )
    assert index.read_text().endswith(before + "About works |\n")
    accelerator.main(["--out", str(out), "--no-training", "--only", "fails"])
    accelerator.merge(out, page)
    first = page.read_text(), index.read_text()
    assert "## About works\n\na chip, " in first[0] and "a table of works" in first[0]
    assert "failed, status 3" in first[0]
    assert first[1].endswith(before + "About works, About fails |\n")
    accelerator.merge(out, page)
    assert (page.read_text(), index.read_text()) == first


def test_time_is_kept_for_the_training(accelerator, seen, tmp_path):
    out = tmp_path / "out"
    assert accelerator.main(["--out", str(out), "--minutes", "2.4"]) == 1
    found = results(out)
    assert found.pop("training")["status"] == 0
    assert {step["status"] for step in found.values()} == {"no time"}
    accelerator.main(["--out", str(tmp_path / "late"), "--minutes", "0.1"])
    found = results(tmp_path / "late")
    assert {step["status"] for step in found.values()} == {"no time"}
    # What is known of the training stays where there is no time for more of it.
    accelerator.main(["--out", str(out), "--minutes", "0.1"])
    assert results(out)["training"]["status"] == 0


def test_limits_fit_two_runs(accelerator):
    """Each step begins in one of two, though all before it took all their time."""
    options = accelerator.read_options(["--out", "x"])
    room = 60 * options.minutes - accelerator.KEPT
    waiting = [step.seconds for step in accelerator.STEPS]
    for _ in range(2):
        spent = 0
        while waiting and room - spent >= 30:
            spent += waiting.pop(0)
    assert not waiting and options.minutes < 10


def stop_when(path):
    def wait():
        end = time.monotonic() + 60
        while not path.exists():
            if time.monotonic() > end:
                return
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def test_a_training_is_stopped_packed_and_gone_on_with(accelerator, tmp_path):
    """SIGTERM lets it save; only results and parts are in the folder; it resumes."""
    out = tmp_path / "out"
    run = accelerator.Run(out, 5, "a chip", tiny=False)
    stop_when(tmp_path / "waits")
    run.training(["slow=1"])
    assert run.stopped
    found = results(out)["training"]
    assert found["status"] == 75 and found["parts"] == ["model.tar.00"]
    assert found["output"] == 'waits\n{"step": 1}'
    assert "--config.slow=1 --workdir runs/accelerator" in found["command"]
    assert {path.name for path in out.iterdir()} == {"results.json", "model.tar.00"}
    run.step(accelerator.STEPS[0], 0)  # nothing begins after a stop
    assert results(out)["correct"]["status"] == "no time"
    # A rehearsal in the same folder has a training of its own.
    accelerator.Run(out, 5, "a chip", tiny=True).training([])
    assert results(out)["training"]["output"] == '\n{"step": 1}'
    accelerator.Run(out, 5, "another chip", tiny=False).training([])
    found = results(out)["training"]
    assert found["status"] == 0 and found["output"].endswith('{"step": 2}')
    accelerator.Run(out, 5, "another chip", tiny=False).training([])
    assert results(out)["training"] == found  # it is done
    run.unpack(tmp_path / "again")
    steps = (tmp_path / "again" / "checkpoints").iterdir()
    assert [step.name for step in steps] == ["2"]


def test_parts_are_small_and_few(accelerator, tmp_path, monkeypatch):
    work = tmp_path / "train"
    for step, size in ((9, 10), (10, 25_000)):
        (work / f"checkpoints/{step}/opt_state").mkdir(parents=True)
        (work / f"checkpoints/{step}/opt_state/moments").write_bytes(os.urandom(size))
        (work / f"checkpoints/{step}/params").write_text(f"of step {step}")
    (work / "config.json").write_text("{}")
    run = accelerator.Run(tmp_path / "out", 5, "a chip", tiny=False)
    monkeypatch.setattr(accelerator, "PART", 11_000)
    names = [f"model.tar.{n:02d}" for n in range(4)]
    assert run.packed(work) == names

    def again(name):
        run.unpack(tmp_path / name)
        return {
            path.relative_to(tmp_path / name).as_posix(): path.read_bytes()
            for path in (tmp_path / name).rglob("*")
            if path.is_file()
        }

    whole = again("whole")
    assert set(whole) == {
        "config.json", "checkpoints/10/params", "checkpoints/10/opt_state/moments"
    }  # fmt: skip
    moments = work / "checkpoints/10/opt_state/moments"
    assert whole["checkpoints/10/opt_state/moments"] == moments.read_bytes()
    monkeypatch.setattr(accelerator, "PARTS", 3)
    assert run.packed(work) == names[:1]
    assert sorted(p.name for p in run.out.glob("model.tar.*")) == names[:1]
    assert set(again("weights")) == {"config.json", "checkpoints/10/params"}
    assert run.packed(tmp_path / "empty") == []


def test_every_command_is_understood_by_its_script(root, accelerator, tmp_path):
    commands = [c for s in accelerator.STEPS for c in (s.command, s.tiny)]
    assert len(commands) == 14
    for script, *words in map(str.split, commands):
        module = importlib.import_module(script.removesuffix(".py"))
        module.read_options(words)
        with pytest.raises(SystemExit):
            module.read_options([*words, "--no-such-option"])


def test_the_machine_gets_the_locked_wheels(root):
    locked = tomllib.loads((root / "uv.lock").read_text())["package"]
    versions = {package["name"]: package["version"] for package in locked}
    lines = (root / "benchmarks" / "wheels.txt").read_text().splitlines()
    wanted = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert wanted and wanted == {name: versions[name] for name in wanted}


@pytest.mark.parametrize("status,pips", [(0, 0), (1, 1)])
def test_wheels_are_installed_where_something_is_missing(
    root, tmp_path, monkeypatch, status, pips
):
    (tmp_path / "benchmarks").mkdir()
    shutil.copy(root / "benchmarks" / "accelerator.sh", tmp_path / "benchmarks")
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "grain.whl").touch()
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(
        f"#!/bin/sh\n[ $1 = -c ] && exit {status}\necho $@ at ${{PYTHONPATH##*:}}\n"
    )
    python.chmod(0o755)
    monkeypatch.setenv("PATH", f"{python.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", "theirs")
    *installed, run = subprocess.check_output(
        ["bash", tmp_path / "benchmarks" / "accelerator.sh", "--out", "x"], text=True
    ).splitlines()
    site = f"{tmp_path}/gptface_site"
    assert len(installed) == pips
    assert all(f"--target {site} wheels/grain.whl" in line for line in installed)
    last = site if pips else "theirs"
    assert run == f"benchmarks/accelerator.py --out x at {last}"


@pytest.mark.shared
def test_recorded_vectors_tell_a_wrong_device(root, monkeypatch, shared):
    """Of the transformers: all is well here, and nothing where products are rounded."""
    monkeypatch.syspath_prepend(root / "benchmarks")
    checks = importlib.import_module("golden_checks")
    import jax

    on = importlib.import_module("device_checks").on
    kept = {name: checks.CHECKS[name] for name in ("prenorm_glu", "talk2face_dense")}
    monkeypatch.setattr(checks, "CHECKS", kept)
    run = functools.partial(on, jax.devices()[0])
    rows = list(checks.rows(shared / "golden", run))
    assert len(rows) == 4 and all(found <= limit for _, found, limit in rows)

    def rounded(function, *arrays):
        return jax.tree.map(lambda x: x.astype(np.float16), run(function, *arrays))

    rows = checks.rows(shared / "golden", rounded)
    assert all(found > limit for _, found, limit in rows)
    assert not list(checks.rows(pathlib.Path("nowhere"), run))
