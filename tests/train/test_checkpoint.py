"""Checkpoints: self-describing, exact, and safe on a full disk."""

import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import regression_system as tiny

from gptface_jax.core.errors import UserError
from gptface_jax.train import checkpoint, checkpoint_meta
from gptface_jax.train.loop import train
from gptface_jax.train.state import TrainState

HERE = os.path.dirname(__file__)


def test_parameters_and_meta_come_back_without_a_template(tmp_path):
    files = {"vocab.txt": "[PAD]\né\n".encode(), "digest.bin": b"\xff\x00"}
    final = train(
        tiny.config(total_steps=2, ema_decay=0.5),
        tiny.make_system(),
        tiny.batches_fn,
        tmp_path,
        extra_files=files,
        progress=False,
    )
    params, meta = checkpoint.restore_params(tmp_path, ema=False)
    jax.tree.map(np.testing.assert_array_equal, params, final.params)
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(params))
    # Statistics that the system does not have, such as a Faceptor without recognition.
    bare, _ = checkpoint.restore_params(tmp_path, ema=False, collections=("stats",))
    assert bare.keys() == params.keys()
    averaged, _ = checkpoint.restore_params(tmp_path, 2)
    jax.tree.map(np.testing.assert_array_equal, averaged, final.ema)
    assert meta["extra_files"] == files
    assert (meta["step"], meta["data_position"], meta["system"]) == (2, 2, "tiny")
    assert meta["config"]["optim"]["peak_lr"] == 1e-2
    # "best" without an evaluation is the latest
    assert checkpoint.restore_params(tmp_path, "best")[1]["step"] == 2
    with pytest.raises(UserError, match=r"no checkpoint of step 7 .* have \[2\]"):
        checkpoint.restore_params(tmp_path, 7)


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="no checkpoint in"):
        checkpoint.restore_params(tmp_path)
    assert not list(tmp_path.iterdir())


def make_state(scale, step=1, width=4):
    params = {"w": jnp.full((width, 2), scale), "h": jnp.full(3, scale, jnp.bfloat16)}
    return TrainState(jnp.int32(step), params, {"main": (jnp.float32(scale),)}, {})


def meta(step):
    return checkpoint_meta.make(step, "tiny", {}, {}, step)


def test_dtypes_and_bits_survive(tmp_path):
    kept = checkpoint.Checkpoints(tmp_path, track=False)
    saved = make_state(0.1)
    kept.save(saved, meta(1))
    kept.wait()
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), saved
    )
    read = kept.restore(1, template)
    assert jax.tree.structure(read) == jax.tree.structure(saved)
    for a, b in zip(jax.tree.leaves(saved), jax.tree.leaves(read)):
        assert a.dtype == b.dtype and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    wider = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        make_state(0.1, width=5),
    )
    with pytest.raises(UserError, match=r"float32\[4, 2\] there and float32\[5, 2\]"):
        kept.restore(1, wider)
    kept.close()


def test_the_state_may_be_donated_while_it_is_written(tmp_path):
    kept = checkpoint.Checkpoints(tmp_path, track=False)
    state = TrainState(
        jnp.int32(1), {"w": jnp.zeros((512, 2048))}, {"m": (jnp.ones(1),)}, {}
    )
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    kept.save(state, meta(1))
    for _ in range(20):
        state = advance(state)
    kept.wait()
    kept.close()
    assert not checkpoint.restore_params(tmp_path)[0]["w"].any()


def run_python(code, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=HERE,
        timeout=120,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": HERE, **environment},
    )


FULL_DISK = """
    import resource, sys
    import jax.numpy as jnp
    from gptface_jax.core.errors import UserError
    from gptface_jax.train import checkpoint, checkpoint_meta
    from gptface_jax.train.state import TrainState
    import numpy as np
    def state(n):
        noise = np.random.default_rng(n).normal(size=(1000, 700)).astype(np.float32)
        params, moments = {"w": jnp.asarray(noise)}, {"m": (jnp.ones(1),)}
        return TrainState(jnp.int32(n), params, moments, {})
    kept = checkpoint.Checkpoints(sys.argv[1], keep=1, track=False)
    kept.save(state(1), checkpoint_meta.make(1, "tiny", {}, {}, 1))
    kept.wait()
    # Writes beyond 200 kB now fail, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        kept.save(state(2), checkpoint_meta.make(2, "tiny", {}, {}, 2))
        kept.wait()
    except UserError as error:
        print("REFUSED", error)
    kept.close()
"""


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path):
    result = run_python(FULL_DISK, tmp_path)
    assert result.returncode == 0, result.stderr
    (line,) = [x for x in result.stdout.splitlines() if x.startswith("REFUSED")]
    assert "cannot save a checkpoint" in line and "intact: steps [1]" in line
    assert "File too large" in line
    assert "Traceback" not in result.stderr
    params, saved = checkpoint.restore_params(tmp_path)
    assert saved["step"] == 1
    expected = np.random.default_rng(1).normal(size=(1000, 700)).astype(np.float32)
    np.testing.assert_array_equal(params["w"], expected)
    assert os.listdir(tmp_path / "checkpoints") == ["1"]
    # The next run finds the good checkpoint and can save again.
    kept = checkpoint.Checkpoints(tmp_path, track=False)
    assert kept.latest_step() == 1
    kept.save(make_state(1.0, 2), meta(2))
    kept.wait()
    assert kept.steps() == [1, 2]
    kept.close()


@pytest.mark.parametrize(
    "saved, here, same",
    [
        (b'{"digest": "d"}', b'{"digest": "d", "frame": [1]}', True),
        (b'{"digest": "d", "frame": [1]}', b'{"digest": "d"}', False),
        (b'{"digest": "d"}', b'{"digest": "e"}', False),
        (b"[1]", b"[1, 2]", False),
        (b"a\nb", b"a\nb\nc", False),
        (None, b"{}", False),
    ],
)
def test_entries_that_older_versions_did_not_note_are_no_difference(saved, here, same):
    assert checkpoint_meta._same(saved, here) is same
