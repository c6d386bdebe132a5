"""Pictures and jobs from pipes, and outputs that nobody reads or that lack letters."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from PIL import Image

from gptface_jax.data import folders, shards
from gptface_jax.data.record import Record
from gptface_jax.data.synthetic import SyntheticFaces


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(SyntheticFaces(size=40, count=1)[0].image).save(path)
    return path


def shell(command, **environment):
    """Runs a line of bash in which $G is the command; every status must be told."""
    python = f"{sys.executable} -m gptface_jax.cli.main"
    return subprocess.run(
        ["bash", "-c", command],
        capture_output=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "G": python, **environment},
        timeout=300,
    )


EDIT = "edit --text 'a man' --region mouth --guidance none --k 64 --samples 1"


@pytest.mark.slow
def test_pictures_and_jobs_from_pipes(tiny, photo, tmp_path, gptface_command):
    model, out = tiny / "model", tmp_path / "out"
    given = (*shlex.split(EDIT), "--model", model, "--image", photo)
    assert gptface_command(*given, "--out", tmp_path / "file.png") == 0
    line = json.dumps({"id": "a", "image": photo.name})
    done = shell(
        f"cd {tmp_path};"
        f"cat {photo} | $G {EDIT} --model {model} --image - --out dash.png; "
        f"$G {EDIT} --model {model} --image <(cat {photo}) --out fifo.png; "
        f"echo '{line}' | $G {EDIT} --quiet --model {model} --jobs /dev/stdin "
        f"--out {out}"
    )
    assert done.returncode == 0, done.stderr.decode()
    expected = Image.open(tmp_path / "file.png").tobytes()
    for name in ("dash.png", "fifo.png"):
        assert Image.open(tmp_path / name).tobytes() == expected
    assert (out / "a.png").is_file()
    twice = shell(f"cat {photo} | $G {EDIT} --image - --mask - --out {tmp_path}/x.png")
    assert twice.returncode == 2
    assert b"--image and --mask are both the standard input" in twice.stderr


@pytest.mark.slow
def test_an_output_that_nobody_reads(tiny, photo, tmp_path):
    """The edit is there all the same, and not a word is said of the pipe."""
    end = "exit ${PIPESTATUS[0]}"
    edit = f"$G {EDIT} --model {tiny / 'model'} --image {photo} --out {tmp_path}/o.png"
    done = shell(f"{edit} | true; {end}", PYTHONUNBUFFERED="1")
    assert (done.returncode, done.stderr) == (141, b"")
    assert (tmp_path / "o.png").is_file()
    many = "from gptface_jax.cli import main, describe; describe.run = lambda o: ["
    many += "print(i) for i in range(99999)]; import sys; sys.exit(main.main())"
    for unbuffered in ("", "1"):
        command = f'{sys.executable} -c "{many}" describe | head -n 1; {end}'
        done = shell(command, PYTHONUNBUFFERED=unbuffered)
        assert (done.returncode, done.stdout, done.stderr) == (141, b"0\n", b"")
    # A pipe of another kind is an error as ever.
    code = (
        "from gptface_jax.cli import main, describe\n"
        "def run(options): raise BrokenPipeError(32, 'Broken pipe')\n"
        "describe.run = run; raise SystemExit(main.main())"
    )
    done = shell(f'{sys.executable} -c "$CODE" describe', CODE=code)
    assert done.returncode == 2 and b"Broken pipe" in done.stderr


@pytest.mark.slow
def test_letters_that_the_terminal_lacks(tiny, photo, tmp_path):
    edit = f"$G {EDIT} --model {tiny / 'model'} --image {photo}"
    done = shell(f"{edit} --out {tmp_path}/\u5f20.png", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert b"\\u5f20.png" in done.stdout and b"Traceback" not in done.stderr
    assert (tmp_path / "\u5f20.png").is_file()


def test_a_name_that_is_no_utf8(tmp_path):
    with open(os.fsencode(tmp_path) + b"/\xe9.png", "wb") as file:
        Image.new("RGB", (4, 4)).save(file, "PNG")
    (record,) = folders.Folder(tmp_path)
    assert shards.unpack(shards.pack(record)).source == record.source
    assert folders.Folder(tmp_path).fingerprint()
    assert isinstance(record, Record)
