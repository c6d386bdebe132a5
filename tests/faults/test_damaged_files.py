"""Damaged checkpoints and shards: noticed, named, and gone around where possible."""

import json
import logging
import shutil

import numpy as np
import pytest
import regression_system as tiny

from gptface_jax.core.errors import UserError
from gptface_jax.data import shards
from gptface_jax.data.record import Record
from gptface_jax.train import checkpoint, integrity
from gptface_jax.train.loop import train


def run(workdir, **changes):
    config = tiny.config(**changes)
    return train(config, tiny.make_system(), tiny.batches_fn, workdir, progress=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of eight steps with the checkpoints of steps 4 and 8."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    run(workdir)
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def largest(folder, item="params"):
    found = (p for p in (folder / item).rglob("*") if p.is_file())
    return max(found, key=lambda p: p.stat().st_size)


def truncate(folder):
    path = largest(folder)
    path.write_bytes(path.read_bytes()[:-7])


def flip_a_bit(folder, item="params"):
    path = largest(folder, item)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def lose_a_file(folder):
    largest(folder).unlink()


def spoil_the_sums(folder):
    (folder / integrity.FILE).write_text("{")


FAULTS = {
    truncate: r"has \d+ of \d+ bytes",
    flip_a_bit: "has another checksum",
    lose_a_file: "is missing",
    spoil_the_sums: "cannot be read",
}


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    return [(r["step"], r["loss"]) for r in records]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.__name__)
def test_a_damaged_newest_checkpoint_falls_back(finished, workdir, caplog, fault):
    newest = workdir / "checkpoints" / "8"
    assert integrity.problem(newest) is None
    fault(newest)
    with pytest.raises(
        UserError, match=f"damaged: .*{FAULTS[fault]}.*steps \\[4, 8\\]"
    ):
        checkpoint.restore_params(workdir)
    with caplog.at_level(logging.WARNING):
        final = run(workdir)
    assert "step 8 is damaged" in caplog.text and "from step 4" in caplog.text
    assert (workdir / "damaged" / "8").is_dir()  # nothing is deleted
    assert int(final.step) == 8
    assert lines(workdir) == lines(finished)  # bit for bit
    ours, theirs = (checkpoint.restore_params(x)[0] for x in (workdir, finished))
    np.testing.assert_array_equal(
        ours["net"]["up"]["kernel"], theirs["net"]["up"]["kernel"]
    )
    assert integrity.problem(newest) is None


def test_inference_checks_only_what_it_reads(workdir):
    newest = workdir / "checkpoints" / "8"
    flip_a_bit(newest, "opt_state")
    assert "opt_state" in integrity.problem(newest)
    checkpoint.restore_params(workdir)
    flip_a_bit(newest)
    with pytest.raises(UserError, match="damaged: params/.* another checksum"):
        checkpoint.restore_params(workdir)


def test_lost_averages_are_not_replaced(tmp_path):
    run(tmp_path, total_steps=4, ema_decay=0.9)
    shutil.rmtree(tmp_path / "checkpoints" / "4" / "ema")
    with pytest.raises(UserError, match="damaged: ema/.* is missing"):
        checkpoint.restore_params(tmp_path)
    checkpoint.restore_params(tmp_path, ema=False)


def test_all_damaged_is_not_started_anew(workdir):
    for step in ("4", "8"):
        truncate(workdir / "checkpoints" / step)
    with pytest.raises(UserError, match="all checkpoints in .* are damaged"):
        run(workdir)
    assert (workdir / "checkpoints" / "8").is_dir()


def test_what_a_killed_save_left_is_cleared_away(workdir, finished):
    shutil.rmtree(workdir / "checkpoints" / "8")
    left = workdir / "checkpoints" / "8.orbax-checkpoint-tmp"
    shutil.copytree(finished / "checkpoints" / "8", left)
    run(workdir)
    assert not left.exists() and lines(workdir) == lines(finished)


def test_a_checkpoint_without_sums_is_taken(workdir, finished):
    (workdir / "checkpoints" / "8" / integrity.FILE).unlink()
    assert int(run(workdir).step) == 8


def write_shards(folder):
    ids = np.random.default_rng(0).integers(0, 9, (60, 64)).astype(np.uint16)
    records = [Record(text=f"number {i}", image_ids=x) for i, x in enumerate(ids)]
    writer = shards.Writer(folder, {}, 60, shard_size=20)
    for index in range(3):
        writer.write(index, [records[i] for i in writer.records(index)])
    writer.finish()
    assert [r.text for r in shards.Records(folder)] == [r.text for r in records]
    return folder / "part-00001.arrayrecord"


@pytest.mark.parametrize("manifest", [True, False])
def test_a_truncated_shard_is_named(tmp_path, manifest):
    path = write_shards(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if not manifest:
        (tmp_path / shards.MANIFEST).unlink()
    with pytest.raises(UserError, match="part-00001.arrayrecord' is damaged"):
        len(shards.Records(tmp_path))


def test_a_shard_with_flipped_bits_is_named(tmp_path):
    path = write_shards(tmp_path)
    data = path.read_bytes()
    size = len(data)
    # Of every thousand bytes one; the file ends in its index.
    spoilt = bytearray(data)
    for place in range(1000, size // 2, 1000):
        spoilt[place] ^= 255
    path.write_bytes(spoilt)
    assert size > 3000
    with pytest.raises(UserError, match="part-00001.arrayrecord' is damaged"):
        list(shards.Records(tmp_path))
