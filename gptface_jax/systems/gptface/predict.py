"""What the decoder samples from: the guided model's scores (paper equations 6-7).

The shifted parameters exist only inside these functions, so nothing has to be restored.
"""

from __future__ import annotations

import dataclasses
import functools

import flax
import jax
import jax.numpy as jnp

from gptface_jax.core.errors import UserError
from gptface_jax.nn import backbone, low_rank, shifted_network
from gptface_jax.ops import guidance as ops_guidance
from gptface_jax.systems.gptface import guidance
from gptface_jax.systems.gptface import kept as keeping
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface.options import DecodeConfig, Steering


@flax.struct.dataclass
class Strengths:
    """Signed strengths of attributes, of each sample its own (SPEC E.15).

    Attributes:
      text_ids: int32 [B,A,2,m], of each attribute its sentence, then the opposite one.
      weights: float32 [B,A], w of w (z_sentence - z_opposite); 0 adds nothing.
    """

    text_ids: jax.Array
    weights: jax.Array


def itm_log_prob(module, params, tokens: jax.Array) -> jax.Array:
    """Log-probability float32 [B] that sequences [B,L] match, match bit unknown."""
    variables = {"params": params}
    hidden = module.apply(variables, tokens)
    logits = module.apply(variables, hidden, method="itm_logits")
    return jax.nn.log_softmax(logits, axis=-1)[:, 1]


def signed_match(module, params, tokens: jax.Array, strengths: Strengths) -> jax.Array:
    """How well sequences [B,L] show what strengths and text ask for, float32 [B].

    log p(match) of the text, where there is one, and for each attribute that of its
    sentence above that of the opposite one, by the sign of its weight.
    """
    config, (size, count) = module.config, strengths.weights.shape
    rows = itm_log_prob(module, params, _with_sentences(module, tokens, strengths))
    match = rows.reshape(size, count, 2)
    signed = jnp.sum(jnp.sign(strengths.weights) * (match[..., 0] - match[..., 1]), -1)
    text = tokens[:, config.layout.text_slice] != config.vocab.pad_id
    own = itm_log_prob(module, params, tokens)
    return signed + jnp.where(jnp.any(text, axis=1), own, 0.0)


def _with_sentences(module, tokens, strengths: Strengths) -> jax.Array:
    """Sequences [B*A*2,L] with the attributes' sentences in place of the texts."""
    rows = jnp.repeat(tokens, 2 * strengths.weights.shape[1], axis=0)
    texts = strengths.text_ids.reshape(len(rows), -1)
    return rows.at[:, module.config.layout.text_slice].set(texts)


def start(params, config: Steering) -> shifted_network.Shift:
    """A shift of length 0 of the parameters that guidance may change."""
    pattern = ".*" if config.guidance == "literal" else config.update_set
    return shifted_network.begin(params, pattern, config.low_rank)


def shift(
    module,
    params,
    tokens: jax.Array,
    config: Steering,
    scale=1.0,
    hidden_states=None,
    before: shifted_network.Shift | None = None,
):
    """The parameters moved to make this one sequence match.

    Args:
      module: the model.
      params: nested dict.
      tokens: int32 [L].
      config: rule, step size, number of steps, update set and form, settled.
      scale: factor on the change.
      hidden_states: [L,D], see `Backbone.__call__`.
      before: where they were moved to before.

    Returns:
      (shifted_network.Shift, log p(q=1) before it, last hidden states before it [L,D]).

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
        hidden = shifted_network.apply(
            module, variables, seen[None], row, hidden_states=entering
        )[0]
    return {
        side: shifted_network.apply(
            module, variables, hidden[None, where], method=f"{side}_logits"
        )[0]
        for side, where in config.slices(module.config.layout).items()
    }


def _seen(module, tokens, config: DecodeConfig):
    """Tokens [L] or [B,L] and match rows [1] or [B] that the model samples from."""
    layout, vocab = module.config.layout, module.config.vocab
    if config.eq6:
        text = jnp.arange(tokens.shape[-1]) >= layout.text_slice.start
        tokens = jnp.where(text, vocab.pad_id, tokens)
    row = gptface_model.MATCHED if config.match_token else gptface_model.UNKNOWN
    return tokens, jnp.full(tokens.shape[:-1] or 1, row)


def predict(
    module,
    params,
    config: DecodeConfig,
    words,
    tokens,
    is_open,
    remaining,
    before=None,
    strengths: Strengths | None = None,
    bias: jax.Array | None = None,
    kept: keeping.Kept | None = None,
    *,
    parts=None,
):
    """Scores of the guided model for every open and known position of a batch.

    Args:
      module, params: the model.
      config: options of the decoder, settled.
      words: bool [|V|], the text ids that may be drawn; None for all.
      tokens: int32 [B,L], [MASK] where open.
      is_open: bool [B,L].
      remaining: float [B], share of the open positions that still are, 1 to 0.
      before: where nothing is restored, the shifts that the last iteration left.
      strengths: of attributes; what they add is the unshifted model's.
      bias: float32 [B,P,V], what each code gains at each image position.
      kept: keys and values of an earlier pass, with `config.refresh`.
      parts: see `kept.image_logits`.

    Returns:
      (side -> float32 [B,P,V] log-probabilities, or logits with `raw_confidence`;
      log p(q=1) float32 [B] before the shift, NaN without guidance; the shifts [B,...],
      None where everything is restored). With `kept` scores are those of its places,
      [B,S,V].
    """
    if kept is None:
        scores, match, change = _text_scores(
            module, params, config, words, tokens, is_open, remaining, before
        )
    else:
        scores = _kept_scores(module, params, parts, config, tokens, remaining, kept)
        match, change = jnp.full(len(tokens), jnp.nan), None
    layout = module.config.layout
    if strengths is not None:
        added = _attribute_logits(module, params, config, tokens, strengths)
        if kept is not None:
            added = {"image": keeping.of_places(added["image"], kept, layout)}
        scores = _scores(jax.tree.map(jnp.add, scores, added), config)
    if bias is not None:
        if kept is not None:
            bias = keeping.of_places(bias, kept, layout)
        scores = _scores({**scores, "image": scores["image"] + bias}, config)
    return scores, match, change


def kept_views(module, tokens, config: DecodeConfig) -> list[keeping.View]:
    """What each pass of unguided decoding sees of sequences [B,L]."""
    return [_seen(module, tokens, view) for view in _passes(config)]


def _kept_scores(module, params, parts, config: DecodeConfig, tokens, remaining, kept):
    """Scores by side, of the places that are computed anew."""
    views = kept_views(module, tokens, config)
    found = keeping.image_logits(module, params, parts, views, kept)
    if len(found) == 2:
        weight = _cfg_weight(config, remaining)[:, None, None]
        found = [found[1] + weight * (found[0] - found[1])]
    return _scores({"image": found[0]}, config)


def _passes(config: DecodeConfig) -> tuple[DecodeConfig, ...]:
    """One pass to sample, or one with and one without the text."""
    without_text = dataclasses.replace(config, eq6=True, cfg=1.0, cfg_end=None)
    return (config, without_text) if config.uses_cfg else (config,)


def _cfg_weight(config: DecodeConfig, remaining) -> jax.Array:
    return config.last_cfg + remaining * (config.cfg - config.last_cfg)


def _attribute_logits(
    module, params, config: DecodeConfig, tokens, strengths: Strengths
) -> dict[str, jax.Array]:
    """Sum of w (z_sentence - z_opposite) over the attributes: "image" -> [B,P,V].

    All sentences of a batch go through the model together, in place of its texts.
    """
    if config.side != "image":
        raise ValueError(f"side is '{config.side}'; strengths need 'image'")
    layout, (size, count) = module.config.layout, strengths.weights.shape
    rows = _with_sentences(module, tokens, strengths)
    read = dataclasses.replace(config, eq6=False)
    variables = {"params": params}
    hidden = module.apply(variables, *_seen(module, rows, read))
    hidden = hidden[:, layout.image_slice]
    logits = module.apply(variables, hidden, method="image_logits")
    logits = logits.reshape(size, count, 2, *logits.shape[1:])
    difference = logits[:, :, 0] - logits[:, :, 1]  # [B,A,P,V]
    return {"image": jnp.einsum("ba,bapv->bpv", strengths.weights, difference)}


def _text_scores(
    module, params, config: DecodeConfig, words, tokens, is_open, remaining, before
):
    """`predict` without strengths."""
    passes = _passes(config)
    module, params, entering, views = _fixed_layers(
        module, params, config, passes, tokens
    )
    if config.guidance != "none":
        module = shifted_network.unrolled(module)
    weight = _cfg_weight(config, remaining)
    logits = functools.partial(_mixed_logits, module, passes, words)
    inputs = (tokens, weight, views)
    unmoved = functools.partial(logits, {"params": params})
    if config.guidance == "none":
        unknown = jnp.full(len(tokens), jnp.nan)
        return _scores(jax.vmap(unmoved)(*inputs), config), unknown, None

    change, match, hidden = _changes(
        module, params, config, tokens, is_open, entering, before
    )
    # The gradient's own forward pass is the plain one, where it saw the same.
    reused = [hidden] if _gradient_sees_the_same(module, config) else []
    plain = jax.vmap(unmoved)(*inputs, *reused)
    moved = functools.partial(
        _moved_scores, params, config, logits, inputs, plain, change
    )
    scores = moved()
    if config.guidance == "literal":
        return scores, match, None if config.restore else change
    if config.kl_max > 0:
        scores, factor = _within_trust_region(
            module, config, scores, plain, is_open, moved
        )
        if not config.restore:
            change = jax.vmap(lambda x, by: x.scaled(params, by))(change, factor)
    if config.fusion < 1:
        mix = functools.partial(ops_guidance.fuse, gamma=config.fusion)
        # Apart from what they are made by: as one with its product of 8,192 columns the
        # softmax is more than the vector memory of a TPU holds (libtpu 0.0.42).
        pair = jax.lax.optimization_barrier((scores, _scores(plain, config)))
        scores = _scores(jax.tree.map(mix, *pair), config)
    return scores, match, None if config.restore else change


def _fixed_layers(module, params, config: Steering, passes, tokens):
    """The part of the model that guidance changes, and what enters it.

    Layers before the `last_blocks` give the same whatever the shift is: they run once,
    outside the gradient.

    Returns:
      (module, params, hidden states [B,L,D] that enter it with the match bit unknown,
      for each pass those with what that pass sees); None for hidden states where the
      whole model is changed.
    """
    depth = module.config.transformer.num_layers
    if config.last_blocks > depth:
        raise UserError(f"last_blocks is {config.last_blocks}; the model has {depth}")
    if not 0 < config.last_blocks < depth:
        return module, params, None, (None,) * len(passes)
    stop = depth - config.last_blocks
    first, share = backbone.some_layers(module, params, 0, stop)
    module, params = backbone.some_layers(module, params, stop, depth)
    states = functools.partial(first.apply, {"params": share}, method="states")
    entering = states(tokens)
    views = tuple(states(*_seen(module, tokens, view)) for view in passes)
    return module, params, entering, views


def _mixed_logits(
    module, passes, words, variables, tokens, weight, views, hidden=None
) -> dict[str, jax.Array]:
    """Logits of one sample by side [P,V]; of two passes z_null + w (z_text - z_null).

    Args:
      module, passes, words: the model, what each pass sees, see `predict`.
      variables: `Shift.variables`.
      tokens, weight, views: int32 [L], w, and of each pass the entering states.
      hidden: last hidden states [L,D] of the first pass, where they are known.
    """
    found = [
        side_logits(module, variables, tokens, view, states, hidden if i == 0 else None)
        for i, (view, states) in enumerate(zip(passes, views))
    ]
    if words is not None and "text" in found[0]:
        found[0]["text"] = jnp.where(words, found[0]["text"], -jnp.inf)
    if len(found) == 1:
        return found[0]
    return jax.tree.map(lambda z, null: null + weight * (z - null), *found)


def _gradient_sees_the_same(module, config: DecodeConfig) -> bool:
    """Whether the gradient's forward pass is also that of the unshifted model.

    It sees the text and an unknown match bit, at the shift so far.
    """
    matched = config.match_token and module.config.match_token
    moves_parameters = config.guidance != "embedding"
    return not config.eq6 and not matched and (config.restore or not moves_parameters)


def _changes(module, params, config, tokens, is_open, entering, before):
    """The change that guidance makes, of each sample by its own gradient.

    Returns:
      (shifts [B,...], or with guidance "embedding" side -> gains [B,P,V];
      log p(q=1) [B]; last hidden states [B,L,D]), the latter two before the change.
    """
    if config.guidance == "embedding":
        return jax.vmap(
            lambda row, states: _embedding_gain(module, params, row, config, states)
        )(tokens, entering)
    scale = jnp.ones(len(tokens))
    if config.eta_growth:
        # Not 1 - mean(open): the mean of ones may exceed 1 in float32.
        image = module.config.layout.image_slice
        scale = jnp.sqrt(jnp.mean(~is_open[:, image], axis=1))
    return jax.vmap(lambda row, *given: shift(module, params, row, config, *given))(
        tokens, scale, entering, before
    )


def _moved_scores(params, config, logits, inputs, plain, change, factor=None):
    """Scores after `factor` [B] of the change; None for all of it."""
    if config.guidance == "embedding":
        factor = 1.0 if factor is None else factor[:, None, None]
        gained = jax.tree.map(lambda z, gain: z + factor * gain, plain, change)
        return _scores(gained, config)

    def one(change, factor, *inputs):
        change = change if factor is None else change.scaled(params, factor)
        return logits(change.variables(params), *inputs)

    return _scores(jax.vmap(one)(change, factor, *inputs), config)


def _within_trust_region(module, config: DecodeConfig, scores, plain, is_open, moved):
    """Scores after a step that is shortened where it went too far (SPEC A.9.4).

    Returns:
      (scores, factor on the change float32 [B], 1 where it stayed within `kl_max`;
      None where everything is restored and nobody needs it).
    """
    opened = {s: is_open[:, w] for s, w in config.slices(module.config.layout).items()}
    kl = jax.vmap(ops_guidance.kl_divergence)(
        _normalised(scores), _normalised(plain), opened
    )
    trust = ops_guidance.trust_scale(kl, config.kl_max)
    far = (trust < 1) & jnp.any(is_open, axis=1)
    # The second step costs a pass of the whole batch: only if somebody needs it.
    again = jax.lax.cond(jnp.any(far), lambda: moved(trust), lambda: scores)
    scores = jax.tree.map(
        lambda a, b: jnp.where(far[:, None, None], a, b), again, scores
    )
    return scores, None if config.restore else jnp.where(far, trust, 1.0)


def _embedding_gain(module, params, tokens, config: DecodeConfig, hidden_states):
    """Gain of each id of each side by the gradient at its embedding (A.9.4).

    Returns:
      (side -> step_size <e_v - e_mask, d log p / d e_j> [P,V], log p(q=1), last
      hidden states [L,D]).
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
