"""Eight devices: every system's losses, gradients and decoded tokens on every mesh.

Run by test_meshes.py in a process of its own with the names of systems and meshes,
as gptface:2x2x2; prints one JSON.
"""

import dataclasses
import functools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tiny
import tiny_vqgan
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from gptface_jax.core import trees
from gptface_jax.systems import faceptor, gptface, judge, vqgan
from gptface_jax.systems.gptface import decode
from gptface_jax.systems.gptface.options import DecodeConfig
from gptface_jax.train import sharding, state, step
from gptface_jax.train.planning import collectives

MESHES = {
    "1x1x1": {"data": 1},
    "8x1x1": {"preset": "data"},
    "1x8x1": {"preset": "fsdp"},
    "2x2x2": {"preset": "mixed"},
    "two_slices": {"preset": "two_slices"},
    # 19 positions over two devices.
    "lengths": {"preset": "mixed", "rules": {"length": "tensor"}},
}
KEY = jax.random.key(0)
BATCH = 16


def gptface_system():
    model = tiny.config(transformer={"unroll": 1}, contrastive_width=8, word_bag=True)
    objective = {"contrastive_weight": 1.0, "word_bag_weight": 0.5, "paired": True}
    config = {
        "model": dataclasses.asdict(model),
        "objective": objective,
        "batch_size": BATCH,
        "total_steps": 10,
    }
    return gptface.make_system(config), {"pairs": tiny.batch(BATCH)}


def images(size):
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (BATCH, size, size, 3)).astype(np.float32)


def vqgan_system():
    discriminator = {"channels": 8, "num_layers": 1}
    adversary = {"weight": 0.5, "start": 0.0, "discriminator": discriminator}
    config = {
        "model": dataclasses.asdict(tiny_vqgan.CONFIG),
        "objective": {"adversary": adversary},
        "batch_size": BATCH,
        "total_steps": 10,
    }
    return vqgan.make_system(config), {"pictures": {"image": images(16)}}


def judge_system():
    model = {"resolution": 8, "attributes": ["a", "b"], "channels": [8, 8], "groups": 4}
    labels = np.random.default_rng(1).integers(0, 2, (BATCH, 2)).astype(np.float32)
    system = judge.make_system({"model": model, "batch_size": BATCH})
    data = {"image": images(8), "labels": labels, "label_mask": np.ones_like(labels)}
    return system, {"pictures": data}


def faceptor_system():
    layers = {"num_layers": 2, "width": 16, "num_heads": 2, "mlp_width": 24}
    model = {
        "vit": {"transformer": layers, "patch": 8, "grid": 2, "output_width": 0},
        "decoder": {
            "width": 16, "layers": 1, "heads": 2, "mlp_width": 24,
            "levels": [1], "new_levels": [0],
        },
        "tasks": ["affect_drawn", {"name": "recog_drawn", "identities": 8}],
        "source_level": 1,
        "embedding_width": 8,
        "attribute_resolution": 16,
    }  # fmt: skip
    sizes = {"affect_drawn": BATCH, "recog_drawn": 2 * BATCH}
    config = {"model": model, "objective": {"stage": 2}, "batch_size": sizes}
    rng = np.random.default_rng(2)
    batches = {
        task: {
            "image": rng.uniform(-1, 1, (size, 16, 16, 3)).astype(np.float32),
            "label": rng.integers(0, 7, size).astype(np.int32),
            "weight": np.ones(size, np.float32),
        }
        for task, size in sizes.items()
    }
    return faceptor.make_system(config), batches


@functools.cache
def initial(make):
    system, _ = make()
    return jax.device_get(jax.jit(lambda k: sharding.unbox(system.init(k)))(KEY))


def phase_gradients(system):
    """A function (params, state, batch) -> {phase: (loss, gradients)}."""

    def gradients(params, values, batches):
        results = {}
        for phase in system.phases:
            loss, grads, values, _ = step.phase_gradients(
                phase, params, values, {}, batches, KEY, jnp.int32(5)
            )
            results[state.phase_key(phase)] = (loss, trees.unflatten(grads))
        return results

    return gradients


def on_mesh(make, mesh, rules):
    """({phase: (loss, gradients)}, collectives) of one batch."""
    system, batches = make()
    boxed = jax.eval_shape(system.init, KEY)
    shardings = sharding.param_shardings(boxed, mesh, rules)
    params = jax.device_put(initial(make), shardings)
    values = system.init_state()
    gradients = phase_gradients(system)
    flat = trees.flatten(shardings)
    everywhere = sharding.replicated(mesh)
    shapes = jax.eval_shape(gradients, params, values, batches)
    out = {
        name: (everywhere, trees.unflatten({k: flat[k] for k in trees.flatten(grads)}))
        for name, (_, grads) in shapes.items()
    }
    batches = {k: sharding.put_batch(v, mesh, rules) for k, v in batches.items()}
    compiled = (
        jax.jit(gradients, out_shardings=out).lower(params, values, batches).compile()
    )
    results = compiled(params, values, batches)
    found = collectives.of_program(compiled.as_text(), mesh)
    return jax.device_get(results), found, unexpected(found, boxed)


def unexpected(found, boxed):
    """Gathers of a parameter, or of one layer of it, that are not fully sharded
    data parallelism at work: those over "data" or "tensor".
    """
    shapes = set()
    for leaf in jax.tree.leaves(sharding.unbox(boxed)):
        for shape in (leaf.shape, leaf.shape[1:]):
            if len(shape) > 1:
                shapes.add("[" + ",".join(map(str, shape)) + "]")
    return [
        f"{op.axes} {op.shape} {op.source}"
        for op in found
        if op.kind == "all-gather"
        and set(op.axes) - {"fsdp"}
        and op.shape[op.shape.index("[") :] in shapes
    ]


def on_explicit_mesh(make):
    """{phase: (loss, gradients)} in a program whose arrays carry their shardings.

    `jax.make_mesh` makes such a mesh unless told otherwise; a Linen module runs on it
    within `auto_axes`, and what comes out has a sharding in its type again.
    """
    system, batches = make()
    mesh, rules = jax.make_mesh((2, 2, 2), sharding.AXES), sharding.RULES
    assert set(mesh.axis_types) == {AxisType.Explicit}
    boxed = jax.eval_shape(system.init, KEY)
    shardings = sharding.param_shardings(boxed, mesh, rules)
    with sharding.in_force(mesh, rules):
        params = jax.device_put(initial(make), shardings)
        values = system.init_state()
        batches = jax.device_put(batches, sharding.batch_sharding(mesh, rules))
        gradients = phase_gradients(system)
        flat = trees.flatten(jax.tree.map(lambda s: s.spec, shardings))
        out = {
            name: (P(), trees.unflatten({k: flat[k] for k in trees.flatten(grads)}))
            for name, (_, grads) in jax.eval_shape(
                jax.sharding.auto_axes(gradients, out_sharding=P()),
                params, values, batches,
            ).items()
        }  # fmt: skip
        results = jax.jit(jax.sharding.auto_axes(gradients, out_sharding=out))(
            params, values, batches
        )
    for _, grads in results.values():
        for path, leaf in trees.flatten(grads).items():
            assert jax.typeof(leaf).sharding.spec == flat[path], path
    return jax.device_get(results)


def decoded(mesh, rules):
    """Tokens of a guided decoding with sharded parameters and batch."""
    module, params = tiny.model()
    boxed = jax.eval_shape(
        functools.partial(module.init, method="init_all"), KEY, tiny.tokens(1)
    )["params"]
    shardings = sharding.param_shardings(boxed, mesh, rules)
    options = DecodeConfig(k=2, guidance="ascent_norm", kl_max=0.0, fusion=1.0)
    batch = sharding.put_batch(
        {
            "tokens": np.asarray(tiny.tokens(BATCH)),
            "known": tiny.known_mask(BATCH, range(2, 8)),
        },
        mesh,
        rules,
    )
    run = jax.jit(
        lambda p, b: decode.decode(module, p, b["tokens"], b["known"], options, KEY)
    )
    return np.asarray(run(jax.device_put(params, shardings), batch).tokens)


def optimizer_follows(make, mesh, rules):
    """Whether every moment lies where its parameter lies."""
    system, _ = make()
    txs = {state.phase_key(p): optax.adam(1e-3) for p in system.phases}
    shapes, _ = state.create(system, txs, mesh, rules=rules, abstract=True)
    flat = trees.flatten(shapes.params)
    checked = 0
    for name, opt_state in shapes.opt_state.items():
        for path, leaf in trees.flatten(opt_state[0].mu).items():
            assert leaf.sharding == flat[path].sharding, (name, path)
            checked += 1
    return checked == len(flat)


def largest_difference(ours, reference):
    """Of two trees of gradients, relative to the array's largest entry and a third of
    the largest of all: some are zero but for rounding (a bias before a norm).
    """
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(reference)))
    largest = max(float(np.abs(b).max()) for _, b in pairs)
    return max(
        float(np.abs(a - b).max() / (np.abs(b).max() + largest / 3)) for a, b in pairs
    )


def compared(results, reference):
    """Losses and how far gradients are from those of the reference."""
    return {
        "losses": [float(loss) for loss, _ in results.values()],
        "expected": [float(loss) for loss, _ in reference.values()],
        "gradients": max(
            largest_difference(results[p][1], reference[p][1]) for p in results
        ),
    }


def main(cases):
    assert jax.device_count() == 8
    report, references = {}, {}
    systems = {
        "gptface": gptface_system, "vqgan": vqgan_system, "judge": judge_system,
        "faceptor": faceptor_system,
    }  # fmt: skip
    for case in cases:
        which, name = case.split(":")
        if name == "explicit":
            results = on_explicit_mesh(systems[which])
            report[case] = compared(results, references[which])
            continue
        devices = jax.devices()[:1] if name == "1x1x1" else None
        config = sharding.MeshConfig(**MESHES[name])
        mesh, rules = sharding.open_mesh(config, devices)
        with sharding.in_force(mesh, rules):
            if which == "tokens":
                tokens = decoded(mesh, rules)
                reference = references.setdefault("tokens", tokens)
                report[case] = int((tokens != reference).sum())
                continue
            results, found, bad = on_mesh(systems[which], mesh, rules)
            reference = references.setdefault(which, results)
            report[case] = compared(results, reference) | {
                "unexpected": bad,
                "axes": sorted({"+".join(op.axes) for op in found}),
                "optimizer": optimizer_follows(systems[which], mesh, rules),
            }
    print("RESULT", json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])
