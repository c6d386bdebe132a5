"""What the decoder samples from: the guided model's scores (paper equations 6-7).

The shifted parameters exist only inside these functions, so nothing has to be restored.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp

from gptface_jax.core.errors import UserError
from gptface_jax.nn import backbone, low_rank
from gptface_jax.ops import guidance as ops_guidance
from gptface_jax.systems.gptface import guidance
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface.options import DecodeConfig, Steering


def itm_log_prob(module, params, tokens: jax.Array) -> jax.Array:
    """log p(q=1 | tokens), match bit unknown; [B,L] -> float32 [B]."""
    variables = {"params": params}
    hidden = module.apply(variables, tokens)
    logits = module.apply(variables, hidden, method="itm_logits")
    return jax.nn.log_softmax(logits, axis=-1)[:, 1]


def start(params, config: Steering) -> low_rank.Shift:
    """No shift yet of what may be changed."""
    pattern = ".*" if config.guidance == "literal" else config.update_set
    return low_rank.begin(params, pattern, config.low_rank)


def shift(
    module,
    params,
    tokens: jax.Array,
    config: Steering,
    scale=1.0,
    hidden_states=None,
    before: low_rank.Shift | None = None,
):
    """Parameters moved to make this one sequence match.

    Args:
      module: the model.
      params: nested dict.
      tokens: int32 [L].
      config: rule, step size, number of steps, update set and form, settled.
      scale: factor on the change.
      hidden_states: [L,D], see `Backbone.__call__`.
      before: where they were moved to before.

    Returns:
      (low_rank.Shift, log p(q=1) before it, last hidden states before it [L,D]).

    Raises:
      UserError: the update set is empty.
    """
    shifted = before or start(params, config)
    first = None
    for _ in range(config.num_steps):
        value, hidden, gradient = guidance.value_and_gradient(
            module, params, shifted, tokens, hidden_states
        )
        first = first or (value, hidden)
        shifted = low_rank.step(
            config.guidance, config.step_size, params, shifted, gradient, scale
        )
    return shifted, *first


def side_logits(
    module,
    variables,
    tokens: jax.Array,
    config: DecodeConfig,
    hidden_states=None,
    hidden=None,
) -> dict[str, jax.Array]:
    """Logits over each decoded modality's own ids: side -> float32 [P,V].

    Args:
      module, variables: the model and `Shift.variables`.
      tokens: int32 [L].
      config: side, match token and equation 6.
      hidden_states: [L,D], see `Backbone.__call__`.
      hidden: [L,D], the last states where they are known.
    """
    if hidden is None:
        seen, row = _seen(module, tokens, config)
        entering = None if hidden_states is None else hidden_states[None]
        hidden = low_rank.apply(
            module, variables, seen[None], row, hidden_states=entering
        )[0]
    return {
        side: low_rank.apply(
            module, variables, hidden[None, where], method=f"{side}_logits"
        )[0]
        for side, where in config.slices(module.config.layout).items()
    }


def _seen(module, tokens, config: DecodeConfig):
    """What sampling gives the model for [L] or [B,L]: tokens, match rows [1] or [B]."""
    layout, vocab = module.config.layout, module.config.vocab
    if config.eq6:
        text = jnp.arange(tokens.shape[-1]) >= layout.text_slice.start
        tokens = jnp.where(text, vocab.pad_id, tokens)
    row = gptface_model.MATCHED if config.match_token else gptface_model.UNKNOWN
    return tokens, jnp.full(tokens.shape[:-1] or 1, row)


def predict(
    module, params, config: DecodeConfig, words, tokens, is_open, remaining, before=None
):
    """Scores side -> [B,P,V] of the guided model, log p(q=1) [B], the shifts [B,...].

    Scores are log-probabilities, or logits with `raw_confidence`. `before` are the
    shifts that the last iteration left, and they are told, where nothing is restored.
    """
    layout = module.config.layout
    without_text = dataclasses.replace(config, eq6=True, cfg=1.0, cfg_end=None)
    # One pass to sample, or one with and one without the text.
    passes = (config, without_text) if config.uses_cfg else (config,)
    entering, views = None, (None,) * len(passes)
    depth = module.config.transformer.num_layers
    if config.last_blocks > depth:
        raise UserError(f"last_blocks is {config.last_blocks}; the model has {depth}")
    if 0 < config.last_blocks < depth:
        stop = depth - config.last_blocks
        first, share = backbone.some_layers(module, params, 0, stop)
        module, params = backbone.some_layers(module, params, stop, depth)
        states = functools.partial(first.apply, {"params": share}, method="states")
        entering = states(tokens)
        views = tuple(states(*_seen(module, tokens, view)) for view in passes)
    if config.guidance != "none":
        module = low_rank.unrolled(module)
    weight = config.last_cfg + remaining * (config.cfg - config.last_cfg)

    def logits(variables, tokens, weight, views, hidden=None):
        """One sample's."""
        found = [
            side_logits(
                module, variables, tokens, told, states, hidden if i == 0 else None
            )
            for i, (told, states) in enumerate(zip(passes, views))
        ]
        if words is not None and "text" in found[0]:
            found[0]["text"] = jnp.where(words, found[0]["text"], -jnp.inf)
        if len(found) == 1:
            return found[0]
        return jax.tree.map(lambda z, null: null + weight * (z - null), *found)

    seen = (tokens, weight, views)
    unmoved = functools.partial(logits, {"params": params})
    if config.guidance == "none":
        unknown = jnp.full(len(tokens), jnp.nan)
        return _scores(jax.vmap(unmoved)(*seen), config), unknown, None
    # The gradient's own forward pass is the plain one, where it saw the same.
    told = config.match_token and module.config.match_token
    same = not config.eq6 and not told
    if config.guidance == "embedding":
        change, match, hidden = jax.vmap(
            lambda row, states: _embedding_gain(module, params, row, config, states)
        )(tokens, entering)
    else:
        scale = jnp.ones(len(tokens))
        if config.eta_growth:
            # Not 1 - mean(open): the mean of ones may exceed 1 in float32.
            scale = jnp.sqrt(jnp.mean(~is_open[:, layout.image_slice], axis=1))
        change, match, hidden = jax.vmap(
            lambda row, *given: shift(module, params, row, config, *given)
        )(tokens, scale, entering, before)
        same &= config.restore
    plain = jax.vmap(unmoved)(*seen, *([hidden] if same else []))

    def moved(factor=None):
        """Scores after `factor` [B] of the change."""
        if config.guidance == "embedding":
            factor = 1.0 if factor is None else factor[:, None, None]
            gained = jax.tree.map(lambda z, gain: z + factor * gain, plain, change)
            return _scores(gained, config)

        def one(change, factor, *seen):
            change = change if factor is None else change.scaled(params, factor)
            return logits(change.variables(params), *seen)

        return _scores(jax.vmap(one)(change, factor, *seen), config)

    scores = moved()
    if config.guidance == "literal":
        return scores, match, None if config.restore else change
    if config.kl_max > 0:
        opened = {s: is_open[:, w] for s, w in config.slices(layout).items()}
        kl = jax.vmap(ops_guidance.kl_divergence)(
            _normalised(scores), _normalised(plain), opened
        )
        trust = ops_guidance.trust_scale(kl, config.kl_max)
        far = (trust < 1) & jnp.any(is_open, axis=1)
        # A second, shorter step for those that went too far.
        again = jax.lax.cond(jnp.any(far), lambda: moved(trust), lambda: scores)
        scores = jax.tree.map(
            lambda a, b: jnp.where(far[:, None, None], a, b), again, scores
        )
        if not config.restore:
            trust = jnp.where(far, trust, 1.0)
            change = jax.vmap(lambda x, factor: x.scaled(params, factor))(change, trust)
    if config.fusion < 1:
        mix = functools.partial(ops_guidance.fuse, gamma=config.fusion)
        scores = _scores(jax.tree.map(mix, scores, _scores(plain, config)), config)
    return scores, match, None if config.restore else change


def _embedding_gain(module, params, tokens, config: DecodeConfig, hidden_states):
    """What the ids of each side gain by the gradient at their embeddings (A.9.4).

    Returns:
      (side -> [P,V], log p(q=1), last hidden states [L,D]).
    """
    if hidden_states is not None:
        raise UserError("guidance 'embedding' moves no layers; leave last_blocks 0")
    vocab = module.config.vocab
    match, hidden, slope, table = guidance.embedding_slopes(module, params, tokens)
    ids = {
        "image": slice(vocab.text_size, vocab.size),
        "text": slice(0, vocab.text_size),
    }
    gain = {
        side: config.step_size
        * slope[where]
        @ (table[ids[side]] - table[vocab.mask_id]).T
        for side, where in config.slices(module.config.layout).items()
    }
    return gain, match, hidden


def _normalised(logits):
    return jax.tree.map(jax.nn.log_softmax, logits)  # over the last axis


def _scores(logits, config: DecodeConfig):
    return logits if config.raw_confidence else _normalised(logits)
