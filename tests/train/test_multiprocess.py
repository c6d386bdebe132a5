"""Two processes on one machine: one run, the same numbers, stopping together."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import regression_system as tiny

from gptface_jax.train.checkpoint import restore_params
from gptface_jax.train.loop import train

HERE = os.path.dirname(__file__)

WORKER = """
import os, signal, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
index, port, workdir, kill_at = sys.argv[1:]
index, kill_at = int(index), int(kill_at)
jax.distributed.initialize(f"127.0.0.1:{port}", 2, index)
import regression_system as tiny
from gptface_jax.train.loop import train
def batches_fn(start):
    for k, batch in enumerate(tiny.batches_fn(start), start):
        if k == kill_at and index == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        yield {name: x[index * 8 : index * 8 + 8] for name, x in batch.items()}
final = train(tiny.config(mesh={"fsdp": 2}), tiny.make_system(), batches_fn, workdir,
              eval_batches=[{k: v[index * 8 : index * 8 + 8]
                             for k, v in tiny.make_batch(77).items()}],
              progress=False)
print("RESULT", int(final.step), final.stopped)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run_pair(workdir, kill_at):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": HERE}
    environment.pop("XLA_FLAGS", None)
    port = free_port()
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                WORKER,
                str(i),
                str(port),
                str(workdir),
                str(kill_at),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=HERE,
            env=environment,
        )
        for i in range(2)
    ]
    try:
        outputs = [w.communicate(timeout=240) for w in workers]
    finally:
        for worker in workers:
            worker.kill()
    for worker, (_, errors) in zip(workers, outputs):
        assert worker.returncode == 0, errors[-3000:]
    return [
        next(x for x in out.splitlines() if x.startswith("RESULT")).split()[1:]
        for out, _ in outputs
    ]


def test_two_processes_train_like_one_and_stop_together(tmp_path):
    results = run_pair(tmp_path / "pair", kill_at=4)
    assert results[0] == results[1] and results[0][1] == "True"
    assert restore_params(tmp_path / "pair")[1]["step"] == int(results[0][0])
    assert run_pair(tmp_path / "pair", kill_at=-1) == [["8", "False"]] * 2
    train(
        tiny.config(),
        tiny.make_system(),
        tiny.batches_fn,
        tmp_path / "one",
        eval_batches=[tiny.make_batch(77)],
        progress=False,
    )

    def losses(name):
        text = (tmp_path / name / "metrics.jsonl").read_text()
        records = [json.loads(line) for line in text.splitlines()]
        final = [r["eval/loss"] for r in records if "eval/loss" in r][-1:]
        return [r["loss"] for r in records if "loss" in r] + final

    assert len(losses("one")) == 9
    np.testing.assert_allclose(losses("pair"), losses("one"), rtol=1e-5)
