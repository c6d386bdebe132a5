"""Token caches: the same content whoever makes them, however often broken off."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import types

import numpy as np
import pytest
import simulated_devices
import tiny_vqgan
from PIL import Image

from gptface_jax.core.config import to_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.data import image, image_io, shards, sources
from gptface_jax.experiments import gptface_run, opening, token_data
from gptface_jax.experiments import tokenize as tokenization
from gptface_jax.interop import directory
from gptface_jax.pipelines import image_tokenizer

COMMAND = """
import os, signal, sys
from gptface_jax.cli.main import main
from gptface_jax.data import shards
kill_at, *arguments = sys.argv[1:]
pack, packed = shards.pack, []
def kills(record):
    packed.append(record)
    if len(packed) == int(kill_at):
        os.kill(os.getpid(), signal.SIGKILL)
    return pack(record)
shards.pack = kills
sys.exit(main(["tokenize", "--quiet", *arguments]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two tokenizers and a folder of 21 photos of odd sizes."""
    folder = tmp_path_factory.mktemp("tokenize")
    config = {"vqgan": to_mapping(tiny_vqgan.CONFIG)}
    for seed, name in enumerate(("tokenizer", "other")):
        weights = {"vqgan": tiny_vqgan.params(seed)}
        directory.write(folder / name, config, weights, {}, "float32")
    (folder / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(21):
        small = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
        photo = Image.fromarray(small).resize((20 + i, 24), Image.Resampling.BICUBIC)
        photo.save(folder / "photos" / f"{i:02d}.png")
    return folder


def make(place, out, name="tokenizer", **options):
    """A cache in shards of 4 records, by this process."""
    spec = {"kind": "folder", "path": place / "photos"}
    options = {"shard_size": 4, "batch_size": 2, "progress": False, **options}
    return tokenization.tokenize(spec, place / name, out, **options)


def start(place, out, *arguments, kill_at=0, devices=1) -> subprocess.Popen:
    """The same by the command, in a process of its own."""
    environment = {
        **os.environ,
        "XLA_FLAGS": simulated_devices.flags(devices),
        "JAX_PLATFORMS": "cpu",
    }
    given = ("--images", place / "photos", "--tokenizer", place / "tokenizer")
    options = ("--shard-size", 4, "--batch-size", 2, "--out", out, *arguments)
    words = [str(x) for x in (kill_at, *given, *options)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", COMMAND, *words]
    return subprocess.Popen(command, env=environment, **pipes)


def end(worker: subprocess.Popen, status: int = 0) -> str:
    """Waits for a command; returns what it said on stderr."""
    try:
        _, said = worker.communicate(timeout=240)
    finally:
        worker.kill()
    assert worker.returncode == status, said[-3000:]
    return said


def content(folder) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in sorted(pathlib.Path(folder).iterdir())}


@pytest.fixture(scope="module")
def whole(place):
    """Made at one go by one process on one device."""
    make(place, place / "whole")
    return content(place / "whole")


def test_a_cache_holds_what_the_tokenizer_makes_of_the_photos(place, whole):
    assert list(whole) == [
        "codebook.npy",
        "manifest.json",
        *(f"part-{i:05d}.arrayrecord" for i in range(6)),
    ]
    manifest = json.loads(whole["manifest.json"])
    assert manifest["num_records"] == 21 and manifest["grid"] == [4, 4]
    assert manifest["dtype"] == "float32" and not manifest["mirrored"]
    assert manifest["photos"]["kind"] == "folder"
    cache = shards.Tokens(place / "whole", manifest["tokenizer_digest"])
    assert cache.codebook.shape == (64, 4)
    assert [r.source for r in cache] == [f"photos/{i:02d}.png" for i in range(21)]
    network = opening.open_network(place / "tokenizer", "vqgan")
    files = sorted((place / "photos").iterdir())
    pictures = np.stack([image.fit(image_io.decode(f), 16) for f in files])
    ids = image_tokenizer.ImageTokenizer(network).encode(pictures)
    np.testing.assert_array_equal(np.stack([r.image_ids for r in cache]), ids)
    assert len(np.unique(ids)) > 10 and cache[0].image_ids.dtype == np.uint16


@pytest.mark.slow
def test_devices_processes_and_kills_change_nothing(place, whole, capsys):
    port = simulated_devices.free_port()
    hosts = ("--coordinator", f"127.0.0.1:{port}", "--num-processes", 2)
    eight = start(place, place / "eight", devices=8)
    pair = [
        start(place, place / "pair", *hosts, "--process-id", i, devices=2)
        for i in range(2)
    ]
    killed = start(place, place / "killed", kill_at=11)
    end(eight)
    for worker in pair:
        end(worker)
    end(killed, -signal.SIGKILL)
    left = content(place / "killed")
    assert any(name.startswith(".part-00002.array") for name in left)
    assert "running.lock" in left and "manifest.json" not in left
    first = place / "killed" / "part-00000.arrayrecord"
    before = first.stat()
    make(place, place / "killed")
    assert "going on: 2 of 6 shards are there" in capsys.readouterr().err
    assert first.stat() == before
    # The manifest names the photos as they were given: all of them by one path.
    for name in ("eight", "pair", "killed"):
        assert content(place / name) == whole, name


def test_one_of_two_processes_alone_leaves_the_others_shards(place, whole, tmp_path):
    """A host that fails: the next run makes what is missing, on any number of hosts."""
    make(place, tmp_path / "set")
    for name in ("part-00001.arrayrecord", "part-00004.arrayrecord"):
        (tmp_path / "set" / name).unlink()
    (tmp_path / "set" / "manifest.json").rename(tmp_path / "set" / shards.UNFINISHED)
    (tmp_path / "set" / shards.CODEBOOK).unlink()
    make(place, tmp_path / "set")
    assert content(tmp_path / "set") == whole


def test_mirror_images_follow_their_photos(place, whole, tmp_path):
    manifest = make(place, tmp_path / "both", mirror=True, batch_size=3, threads=1)
    assert manifest["num_records"] == 42 and manifest["mirrored"]
    both, plain = shards.Records(tmp_path / "both"), shards.Records(place / "whole")
    for i in range(21):
        np.testing.assert_array_equal(both[2 * i].image_ids, plain[i].image_ids)
        assert both[2 * i].source == both[2 * i + 1].source == plain[i].source
    assert any(
        (both[2 * i].image_ids != both[2 * i + 1].image_ids).any() for i in (0, 1)
    )
    with pytest.raises(UserError, match="shard_size is 3; make it even"):
        make(place, tmp_path / "odd", mirror=True, shard_size=3)
    # What is left in one is right in the other.
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(place / "photos" / "03.png", photos)
    (photos / "03.txt").write_text("a man looking left")
    spec = {"kind": "folder", "path": photos}
    out, given = tmp_path / "one", {"batch_size": 2, "progress": False}
    tokenization.tokenize(spec, place / "tokenizer", out, mirror=True, **given)
    said = [record.text for record in shards.Records(out)]
    assert said == ["a man looking left", "a man looking right"]


@pytest.mark.slow
def test_a_set_of_another_kind_is_not_gone_on_with(place, tmp_path, monkeypatch):
    out = tmp_path / "set"
    with monkeypatch.context() as patch:
        patch.setattr(shards.Writer, "finish", lambda self: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(place, out)
    before = content(out)
    for said, options in (
        ("tokenizer_digest", {"name": "other"}),
        ("mirrored False, not True", {"mirror": True}),
        ("dtype float32, not bfloat16", {"dtype": "bfloat16"}),
        ("shard_size 4, not 6", {"shard_size": 6}),
    ):
        with pytest.raises(UserError, match=f"unfinished set with {said}"):
            make(place, out, **options)
    assert content(out) == before
    make(place, out, batch_size=5, threads=3)  # decide nothing
    with pytest.raises(UserError, match="already holds a finished set"):
        make(place, out)


def test_a_photo_that_cannot_be_read_is_named_and_can_be_mended(place, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in sorted((place / "photos").iterdir())[:9]:
        (photos / file.name).write_bytes(file.read_bytes())
    good = (photos / "05.png").read_bytes()
    (photos / "05.png").write_bytes(good[:40])
    spec = {"kind": "folder", "path": photos}
    options = {"shard_size": 2, "batch_size": 2, "progress": False}

    def run():
        return tokenization.tokenize(
            spec, place / "tokenizer", tmp_path / "set", **options
        )

    with pytest.raises(UserError, match=r"record 5: .*photos/05\.png"):
        run()
    kept = content(tmp_path / "set")
    assert "manifest.json" not in kept
    (photos / "05.png").write_bytes(good)
    assert run()["num_records"] == 9
    again = content(tmp_path / "set")
    assert all(again[name] == kept[name] for name in kept if name in again)


def test_upright_pictures_of_others_are_not_used_again(tmp_path):
    class Upright:
        def __call__(self, records):
            return iter(records)

        def described(self):
            return {"upright": 8}

    photos, out = tmp_path / "photos", tmp_path / "set"
    photos.mkdir()
    Image.new("RGB", (8, 8)).save(photos / "0.png")
    spec = {"kind": "folder", "path": str(photos)}
    source = sources.open_source(spec)
    manifest = {"source": spec, "upright": 8, **shards.prints_of(source)}
    writer = shards.Writer(tmp_path / "set-upright", manifest, 1)
    writer.write(0, source)
    writer.finish()
    assert tokenization._prepared(spec, out, Upright(), False)["kind"] == "arrayrecord"
    Image.new("RGB", (8, 8)).save(photos / "1.png")
    with pytest.raises(UserError, match="set-upright' holds other pictures"):
        tokenization._prepared(spec, out, Upright(), False)


def test_a_run_without_a_vqgan_says_so():
    run = types.SimpleNamespace(meta={"extra_files": {}})
    vqgan = types.SimpleNamespace(codes_digest="1f")
    with pytest.raises(UserError, match="no VQGAN's ids, as :tiny is without"):
        gptface_run.check_pair(vqgan, run, "runs/try")
    run.meta["extra_files"]["manifest.json"] = '{"tokenizer_digest": "2e"}'
    with pytest.raises(UserError, match="ids of tokenizer 2e, not 1f"):
        gptface_run.check_pair(vqgan, run, "runs/try")


def test_a_cache_of_other_codes_says_what_to_set():
    manifest = {"tokenizer_digest": "a", "grid": [8, 8], "codebook_size": 1024}
    cache = types.SimpleNamespace(manifest=manifest)
    token_data._check_cache("data.eval", cache, (8, 8), 1024, cache)
    with pytest.raises(UserError, match="; set --config.model.vocab.codebook_size="):
        token_data._check_cache("data.eval", cache, (8, 8), 27, cache)
    with pytest.raises(UserError, match=r'layout.grid="\(8, 8\)" --config.model.voc'):
        token_data._check_cache("data.eval", cache, (4, 4), 27, cache)
