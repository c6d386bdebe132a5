"""The discriminator's two roles: what it is trained for, and what it teaches.

Both vanish inside `lax.cond` while they do not count, and cost nothing then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.nn.adversary import Discriminator
from gptface_jax.ops import adversarial
from gptface_jax.systems.vqgan.objective import AdversaryConfig

_CHANCE = {"hinge": 1.0, "vanilla": math.log(2.0)}
_DECAY = 0.99  # of the averages that the alarms watch


class Adversary:
    """The discriminator of one run, purely: parameters and statistics in and out.

    Args:
      config: options.
      total_steps: of the run.
      shape: (H, W, C) of a picture.
    """

    def __init__(self, config: AdversaryConfig, total_steps: int, shape):
        self.config, self.shape = config, shape
        self.module = Discriminator(config.discriminator)
        self.start = config.start * total_steps
        self.ramp = config.ramp * total_steps
        self.first = self.start - config.warmup * total_steps

    def init(self, key: jax.Array) -> Any:
        """Parameters, boxed with logical axes."""
        return self.module.init(key, jnp.zeros((1, *self.shape)))["params"]

    def init_state(self) -> dict[str, Any]:
        """Statistics of the batch norms, and the averages behind the alarms."""
        made = jax.eval_shape(
            self.module.init, jax.random.key(0), jnp.zeros((1, *self.shape))
        )
        statistics = jax.tree_util.tree_map_with_path(
            lambda path, x: jnp.full(x.shape, float(path[-1].key == "var")),
            made.get("batch_stats", {}),
        )
        zero = jnp.float32(0.0)
        return {
            "batch_stats": statistics,
            # At chance, in units of the loss at chance: no alarm before anything is
            # learnt.
            "loss": jnp.float32(1.0),
            "l1": zero,
            "l1_before": zero,
        }

    def logits(self, params, batch_stats, image) -> tuple[jax.Array, Any]:
        """(logits by the statistics of the batch, new stored statistics)."""
        variables = {"params": params, "batch_stats": batch_stats}
        logits, changed = self.module.apply(variables, image, mutable=["batch_stats"])
        return logits, changed.get("batch_stats", {})

    def teach(
        self,
        params: Any,
        batch_stats: Any,
        step: jax.Array,
        reconstruction: jax.Array,
        compare: Callable[[jax.Array], tuple[jax.Array, Mapping[str, jax.Array]]],
        at_last_weights: Callable[[jax.Array], jax.Array],
        paste: Callable[[jax.Array], jax.Array],
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Reconstruction loss plus the adversarial term, balanced.

        The slope of each part is taken once, at the reconstruction; the adaptive
        weight and the gradient of the sum both come from these two slopes, so that
        neither network is walked back through twice.

        Args:
          params, batch_stats: of the discriminator; no gradient reaches them.
          reconstruction: [B,H,W,C]; the gradient passes to it.
          compare: reconstruction -> (loss, parts), without the adversary.
          at_last_weights: slope [B,H,W,C] at the reconstruction -> gradient of the
            decoder's last weights.
          paste: reconstruction -> the picture that the discriminator sees.

        Returns:
          (loss, parts and "adversarial", "adaptive_weight", "fake_logits").
        """
        here = jax.lax.stop_gradient(reconstruction)
        (nll, parts), nll_slope = jax.value_and_grad(compare, has_aux=True)(here)
        factor = adversarial.ramp(step, self.start, self.ramp)

        def deceive(image):
            fake, _ = self.logits(params, batch_stats, paste(image))
            return adversarial.generator_loss(fake)

        def with_adversary():
            loss, slope = jax.value_and_grad(deceive)(here)
            weight = jnp.float32(self.config.weight)
            if self.config.adaptive:
                grads = at_last_weights(nll_slope), at_last_weights(slope)
                weight = adversarial.adaptive_weight(*grads, self.config.weight)
            balance = factor * weight
            return nll + balance * loss, nll_slope + balance * slope, loss, weight

        def without():
            zero = jnp.float32(0.0)
            return nll, nll_slope, zero, zero

        value, slope, loss, weight = jax.lax.cond(factor > 0, with_adversary, without)
        # The value of the sum, with its slope: the last term is zero.
        value += jnp.sum(jax.lax.stop_gradient(slope) * (reconstruction - here))
        extra = {"adversarial": loss, "adaptive_weight": weight, "fake_logits": -loss}
        return value, {**parts, **extra}

    def watch_l1(self, state: Mapping[str, Any], l1: jax.Array, step: jax.Array):
        """Averages L1; keeps what it was when the adversary came in.

        Returns:
          (state, {"l1_ratio": average now over average before, 1 until then}).
        """
        rate = jnp.minimum(_DECAY, (1.0 + step) / (10.0 + step))
        now = rate * state["l1"] + (1 - rate) * jax.lax.stop_gradient(l1)
        before = jnp.where(step <= self.start, now, state["l1_before"])
        ratio = now / jnp.maximum(before, 1e-9)
        return {**state, "l1": now, "l1_before": before}, {"l1_ratio": ratio}

    def learn(
        self,
        params: Any,
        state: Mapping[str, Any],
        step: jax.Array,
        image: jax.Array,
        reconstruct: Callable[[], jax.Array],
    ) -> tuple[jax.Array, tuple[dict[str, Any], dict[str, jax.Array]]]:
        """The discriminator's loss; zero before its warm-up.

        Args:
          params, state: of the discriminator.
          image: photographs [B,H,W,C].
          reconstruct: () -> their reconstructions, without gradient.

        Returns:
          (loss, (state, metrics)).
        """
        config = self.config

        def active():
            real, statistics = self.logits(params, state["batch_stats"], image)
            # One after the other and not as one batch: batch norms would mix the two
            # kinds, and their statistics tell them apart.
            fake, statistics = self.logits(params, statistics, reconstruct())
            loss = adversarial.discriminator_loss(real, fake, config.loss)
            average = loss / _CHANCE[config.loss]
            average = _DECAY * state["loss"] + (1 - _DECAY) * average
            penalty = jnp.float32(0.0)
            if config.r1:
                penalty = adversarial.gradient_penalty(
                    lambda x: self.logits(params, statistics, x)[0], image
                )
            accuracy = (jnp.mean(real > 0) + jnp.mean(fake < 0)) / 2
            # By the average before this step: the loss of a single batch jumps about.
            learns = jnp.float32(state["loss"] >= config.hold_below)
            means = (jnp.mean(real), jnp.mean(fake), accuracy, penalty, learns)
            # While it is held its loss is 0, and the phase pauses.
            return learns * (loss + config.r1 * penalty), statistics, average, means

        def idle():
            zero = jnp.float32(0.0)
            return zero, state["batch_stats"], state["loss"], (zero,) * 5

        loss, statistics, average, means = jax.lax.cond(
            step >= self.first, active, idle
        )
        names = ("real_logits", "fake_logits", "accuracy", "r1", "learns")
        metrics = {"loss_share": average, **dict(zip(names, means))}
        average = jax.lax.stop_gradient(average)
        return loss, ({**state, "batch_stats": statistics, "loss": average}, metrics)

    def alarm(self, means: Mapping[str, float]) -> str | None:
        """Message on what is wrong with a run whose logged means these are, or None."""
        config = self.config
        share, ratio = means["discriminator/loss_share"], means["l1_ratio"]
        if share < config.won_below:
            return (
                f"the discriminator has won: its average loss is {share:.3g} of the "
                f"loss at chance (objective.adversary.won_below {config.won_below}), "
                "so it teaches nothing any more; lower "
                "optim.phases.discriminator.peak_lr, set "
                "objective.adversary.hold_below or r1, start later "
                "(objective.adversary.start) or make "
                "objective.adversary.discriminator.channels smaller"
            )
        if config.ruined_above and ratio > config.ruined_above:
            return (
                f"the adversary ruins the pictures: their average L1 is {ratio:.3g} "
                "times what it was before (objective.adversary.ruined_above "
                f"{config.ruined_above}); lower objective.adversary.weight, lengthen "
                "objective.adversary.ramp or start later (objective.adversary.start)"
            )
        return None
