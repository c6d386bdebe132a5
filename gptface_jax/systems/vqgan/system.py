"""Training the VQGAN tokenizer (SPEC A.2.1).

Without an adversary there is one phase. With one there are two, as in
taming-transformers: the generator's (picture losses, codebook loss, adversarial
term) and "discriminator", which sees the reconstructions of the updated generator.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Evaluation, Feed, Phase, System
from gptface_jax.nn import vqgan as nn_vqgan
from gptface_jax.ops import holes, pictures, quantize
from gptface_jax.ops.face_map import face_map
from gptface_jax.systems.vqgan.adversarial import Adversary
from gptface_jax.systems.vqgan.objective import (
    Painter,
    Perceptual,
    VQGANObjective,
    picture_losses,
)

# Where the discriminator's parameters are in those of the system.
DISCRIMINATOR = "discriminator"


def without_discriminator(params):
    """Parameters of the VQGAN; one tree, so that one checkpoint, holds both."""
    return {k: v for k, v in params.items() if k != DISCRIMINATOR}


class _Trainer:
    """The functions that `make_system` puts together."""

    def __init__(
        self, model, objective, batch_size, total_steps, perceptual, painter=None
    ):
        self.model, self.objective, self.painter = model, objective, painter
        self.perceptual, self.total_steps = perceptual, total_steps
        self.module = nn_vqgan.VQGAN(model)
        self.shape = (model.resolution, model.resolution, model.in_channels)
        self.tokens_in_batch = batch_size * model.grid[0] * model.grid[1]
        self.num_candidates = min(objective.num_candidates, self.tokens_in_batch)
        self.adversary = None
        if objective.adversary.weight:
            self.adversary = Adversary(objective.adversary, total_steps, self.shape)

    def init(self, key):
        params = self.module.init(key, jnp.zeros((1, *self.shape)))["params"]
        if self.adversary:
            key = trees.stream(key, DISCRIMINATOR)
            params = {**params, DISCRIMINATOR: self.adversary.init(key)}
        return params

    def init_state(self):
        model = self.model
        usage = self.tokens_in_batch / model.codebook_size
        state = {
            "usage": jnp.full((model.codebook_size,), usage),
            "candidates": jnp.zeros((self.num_candidates, model.embed_dim)),
        }
        if self.adversary:
            state["adversary"] = self.adversary.init_state()
        return state

    def given(self, params, constants, batch, key):
        """(arguments of the module, hole bool [B,H,W] that it fills or None)."""
        image, model = batch["image"], self.model
        if not model.condition_channels:
            return {"image": image}, None
        options, (h, w), f = self.objective.holes, model.grid, model.factor
        hole = holes.random_holes(
            trees.stream(key, "holes"),
            model.grid,
            f,
            batch["landmarks"],
            options.everything,
        )
        # Of a picture that is hidden whole, nothing tells what its light should be.
        is_open = hole.reshape(-1, h, f, w, f).any((2, 4))
        is_open &= ~hole.all((1, 2))[:, None, None]
        other = holes.shifted(
            image,
            trees.stream(key, "light"),
            brightness=options.brightness,
            contrast=options.contrast,
            colour=options.colour,
            sharpness=options.sharpness,
        )
        tokens = jnp.repeat(jnp.repeat(is_open, f, 1), f, 2)[..., None]
        found = {
            "image": jnp.where(tokens, other, image),
            "known": pictures.known_pixels(image, hole),
        }
        if self.painter:
            chosen, draw = jax.random.split(trees.stream(key, "painter"))
            drawn = jax.random.uniform(chosen, (len(image), 1, 1)) < options.drawn
            own = self.module.apply(
                {"params": without_discriminator(params)},
                found["image"],
                method="encode",
            )
            found["image_ids"] = self.painter.draw(
                constants["painter"], own, is_open & drawn, draw
            )
        return found, hole

    def reconstruct(self, params, given, key=None, sow: bool = False):
        """(reconstruction, aux, what the last convolution read or None)."""
        deterministic = key is None or self.model.dropout == 0.0
        result = self.module.apply(
            {"params": without_discriminator(params)},
            **given,
            deterministic=deterministic,
            code_gradient=self.objective.code_gradient,
            rngs=None if deterministic else {"dropout": trees.stream(key, "dropout")},
            mutable=["intermediates"] if sow else False,
        )
        if not sow:
            return *result, None
        (reconstruction, aux), kept = result
        return reconstruction, aux, kept["intermediates"]["decoder"]["last"][0]

    def compare(self, constants, batch, hole=None):
        """Function from the reconstruction to (loss, parts), for `picture_losses`."""
        image, counts = batch["image"], None
        if options := self.objective.face_map:
            counts = face_map(
                batch["landmarks"], image.shape[1:3], **dataclasses.asdict(options)
            )

        if hole is not None:
            inside = jnp.where(hole, self.objective.holes.inside, 1.0)
            counts = inside if counts is None else inside * counts
            counts /= jnp.mean(counts, axis=(1, 2), keepdims=True)

        def losses(reconstruction):
            return picture_losses(
                self.objective,
                self.perceptual,
                constants.get("perceptual"),
                reconstruction,
                image,
                counts,
                pasting(image, hole),
            )

        return losses

    def at_last_weights(self, params, last):
        """Function from the reconstruction's slope to the last kernel's gradient."""
        output = params["decoder"]["conv_out"]
        model, last = self.model, jax.lax.stop_gradient(last)
        # The last convolution alone, of what it read: the adaptive weight needs the
        # gradient of its kernel, and of nothing before it.
        conv = nn_vqgan.last_conv(model)

        def run(kernel):
            variables = {"params": {**output, "kernel": kernel}}
            patches = conv.apply(variables, last).astype(jnp.float32)
            return pictures.from_patches(patches, model.patch)

        _, pull_back = jax.vjp(run, jax.lax.stop_gradient(output["kernel"]))
        return lambda slope: pull_back(slope)[0]

    def code_losses(self, params, aux):
        """(weighted sum, parts) of what concerns the codes only."""
        objective = self.objective
        parts = {
            "codebook": quantize.codebook_loss(
                aux["z_e"], aux["z_q"], objective.beta, objective.beta_on_codebook
            )
        }
        if objective.entropy:
            parts["entropy"] = quantize.entropy_loss(
                aux["z_e"], params["codebook"], objective.entropy_temperature
            )
        return sum(getattr(objective, k) * v for k, v in parts.items()), parts

    def generator_loss(self, params, state, constants, batches, key, step):
        batch, adversary = batches["pictures"], self.adversary
        image, (given, hole) = batch["image"], self.given(params, constants, batch, key)
        reconstruction, aux, last = self.reconstruct(
            params, given, key, sow=adversary is not None
        )
        compare = self.compare(constants, batch, hole)
        if adversary is None:
            loss, parts = compare(reconstruction)
        else:
            loss, parts = adversary.teach(
                jax.lax.stop_gradient(params[DISCRIMINATOR]),
                state["adversary"]["batch_stats"],
                step,
                reconstruction,
                compare,
                self.at_last_weights(params, last),
                pasting(image, hole),
            )
            watched, ratio = adversary.watch_l1(state["adversary"], parts["l1"], step)
            state, parts = {**state, "adversary": watched}, {**parts, **ratio}
        more, code_parts = self.code_losses(params, aux)
        parts |= code_parts | quality(reconstruction, image, hole)
        metrics = _means(parts, image.shape[0])
        state, use = self.watch_codes(state, aux, key)
        return loss + more, (state, metrics | use)

    def watch_codes(self, state, aux, key):
        """(state with new usage and candidates, metrics of the codebook's use)."""
        size, decay = self.model.codebook_size, self.objective.usage_decay
        latents = aux["z_e"].reshape(-1, self.model.embed_dim)
        pick = jax.random.randint(
            trees.stream(key, "candidates"), (self.num_candidates,), 0, len(latents)
        )
        now = quantize.counts(aux["image_ids"], size)
        usage = decay * state["usage"] + (1 - decay) * now
        # Kept for `post_update`, which sees no batch.
        candidates = jax.lax.stop_gradient(latents[pick])
        alive = jnp.mean(usage >= 0.1 * jnp.mean(usage))
        metrics = {
            "code_perplexity": (quantize.perplexity(now), jnp.float32(1.0)),
            "codes_in_use": (alive, jnp.float32(1.0)),
        }
        return {**state, "usage": usage, "candidates": candidates}, metrics

    def discriminator_loss(self, params, state, constants, batches, key, step):
        batch = batches["pictures"]
        image, (given, hole) = batch["image"], self.given(params, constants, batch, key)

        def reconstruct():
            # By the updated generator, as taming does: its phase came first.
            made = self.reconstruct(params, given)[0]
            return jax.lax.stop_gradient(pasting(image, hole)(made))

        loss, (watched, means) = self.adversary.learn(
            params[DISCRIMINATOR], state["adversary"], step, image, reconstruct
        )
        metrics = _means(means, image.shape[0])
        return loss, ({**state, "adversary": watched}, metrics)

    def post_update(self, params, state, key, step):
        """Moves codes that are out of use onto latents of the last batch."""
        objective = self.objective
        first = round(objective.revive_from * self.total_steps)
        due = (step % objective.revive_every == 0) & (step >= first)
        due &= step <= objective.revive_until * self.total_steps
        # Relative to the mean, for usage is of a batch and its size may change.
        mean = jnp.mean(state["usage"])
        codebook, dead = quantize.revive(
            params["codebook"],
            state["usage"],
            state["candidates"],
            objective.revive_threshold * mean,
            key,
        )
        codebook = jnp.where(due, codebook, params["codebook"])
        # As if it were used like the others, else it would be moved again the next
        # time, before anything could choose it.
        usage = jnp.where(due & dead, mean, state["usage"])
        return {**params, "codebook": codebook}, {**state, "usage": usage}

    def metrics(self, params, state, constants, batch, key):
        del state
        image, (given, hole) = batch["image"], self.given(params, constants, batch, key)
        reconstruction, aux, _ = self.reconstruct(params, given)
        loss, parts = self.compare(constants, batch, hole)(reconstruction)
        more, code_parts = self.code_losses(params, aux)
        parts |= code_parts | quality(reconstruction, image, hole)
        parts["loss"] = loss + more
        return _means(parts, image.shape[0])


def pasting(image: jax.Array, hole: jax.Array | None):
    """Function from a reconstruction to the picture with it in the hole."""
    if hole is None:
        return lambda reconstruction: reconstruction
    return lambda reconstruction: jnp.where(hole[..., None], reconstruction, image)


def quality(reconstruction, image, hole) -> dict[str, jax.Array]:
    """ "psnr" of the pictures, and "inside_psnr" of all that was hidden, in dB."""
    found = {"psnr": jnp.mean(pictures.psnr(reconstruction, image))}
    if hole is not None:
        squares = jnp.square(jnp.clip(reconstruction, -1.0, 1.0) - image).mean(-1)
        error = jnp.sum(squares * hole) / jnp.maximum(jnp.sum(hole), 1) / 4.0
        found["inside_psnr"] = -10.0 * jnp.log10(jnp.maximum(error, 1e-10))
    return found


def _means(values: Mapping[str, jax.Array], size: int):
    """Metrics (sum, count) of means over `size` examples."""
    size = jnp.float32(size)
    return {name: (value * size, size) for name, value in values.items()}


def make_system(
    config: Mapping[str, Any],
    perceptual: Perceptual | None = None,
    painter: Painter | None = None,
):
    """The trainable system of an experiment config.

    Args:
      config: mapping with `model` (VQGANConfig), `objective` (VQGANObjective),
        `batch_size` and `total_steps`.
      perceptual: the network behind `objective.perceptual`, opened.
      painter: the transformer behind `objective.holes`, opened.

    Raises:
      ValueError: a perceptual weight without a network, codes by Gumbel logits, or a
        conditional decoder that is not trained alone.
    """
    model = from_mapping(nn_vqgan.VQGANConfig, config["model"], "model.")
    objective = from_mapping(VQGANObjective, config["objective"], "objective.")
    if model.quantizer != "nearest":
        raise ValueError(
            f"model.quantizer is {model.quantizer!r}, which can only be imported; "
            "train with 'nearest'"
        )
    if bool(objective.perceptual.weight) != (perceptual is not None):
        raise ValueError(
            f"objective.perceptual.weight is {objective.perceptual.weight}, and "
            f"{'a' if perceptual else 'no'} perceptual network is given"
        )
    if model.condition_channels and objective.trainable != "decoder":
        raise ValueError(
            f"model.condition_channels is {model.condition_channels} and "
            f"objective.trainable {objective.trainable!r}; train codes first, then the "
            "decoder that sees photographs alone ('decoder'), by init_from"
        )
    sizes = config["batch_size"], config["total_steps"]
    trainer = _Trainer(model, objective, *sizes, perceptual, painter)
    # The generator's metrics keep plain names, with and without an adversary.
    trainable = rf"^(?!{DISCRIMINATOR}/)"
    if objective.trainable == "decoder":
        trainable = rf"^({'|'.join(nn_vqgan.DECODER)})/"
    spec = {"image": jax.ShapeDtypeStruct(trainer.shape, jnp.float32)}
    if objective.face_map or model.condition_channels:
        spec["landmarks"] = jax.ShapeDtypeStruct((68, 2), jnp.float32)
    frozen = {"perceptual": perceptual, "painter": painter}
    phases = (Phase("", trainable, trainer.generator_loss),)
    if trainer.adversary:
        loss = trainer.discriminator_loss
        phases += (Phase(DISCRIMINATOR, rf"^{DISCRIMINATOR}/", loss, "learns"),)
    over_all = ["the shares of codes in the entropy"] * bool(objective.entropy)
    if trainer.adversary:
        over_all += ["the discriminator's batch statistics and its weight"]
    return System(
        name="vqgan",
        init=trainer.init,
        feeds={"pictures": Feed(spec, config["batch_size"])},
        phases=phases,
        evaluations={"eval": Evaluation(trainer.metrics, spec)},
        constants={name: it.params for name, it in frozen.items() if it},
        init_state=trainer.init_state,
        post_update=trainer.post_update if objective.revive_every else None,
        alarm=trainer.adversary.alarm if trainer.adversary else None,
        unit="images",
        whole_batch=f"{' and '.join(over_all)} are" if over_all else "",
    )
