"""What an editor shows of the Python API: true types, checked by pyright."""

import inspect
import json
import pathlib
import subprocess
import sys
import typing

import pytest

import gptface_jax
from gptface_jax.apps import api, verbs

SCRIPT = """import gptface_jax

model = gptface_jax.load("demo")
edit = model.edit("photo.jpg", "a woman wearing a hat", region="hat", seed=0, k=4)
reveal_type(edit)
reveal_type(model.inpaint(edit, region="hat"))
reveal_type(model.restore("photo.jpg"))
reveal_type(model.stitch("photo.jpg", "other.jpg"))
reveal_type(model.tag("photo.jpg"))
model.edit("photo.jpg", "a hat", region=4)
"""


def test_pyright_finds_what_the_verbs_return(tmp_path):
    pytest.importorskip("pyright")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = (
        sys.executable, "-m", "pyright", "--outputjson",
        "--pythonpath", sys.executable, script,
    )  # fmt: skip
    package = pathlib.Path(gptface_jax.__file__).parents[1]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=package, timeout=120
        )
    except subprocess.TimeoutExpired:
        pytest.skip("pyright, which fetches itself the first time, has no network")
    if "generalDiagnostics" not in done.stdout:
        pytest.skip(f"pyright cannot run: {done.stderr[-200:]}")
    found = json.loads(done.stdout)["generalDiagnostics"]
    said = {d["range"]["start"]["line"] + 1: d["message"] for d in found}
    types = {line: said[line].split(" is ")[-1].strip('"') for line in range(5, 10)}
    assert types == {**dict.fromkeys(range(5, 9), "Edit"), 9: "list[Tag]"}
    assert 'Literal[4]" cannot be assigned' in said[10] and len(said) == 6


def test_signatures_are_those_of_the_code():
    for verb in verbs.DRAWN:
        method = getattr(api.Model, verb)
        assert not hasattr(method, "__signature__")
        assert typing.get_type_hints(method)["return"] is api.Edit
        assert "**decode" in str(inspect.signature(method))
    loaded = inspect.signature(gptface_jax.load).parameters
    assert list(loaded.items()) == list(inspect.signature(api.load).parameters.items())
