"""One process of a toy run: INDEX COUNT PORT FOLDER MESH...; prints its losses.

Eight simulated devices are shared by COUNT processes. MESH is as 2x2x2.
"""

import json
import sys

import jax

INDEX, COUNT, PORT, FOLDER, *MESHES = sys.argv[1:]
INDEX, COUNT = int(INDEX), int(COUNT)
jax.config.update("jax_num_cpu_devices", 8 // COUNT)

import test_toy  # noqa: E402

from gptface_jax.experiments import registry, training  # noqa: E402
from gptface_jax.train import hosts, sharding  # noqa: E402


def main():
    if COUNT > 1:
        hosts.join(hosts.from_flags(f"127.0.0.1:{PORT}", COUNT, INDEX), timeout=120)
    registry.SYSTEMS["toy"] = "toy_experiment"
    everywhere, found = sharding.open_mesh, {}
    for name in MESHES:
        sizes = [int(n) for n in name.split("x")]
        if name == "1x1x1":
            sharding.open_mesh = lambda given: everywhere(given, jax.devices()[:1])
        mesh = dict(zip(sharding.AXES, sizes))
        changes = {"total_steps": 6, "grad_accum": 2, "log_every": 1}
        changes["batch_size"] = {"named": 16, "plain": 48}
        config = test_toy.config(mesh=mesh, **changes)
        folder = f"{FOLDER}/{name}"
        training.train(config, folder, progress=False)
        sharding.open_mesh = everywhere
        if INDEX == 0:
            lines = [json.loads(line) for line in open(f"{folder}/metrics.jsonl")]
            found[name] = [x.get("loss", x.get("eval/loss")) for x in lines]
    if INDEX == 0:
        print("RESULT", json.dumps(found))


if __name__ == "__main__":
    main()
