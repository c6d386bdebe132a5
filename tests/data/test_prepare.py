import numpy as np
import pytest

from gptface_jax.cli.main import main
from gptface_jax.core import locks
from gptface_jax.core.errors import UserError
from gptface_jax.data import prepare, shards, sources, transforms
from gptface_jax.data.prepare import local

SPEC = {"kind": "synthetic", "count": 5, "size": 32, "seed": 3}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The command, in two processes and three shards."""
    out = tmp_path_factory.mktemp("prepared") / "set"
    command = "prepare --quiet --images synthetic --limit 5 --seed 3 --data size=32"
    command += f" --workers 2 --shard-size 2 --out {out}"
    assert main(command.split()) == 0
    return out


def test_what_is_read_again_is_what_was_drawn(prepared):
    again = sources.open_source({"kind": "arrayrecord", "path": prepared})
    drawn = sources.open_source(SPEC)
    assert len(again) == len(drawn) == 5
    for i in range(5):
        np.testing.assert_array_equal(
            transforms.decode_picture(again[i]), drawn[i].image
        )
        assert again[i].labels == pytest.approx(drawn[i].labels)
        assert again[i].text == drawn[i].text
        np.testing.assert_array_equal(again[i].landmarks, drawn[i].landmarks)


def test_it_goes_on_with_the_shards_that_are_missing(prepared, tmp_path):
    done = prepared / "part-00001.arrayrecord"
    (tmp_path / done.name).write_bytes(done.read_bytes())
    plan = (prepared / "manifest.json").read_bytes()
    (tmp_path / "manifest.json.partial").write_bytes(plan)
    before = (tmp_path / done.name).stat().st_mtime_ns
    manifest = prepare.prepare(SPEC, tmp_path, workers=1, shard_size=2, progress=False)
    assert manifest["num_records"] == 5
    assert (tmp_path / done.name).stat().st_mtime_ns == before


def test_a_worker_opens_the_source_once(tmp_path, monkeypatch):
    opened = []
    real = sources.open_source
    monkeypatch.setattr(
        sources, "open_source", lambda spec: opened.append(spec) or real(spec)
    )
    monkeypatch.setattr(local, "_work", None)
    writer = shards.Writer(tmp_path / "set", {}, 5, shard_size=2)
    local._begin(SPEC, writer, None)
    assert [local._write(i) for i in writer.missing] == [2, 2, 1]
    assert opened == [SPEC]


def test_two_in_one_folder(tmp_path):
    with locks.held(tmp_path / "out" / locks.NAME, "prepares", "wait"):
        before = sorted(p.name for p in (tmp_path / "out").iterdir())
        with pytest.raises(UserError, match="in use: process .* choose another --out"):
            prepare.prepare(SPEC, tmp_path / "out", workers=1, progress=False)
        assert sorted(p.name for p in (tmp_path / "out").iterdir()) == before


def test_refusals(prepared, tmp_path):
    with pytest.raises(UserError, match="0 workers cannot prepare"):
        prepare.prepare(SPEC, tmp_path / "x", workers=0)
    assert not (tmp_path / "x").exists()
    with pytest.raises(UserError, match="already holds a finished set"):
        prepare.prepare(SPEC, prepared, shard_size=2)
    with pytest.raises(UserError, match="holds pictures, not image ids.*tokenize"):
        sources.open_source({"kind": "tokens", "path": prepared})
