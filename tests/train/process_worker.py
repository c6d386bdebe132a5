"""One process of a run: INDEX COUNT PORT WORKDIR OPTIONS-as-JSON.

Eight simulated devices (or as many as the option `devices` says) are shared by COUNT
processes. Options: kill_at (batch at which a process kills itself, with `signal`),
killer (which process), pause (seconds before each batch), config (changes to the
experiment's).
"""

import json
import os
import signal
import sys
import time

import jax

INDEX, COUNT, PORT, WORKDIR, OPTIONS = sys.argv[1:]
INDEX, COUNT, OPTIONS = int(INDEX), int(COUNT), json.loads(OPTIONS)
DEVICES = OPTIONS.get("devices", 8)
jax.config.update("jax_num_cpu_devices", DEVICES // COUNT)

import numpy as np  # noqa: E402
import regression_system as tiny  # noqa: E402

from gptface_jax.data import pipeline  # noqa: E402
from gptface_jax.train import hosts, sharding  # noqa: E402
from gptface_jax.train.loop import train  # noqa: E402

BATCH = tiny.config()["batch_size"]


class Examples:
    """100 examples; notes which this process reads."""

    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 100

    def __getitem__(self, index):
        with open(self.path, "a") as file:
            file.write(f"{int(index)}\n")
        return int(index)


def example(index, rng):
    del rng
    return {name: x[0] for name, x in tiny.make_batch(1000 + index, size=1).items()}


def share() -> tuple[int, int]:
    mesh = OPTIONS.get("config", {}).get("mesh", {})
    return sharding.share_of_batch(*sharding.open_mesh(sharding.MeshConfig(**mesh)))


def batches(start):
    index, count = share()
    feed = pipeline.Pipeline(
        Examples(f"{WORKDIR}.read.{COUNT}.{INDEX}"),
        example,
        BATCH // count,
        7,
        shard=index,
        num_shards=count,
    )
    open(f"{WORKDIR}.began.{INDEX}", "w").close()
    for number, batch in enumerate(feed.batches(start), start):
        time.sleep(OPTIONS.get("pause", 0.0))
        if number == OPTIONS.get("kill_at") and INDEX == OPTIONS.get("killer", INDEX):
            os.kill(os.getpid(), getattr(signal, OPTIONS.get("signal", "SIGKILL")))
        yield {"pairs": batch}


def held_out():
    rows = pipeline.held_out_rows(40, BATCH, *share())
    return [
        {k: x[list(part)] for k, x in tiny.make_batch(77, size=40).items()}
        for part in rows
    ]


def main():
    if COUNT > 1:
        hosts.join(hosts.from_flags(f"127.0.0.1:{PORT}", COUNT, INDEX), timeout=120)
    assert jax.device_count() == DEVICES and jax.process_count() == COUNT
    final = train(
        tiny.config(**OPTIONS.get("config", {})),
        tiny.make_system(weighted=True, held_out=held_out()),
        batches,
        WORKDIR,
        progress=False,
    )
    total = float(sum(np.abs(np.asarray(x.addressable_shards[0].data)).sum()
                      for x in jax.tree.leaves(final.params)))  # fmt: skip
    assert np.isfinite(total)
    print("RESULT", int(final.step), final.stopped)


if __name__ == "__main__":
    main()
