"""The tokenizer in JAX and in PyTorch: the same weights, ready to be called."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core import trees
from gptface_jax.interop.taming import their_name
from gptface_jax.nn import efficientnet, perceptual
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig
from gptface_jax.systems import vqgan as system_vqgan
from gptface_jax.train import program, sharding

try:
    import torch
except ModuleNotFoundError:
    torch = None  # `main` says so
else:
    import torch_peer
    import torch_training

# name -> (weight of the adversarial term, the network whose features are compared)
LOSSES = {
    "l1": (0.0, ""),
    "adversarial": (0.8, ""),
    "full": (0.8, "lpips"),
    "features": (0.0, "efficientnet_lite0"),
}
TOTAL_STEPS = 1000
OPTIM = {
    "peak_lr": 1e-4,
    "schedule": "constant",
    "warmup_fraction": 0.0,
    "b1": 0.5,
    "b2": 0.9,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "clip_norm": 0.0,
}
# In float32. Of the losses relative: single slopes of the discriminator lie at a
# kink and fall either way.
LIMITS = {"latents": 1e-3, "pictures": 1e-3, "losses": 2e-2}

Calls = dict[str, Callable[[], Any]]  # what is timed -> returns when it is done


def jitted(config: VQGANConfig) -> dict[str, Callable]:
    """The network's methods, each (variables, input) -> output."""
    return {
        name: jax.jit(functools.partial(VQGAN(config).apply, method=name))
        for name in ("latents", "encode", "decode")
    }


class Ours:
    """The JAX side: the trained state, and the functions jitted."""

    def __init__(self, config: VQGANConfig, batch: int, losses: str):
        self.config, self.jitted = config, jitted(config)
        self.perceptual = _perceptual(LOSSES[losses][1], config.dtype)
        experiment = _experiment(config, batch, losses)
        system = system_vqgan.make_system(experiment, self.perceptual)
        # From here on as `gptface_jax.train.loop` does it.
        mesh, rules = sharding.open_mesh(sharding.MeshConfig())
        planned = program.Program(experiment, system, mesh, rules)
        created, shardings = planned.create()
        # The adversary sets in after step 0.
        self.state = created.replace(
            params=_roughened(created.params), step=created.step + 1
        )
        self.train_step, self.packer = planned.step(shardings)
        self.constants = planned.constants()

    def parts(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Parameters of (the generator, the discriminator)."""
        params = dict(self.state.params)
        judge = params.pop(system_vqgan.DISCRIMINATOR, None)
        return params, judge

    def train(self, image: jax.Array) -> dict[str, float]:
        """One training step -> the means of its metrics."""
        self.state, packed = self.train_step(*self._given(image))
        return {k: a / b for k, (a, b) in self.packer.unpack(packed).items()}

    def _given(self, image: jax.Array) -> tuple[Any, ...]:
        return self.state, self.constants, {"pictures": {"image": image}}

    def calls(self, image: jax.Array) -> Calls:
        variables = {"params": jax.tree.map(jnp.copy, self.parts()[0])}
        image_ids = self.jitted["encode"](variables, image)
        ready = jax.block_until_ready
        return {
            "encode": lambda: ready(self.jitted["encode"](variables, image)),
            "decode": lambda: ready(self.jitted["decode"](variables, image_ids)),
            "train": lambda: self.train(image),
        }

    def programs(self, image: jax.Array) -> dict[str, str]:
        """What each call runs, as compiled HLO."""
        variables = {"params": self.parts()[0]}
        image_ids = self.jitted["encode"](variables, image)
        lowered = {
            "encode": self.jitted["encode"].lower(variables, image),
            "decode": self.jitted["decode"].lower(variables, image_ids),
            "train": self.train_step.lower(*self._given(image)),
        }
        return {what: x.compile().as_text() for what, x in lowered.items()}


def _experiment(config: VQGANConfig, batch: int, losses: str) -> dict[str, Any]:
    adversarial, network = LOSSES[losses]
    objective = {
        "gradient": 0.0,
        "perceptual": {"weight": float(bool(network)), "network": network},
        "adversary": {
            "weight": adversarial,
            "start": 0.0,
            "ramp": 0.0,
            "warmup": 0.0,
            "discriminator": {"dtype": config.dtype},
        },
    }
    return {
        "model": dataclasses.asdict(config),
        "objective": objective,
        "optim": OPTIM,
        "batch_size": batch,
        "total_steps": TOTAL_STEPS,
    }


def _perceptual(network: str, dtype: str) -> system_vqgan.Perceptual | None:
    """A distance by random weights: as fast as with the real ones."""
    dummy = jnp.zeros((1, 32, 32, 3))
    if network == "lpips":
        module, pictures = perceptual.LPIPS(dtype), (dummy, dummy)

        def distance(params, image, target):
            return module.apply({"params": params}, image, target)

    elif network:
        module, pictures = efficientnet.EfficientNetLite0(dtype), (dummy,)

        def distance(params, *images):
            run = functools.partial(module.apply, {"params": params}, method="features")
            return perceptual.feature_distance(*map(run, images))

    else:
        return None
    params = jax.jit(module.init)(jax.random.key(0), *pictures)["params"]
    return system_vqgan.Perceptual("perceptual", params, distance)


def _roughened(params):
    """Moves biases and scales away from 0 and 1: a swapped one would show."""
    flat = trees.flatten(params)
    rng = np.random.default_rng(0)
    for name in sorted(flat):
        if flat[name].ndim == 1:
            flat[name] += rng.normal(0, 0.1, flat[name].shape).astype(np.float32)
    return trees.unflatten(flat)


def listed_name(path: str) -> str:
    """Our parameter path -> the peer's name in the networks that taming has not.

    >>> listed_name("conv_3/kernel"), listed_name("lin_0")
    ('conv.3.weight', 'lin.0')
    """
    return their_name(re.sub(r"_(\d+)", r".\1", path))


def _efficientnet() -> torch_peer.EfficientNetLite0:
    names = ("STAGES", "STEM", "HEAD", "DEPTHS")
    return torch_peer.EfficientNetLite0(*(getattr(efficientnet, n) for n in names))


class Theirs:
    """The PyTorch side, with our weights."""

    def __init__(self, ours: Ours, device: str, compiled: bool):
        config = ours.config

        def filled(module, params, name):
            arrays = {name(k): v for k, v in trees.flatten(params).items()}
            return torch_peer.load(module, arrays, device)

        params, judge = ours.parts()
        self.model = filled(torch_peer.VQGAN(config), params, their_name)
        if judge is not None:
            judge = filled(torch_peer.Discriminator(), judge, listed_name)
        compare = ours.perceptual
        if compare is not None:
            lpips = "lin_0" in compare.params
            peer = torch_peer.LPIPS() if lpips else _efficientnet()
            compare = filled(peer, compare.params, listed_name)
        self.training = torch_training.VQGANTraining(
            self.model, judge, compare, rate=OPTIM["peak_lr"], compiled=compiled
        )
        wrap = torch.compile if compiled else lambda function: function
        self.encode, self.decode = wrap(self.model.encode), wrap(self.model.decode)
        self.device, self.dtype = device, config.dtype

    def run(self, function, x, grad: bool = False):
        with (
            contextlib.nullcontext() if grad else torch.inference_mode(),
            torch_peer.precision(self.device, self.dtype),
        ):
            result = function(x)
        if self.device == "cuda":
            torch.cuda.synchronize()
        return result

    def train(self, image: torch.Tensor) -> dict[str, float]:
        parts = self.run(self.training.step, image, grad=True)
        return {name: value.item() for name, value in parts.items()}

    def calls(self, image: torch.Tensor) -> Calls:
        image_ids = self.run(self.encode, image)
        return {
            "encode": lambda: self.run(self.encode, image),
            "decode": lambda: self.run(self.decode, image_ids),
            "train": lambda: self.train(image),
        }


def differences(ours: Ours, theirs: Theirs, image: np.ndarray) -> dict[str, float]:
    """Largest differences in float32 of what the two sides give: z_e and pictures.

    If they train in float32 too, also the largest relative one among the losses of a
    training step; both sides have moved then.
    """
    full = jitted(dataclasses.replace(ours.config, dtype="float32"))
    variables = {"params": ours.parts()[0]}
    ids = full["encode"](variables, image)
    ids_there = torch.from_numpy(np.array(ids)).long().to(theirs.device)
    there = torch_peer.picture(image, theirs.device)
    with torch.inference_mode():
        z_there = theirs.model.latents(there)
        pictures_there = theirs.model.decode(ids_there).permute(0, 2, 3, 1)
    pairs = {
        "latents": (full["latents"](variables, image), z_there),
        "pictures": (full["decode"](variables, ids), pictures_there),
    }
    apart = {
        name: float(np.abs(np.asarray(a) - b.cpu().numpy()).max())
        for name, (a, b) in pairs.items()
    }
    if ours.config.dtype != "float32":
        return apart
    metrics, losses = ours.train(jnp.asarray(image)), theirs.train(there)
    both = [(metrics.get(f"generator/{k}", metrics.get(k)), losses[k]) for k in losses]
    return apart | {"losses": max(abs(a - b) / max(abs(b), 0.01) for a, b in both)}


def check(apart: dict[str, float]) -> None:
    """Raises SystemExit where the two sides are not the same network."""
    for name, value in apart.items():
        if not value <= LIMITS[name]:
            raise SystemExit(
                f"the two networks differ by {value:.3g} in their {name} (at most "
                f"{LIMITS[name]:g} in float32): nothing was timed"
            )


@contextlib.contextmanager
def full_float32(device: str):
    """No TensorFloat-32 within; it is allowed to both afterwards."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    # Another precision is another compilation: not where there is only one.
    name = "highest" if device == "cuda" else None
    with jax.default_matmul_precision(name) if name else contextlib.nullcontext():
        yield
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
