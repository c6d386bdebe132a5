"""Autoregressive decoding with a cache of keys and values (SPEC B.9, E.4).

A prefix is read once and shared by all the samples that are drawn after it; then one
loop, compiled as a whole, writes a token of every sample at each turn.
"""

from __future__ import annotations

import functools
from typing import Any

import flax
import jax
import jax.numpy as jnp

from gptface_jax.core.errors import UserError
from gptface_jax.nn.prefix_lm import (
    PREFIX,
    TARGET,
    PrefixLM,
    PrefixLMConfig,
    is_image,
    rows_of,
)
from gptface_jax.nn.transformer import PRESENT, past_of, run_after_past, taken_apart
from gptface_jax.ops import sampling
from gptface_jax.systems.talk2face import tails
from gptface_jax.systems.talk2face.options import GenerateConfig


@flax.struct.dataclass
class Generated:
    """Targets drawn for P prefixes, S samples each.

    Attributes:
      tokens: int32 [P,S,T] joint ids; [PAD] after the [SEP] of a text.
      log_probs: float32 [P,S,T] of each token among those that may stand there, at
        temperature 1 and before `top_k` and `top_p`; 0 for given tokens and padding.
      lengths: int32 [P,S], tokens of each, with the [SEP] that ended it.
      missing: bool [P,S], the text did not go on with its tail, which was appended;
        False without tails.
    """

    tokens: jax.Array
    log_probs: jax.Array
    lengths: jax.Array
    missing: jax.Array


@flax.struct.dataclass
class Prefix:
    """Keys, values and lengths of P prefixes (the KV cache).

    Attributes:
      past: keys and values of each layer, a list of {"key", "value"} [P,N,Q,H].
      hidden: [P,1,D] state that the first token of the target is read off.
      real: bool [P,Q], no padding.
      images, others: int32 [P], tokens of images and other tokens.
    """

    past: Any
    hidden: jax.Array
    real: jax.Array
    images: jax.Array
    others: jax.Array

    @property
    def used(self) -> jax.Array:
        """int32 [P], tokens of each."""
        return self.images + self.others


@flax.struct.dataclass
class _Carry:
    step: jax.Array  # int32 [], tokens written
    hidden: jax.Array  # [P,S,D] that the next token is read off
    tokens: jax.Array  # int32 [P,S,T]
    log_probs: jax.Array  # float32 [P,S,T]
    done: jax.Array  # bool [P,S]
    tail: jax.Array  # int32 [P,S], tokens of the tail among those written
    missing: jax.Array  # bool [P,S]
    # {"own_key", "own_value"} [P*N*S,T,H] of each layer; none without a cache
    own: list[dict[str, jax.Array]]


def generate(
    module: PrefixLM,
    params: Any,
    prefixes: jax.Array,
    config: GenerateConfig,
    keys: jax.Array,
    given: jax.Array | None = None,
    tail: tails.Tail = (),
    codebook: jax.Array | None = None,
) -> Generated:
    """Draws targets; a sample's tokens do not depend on its batch mates.

    Args:
      module: the model (static).
      params: its parameters.
      prefixes: int32 [P,Q] joint ids `[CLS] prompt [SEP] prefix [SEP]`, [PAD] after
        them.
      config: options (static).
      keys: random keys [P,S], one a sample.
      given: int32 [P,F] tokens that every target begins with, such as a key that waits
        for its value; [PAD] after them. Default none.
      tail: ranges [start, stop) of joint ids, out of each of which a token follows the
        text, in place of its [SEP] (static), see `tails`.
      codebook: float [K,C] of the VQGAN, which `config.density` needs.

    Raises:
      UserError: prefix and target are longer than the model's sequences.
    """
    model, prefixes = module.config, jnp.asarray(prefixes, jnp.int32)
    target = config.length(model) + len(tail)
    if prefixes.shape[1] + target > model.max_positions:
        raise UserError(
            f"prefixes of {prefixes.shape[1]} and targets of {target} tokens are "
            f"longer than the {model.max_positions} positions of the model; draw fewer "
            "(max_tokens)"
        )
    if given is None:
        given = jnp.zeros((len(prefixes), 0), jnp.int32)
    given = jnp.asarray(given, jnp.int32)[:, : target - len(tail)]
    short = target - given.shape[1]
    given = jnp.pad(given, ((0, 0), (0, short)), constant_values=model.vocab.pad_id)
    return _generate(module, params, prefixes, config, keys, given, tail, codebook)


@functools.partial(jax.jit, static_argnames=("module", "config", "tail"))
def _generate(
    module, params, prefixes, config: GenerateConfig, keys, given, tail, codebook
):
    pad = module.config.vocab.pad_id
    variables, length = {"params": params}, given.shape[1]
    prefix = read_prefix(module, variables, prefixes)
    # Taken apart before the loop, in which that would be done at every turn.
    parts = taken_apart(module.config.transformer, params["transformer"])
    density = 0.0
    if config.density and config.modality == "image":
        density = sampling.code_density(codebook, config.density)

    def body(carry: _Carry) -> _Carry:
        forced = given[:, carry.step, None]  # [P,1]
        if tail:
            scores = tails.scores(module, variables, carry.hidden, carry.tail, tail)
        else:
            scores = _scores(module, variables, carry.hidden, config.modality)
        offered = sampling.for_temperature(scores, config.temperature, density)
        ids = _draw(offered, config, keys, carry.step)
        said = jnp.take_along_axis(
            jax.nn.log_softmax(scores), ids[..., None], axis=-1
        )[..., 0]  # fmt: skip
        free = ~carry.done & (forced == pad)
        ids += _offset(module.config, config.modality)
        ids = jnp.where(carry.done, pad, jnp.where(forced == pad, ids, forced))
        ended = (ids == module.config.vocab.sep_id) & free
        if tail:
            full = free & (carry.step >= length - len(tail))
            ids, written, missing = tails.begun(ids, carry.tail, ended | full, tail)
            # Of words for which there was no room nothing is told.
            said = jnp.where(missing & ~ended, 0.0, said)
            ended = written >= len(tail)
            carry = carry.replace(tail=written, missing=carry.missing | missing)
        carry = carry.replace(
            tokens=carry.tokens.at[..., carry.step].set(ids),
            log_probs=carry.log_probs.at[..., carry.step].set(
                jnp.where(free, said, 0.0)
            ),
            done=carry.done | (ended if config.modality == "text" else False),
        )
        if config.cached:
            carry = _read_token(module, variables, parts, prefix, carry, ids, config)
        else:
            carry = _read_all(module, variables, prefixes, carry)
        return carry.replace(step=carry.step + 1)

    start = _start(prefix, (len(prefixes), keys.shape[1], length), pad, config.cached)
    end = jax.lax.while_loop(
        lambda c: (c.step < length) & ~jnp.all(c.done), body, start
    )  # fmt: skip
    lengths = jnp.sum(end.tokens != pad, axis=-1)
    return Generated(end.tokens, end.log_probs, lengths, end.missing)


def _start(prefix: Prefix, shape: tuple[int, ...], pad: int, cached: bool) -> _Carry:
    """The carry before the first token; `shape` is prompts, samples, length."""
    samples, length = shape[1:]
    key = prefix.past[0]["key"]
    rows = key.shape[0] * key.shape[1] * samples
    empty = jnp.zeros((rows, length, key.shape[-1]), key.dtype)
    return _Carry(
        step=jnp.int32(0),
        hidden=jnp.repeat(prefix.hidden, samples, axis=1),
        tokens=jnp.full(shape, pad, jnp.int32),
        log_probs=jnp.zeros(shape),
        done=jnp.zeros(shape[:2], bool),
        tail=jnp.zeros(shape[:2], jnp.int32),
        missing=jnp.zeros(shape[:2], bool),
        own=[{"own_key": empty, "own_value": empty} for _ in prefix.past * cached],
    )


def read_prefix(module: PrefixLM, variables: Any, prefixes: jax.Array) -> Prefix:
    """Runs prefixes int32 [P,Q], with [PAD] after them, and keeps what targets need."""
    vocab = module.config.vocab
    real, image = prefixes != vocab.pad_id, is_image(prefixes, vocab)
    states, written = module.apply(
        variables,
        prefixes,
        jnp.where(real, PREFIX, 0),
        method="sequence",
        mutable=[PRESENT],
    )
    last = jnp.sum(real, axis=1)[:, None, None] - 1
    return Prefix(
        past=past_of(module.config.transformer, written),
        hidden=jnp.take_along_axis(states, last, axis=1),
        real=real,
        images=jnp.sum(image, axis=1),
        others=jnp.sum(real & ~image, axis=1),
    )


def score(
    module: PrefixLM,
    params: Any,
    prefixes: jax.Array,
    candidates: jax.Array,
    modality: str = "text",
    given: int = 0,
) -> jax.Array:
    """Log-probabilities float32 [P,C,T] of the tokens of given targets; padding has 0.

    All candidates of a prefix are read at once, each without seeing the others.

    Args:
      module, params, prefixes: see `generate`.
      candidates: int32 [P,C,T] joint ids, [PAD] after them.
      modality: of the targets, among whose tokens each is scored, see
        `GenerateConfig`.
      given: so many tokens at the start of each are not scored.
    """
    candidates = jnp.asarray(candidates, jnp.int32)
    prefixes = jnp.asarray(prefixes, jnp.int32)
    return _score(module, params, prefixes, candidates, modality, given)


@functools.partial(jax.jit, static_argnames=("module", "modality"))
def _score(module, params, prefixes, candidates, modality, given):
    variables, model = {"params": params}, module.config
    prefix = read_prefix(module, variables, prefixes)
    prompts, count, length = candidates.shape
    # Candidates stand side by side, as if they were one long target.
    positions = jnp.arange(count * length)
    same = positions[:, None] // length == positions // length
    mask = jnp.concatenate(
        [
            jnp.broadcast_to(
                prefix.real[:, None], (prompts, len(positions), prefixes.shape[1])
            ),
            jnp.broadcast_to(
                same & (positions[:, None] >= positions),
                (prompts, len(positions), len(positions)),
            ),
        ],
        axis=-1,
    )
    states, _ = _read(
        module,
        variables,
        taken_apart(model.transformer, params["transformer"]),
        prefix.past,
        candidates.reshape(prompts, -1),
        mask,
        jnp.tile(_rows(model, prefix, jnp.arange(length), modality), (1, count)),
    )
    states = states.reshape(prompts, count, length, -1)
    first = jnp.broadcast_to(prefix.hidden[:, None], states[:, :, :1].shape)
    states = jnp.concatenate([first, states[:, :, :-1]], axis=2)
    said = jax.nn.log_softmax(_scores(module, variables, states, modality))
    ids = jnp.maximum(candidates - _offset(model, modality), 0)
    said = jnp.take_along_axis(said, ids[..., None], axis=-1)[..., 0]
    scored = (candidates != model.vocab.pad_id) & (jnp.arange(length) >= given)
    return jnp.where(scored, said, 0.0)


def _offset(model: PrefixLMConfig, modality: str) -> int:
    """First joint id of a modality."""
    return model.vocab.text_size if modality == "image" else 0


def _scores(module, variables, hidden: jax.Array, modality: str) -> jax.Array:
    """float32 [...,C] of the codes, or [...,|V|] of words and [SEP], else -inf."""
    if modality == "image":
        return module.apply(variables, hidden, method="image_logits")
    vocab = module.config.vocab
    logits = module.apply(variables, hidden, 0, vocab.text_size, method="token_logits")
    special = [i for i in vocab.special_ids if i != vocab.sep_id]
    return logits.at[..., jnp.array(special)].set(-jnp.inf)


def _draw(scores: jax.Array, config: GenerateConfig, keys, step) -> jax.Array:
    """Ids int32 [P,S] by scores [P,S,V], each with a random number of its own."""
    if config.temperature == 0:
        return jnp.argmax(scores, axis=-1).astype(jnp.int32)
    scores = scores / config.temperature
    scores = sampling.keep_likely(scores, config.top_k, config.top_p)

    def one(row, key):
        return sampling.sample(row[None], 1.0, jax.random.fold_in(key, step))[0][0]

    return jax.vmap(jax.vmap(one))(scores, keys)


def _rows(model: PrefixLMConfig, prefix: Prefix, positions, modality: str) -> jax.Array:
    """Rows of the position table [P,...] for places in the target [...]."""
    images, others, used = (
        x[:, None] for x in (prefix.images, prefix.others, prefix.used)
    )
    if model.positions == "absolute":
        return used + positions
    image = modality == "image"
    return rows_of(
        jnp.array(image),
        images + (positions if image else 0),
        others + (0 if image else positions),
        model,
    )


def _read(module, variables, parts, past, tokens, mask, positions):
    """States of further tokens [P,R] after a past: ([P,R,D], PRESENT of each layer)."""
    segments = jnp.full(tokens.shape, TARGET) if module.config.segments else None
    x = module.apply(
        variables,
        tokens,
        segment_ids=segments,
        positions=positions,
        method="entering",
    )
    transformer = module.config.transformer
    return run_after_past(transformer, parts, x, mask[:, None], past)


def _read_token(module, variables, parts, prefix: Prefix, carry: _Carry, ids, config):
    """The carry after the tokens [P,S] of this step, by the cache."""
    prompts, samples, length = carry.tokens.shape
    seen = prefix.real[:, None], jnp.arange(length) <= carry.step
    mask = jnp.concatenate(
        [jnp.broadcast_to(x, (prompts, samples, x.shape[-1])) for x in seen], axis=-1
    )
    past = [
        {**shared, **own, "step": carry.step}
        for shared, own in zip(prefix.past, carry.own)
    ]
    rows = _rows(module.config, prefix, carry.step[None], config.modality)
    rows = jnp.broadcast_to(rows, ids.shape)
    hidden, present = _read(module, variables, parts, past, ids, mask, rows)
    own = [{name: new[name] for name in ("own_key", "own_value")} for new in present]
    return carry.replace(hidden=hidden, own=own)


def _read_all(module, variables, prefixes: jax.Array, carry: _Carry) -> _Carry:
    """The carry after this step by running every sequence as a whole."""
    prompts, samples, length = carry.tokens.shape
    used = jnp.sum(prefixes != module.config.vocab.pad_id, axis=1)
    positions = jnp.arange(prefixes.shape[1] + length) - used[:, None]  # in the target
    at = jnp.clip(positions, 0, length - 1)[:, None]  # [P,1,L]
    target = jnp.take_along_axis(carry.tokens, at, axis=2)
    start = jnp.pad(prefixes, ((0, 0), (0, length)))[:, None]
    tokens = jnp.where(positions[:, None] < 0, start, target)  # [P,S,L]
    segments = jnp.where(
        positions < 0, PREFIX, jnp.where(positions <= carry.step, TARGET, 0)
    )
    segments = jnp.broadcast_to(segments[:, None], tokens.shape)
    states = module.apply(
        variables,
        *(x.reshape(prompts * samples, -1) for x in (tokens, segments)),
        method="sequence",
    ).reshape(*tokens.shape, -1)
    last = (used + carry.step)[:, None, None, None]
    return carry.replace(hidden=jnp.take_along_axis(states, last, axis=2)[:, :, 0])
