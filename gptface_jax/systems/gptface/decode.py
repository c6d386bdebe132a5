"""Guided iterative decoding (paper equations 6-7, SPEC A.9.2): one jitted loop.

Each iteration shifts the parameters along the gradient of log p(q=1), samples
every open position with the shifted parameters, and commits the k tokens next
to the span boundary of which the model is most sure. The shifted parameters
exist only inside the loop body, so nothing has to be restored.
"""

from __future__ import annotations

import functools

import flax
import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core import trees
from gptface_jax.nn import platforms, shifted_network
from gptface_jax.nn.transformer import taken_apart
from gptface_jax.ops import sampling, watermark
from gptface_jax.systems.gptface import kept as keeping
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface import predict
from gptface_jax.systems.gptface.options import REMASK_UNTIL, DecodeConfig


@flax.struct.dataclass
class DecodeResult:
    """The filled sequences, and how they were filled.

    Attributes:
      tokens: int32 [B,L] joint ids, no [MASK] left on the decoded side.
      itm_log_prob: float32 [B,T] log p(q=1) before each iteration; NaN after
        a sample is done, and everywhere with guidance "none" unless it is traced.
      num_iterations: int32 [B], exactly ceil(open / k).
      committed_at: int32 [B,L] iteration that filled a position, -1 for known.
    """

    tokens: jax.Array
    itm_log_prob: jax.Array
    num_iterations: jax.Array
    committed_at: jax.Array


@flax.struct.dataclass
class _Carry:
    tokens: jax.Array  # int32 [B,L], [MASK] where open
    is_open: jax.Array  # bool [B,L]
    total: jax.Array  # int32 [B], positions that were open at the start
    iteration: jax.Array  # int32 [B]
    itm_log_prob: jax.Array  # float32 [B,T]
    committed_at: jax.Array  # int32 [B,L]
    sure: jax.Array | None = (
        None  # float32 [B,L] when committed, where any is taken back
    )
    moved: shifted_network.Shift | None = (
        None  # of each sample, where nothing is restored
    )
    kept: keeping.Kept | None = None  # where not all positions are computed anew


def _commit(
    carry: _Carry, scores, match, remaining, key, model, config, density
) -> _Carry:
    """One sample's carry after an iteration, given its scores by side [P,V]."""
    layout, vocab = model.layout, model.vocab
    offsets = {"image": vocab.text_size, "text": 0}
    # By the sample's own iteration: what it draws does not depend on its batch mates.
    key = jax.random.fold_in(key, carry.iteration)
    # Linear from the first temperature to the last over the sample's own run.
    temperature = config.temperature_end + remaining * (
        config.temperature - config.temperature_end
    )
    drawn = carry.tokens
    confidence = jnp.full(layout.length, -jnp.inf)
    ring = jnp.full(layout.length, sampling.FAR)
    rows = None  # of the image, of which there are scores; default all
    if carry.kept is not None:
        rows = keeping.image_rows(carry.kept.places, layout)
    for side, where in config.slices(layout).items():
        offered = scores[side]
        if side == "image" and density is not None:
            offered = sampling.for_temperature(offered, temperature, density)
        if side == "image" and config.watermark:
            codes = vocab.joint_to_image(carry.tokens[where])  # below 0 where open
            gain = watermark.favoured(
                config.watermark_key,
                codes,
                layout.grid[1],
                vocab.codebook_size,
                config.watermark_left,
            )
            gain = gain if rows is None else gain.at[rows].get(mode="clip")
            offered += config.watermark * gain
        # Every open position is drawn, and few of them kept: which they are depends on
        # how sure the draws are.
        count, stream = where.stop - where.start, trees.stream(key, side)
        ids, sure = sampling.sample(offered, temperature, stream, rows, count)
        if config.confidence == "entropy":
            sure = -_entropy(offered)
        if rows is not None:
            ids, sure = (
                jnp.zeros(count, x.dtype).at[rows].set(x, mode="drop")
                for x in (ids, sure)
            )
        drawn = drawn.at[where].set(ids + offsets[side])
        confidence = confidence.at[where].set(sure)
        given = ~carry.is_open[where] & (carry.tokens[where] != vocab.pad_id)
        ring = ring.at[where].set(_ring(side, given, layout, config))
    # Early the order is nearly by chance, late by confidence: decoding in the order of
    # confidence alone repeats what is most common (MaskGIT).
    noise = jax.random.gumbel(trees.stream(key, "order"), (layout.length,))
    noisy = confidence + config.confidence_noise * remaining * noise
    k, again = config.k, None
    if config.remask:
        again = _taken_back(carry, remaining, config)
        k += jnp.sum(again)
    commit = sampling.commit_mask(ring, noisy, carry.is_open, k)
    if again is not None:
        carry = carry.replace(
            tokens=jnp.where(again, vocab.mask_id, carry.tokens),
            is_open=carry.is_open | again,
            committed_at=jnp.where(again, -1, carry.committed_at),
            sure=jnp.where(commit, confidence, carry.sure),
        )
    return carry.replace(
        tokens=jnp.where(commit, drawn, carry.tokens),
        is_open=carry.is_open & ~commit,
        iteration=carry.iteration + 1,
        itm_log_prob=carry.itm_log_prob.at[carry.iteration].set(match),
        committed_at=jnp.where(commit, carry.iteration, carry.committed_at),
    )


def _ring(side: str, given: jax.Array, layout, config: DecodeConfig) -> jax.Array:
    """Order in which a side's positions are decoded, int32 [P]; the lowest first."""
    image = side == "image"
    if config.select == "halton":
        shape = layout.grid if image else (1, layout.max_text_tokens)
        return jnp.asarray(sampling.halton_ranks(*shape))
    if config.select == "global":  # all alike: confidence alone decides
        return jnp.full(len(given), sampling.FAR)
    distances = (
        sampling.grid_distances(layout.grid)
        if image
        else sampling.line_distances(layout.max_text_tokens)
    )
    return sampling.rings(distances, given)


def _entropy(scores: jax.Array) -> jax.Array:
    """Nats of each row [P] of scores [P,V]."""
    log_p = jax.nn.log_softmax(scores, axis=-1)
    # Ids that may not be drawn have -inf: 0 log 0 is 0.
    return -jnp.sum(jnp.exp(log_p) * jnp.where(log_p > -jnp.inf, log_p, 0), axis=-1)


def _taken_back(carry: _Carry, remaining: jax.Array, config) -> jax.Array:
    """One sample's committed positions that are opened again, bool [L]."""
    committed = carry.committed_at >= 0
    few = jnp.where(remaining > REMASK_UNTIL, round(config.remask * config.k), 0)
    # No more than can be made up for in this iteration.
    few = jnp.minimum(few, jnp.maximum(jnp.sum(carry.is_open) - config.k, 0))
    alike = jnp.zeros(len(committed), jnp.int32)
    return sampling.commit_mask(alike, -carry.sure, committed, few)


def _in_turns(function, size: int, *arrays):
    """`function` of batches, `size` samples at a time.

    Every turn takes some from all over the batch: devices that share it all have work.
    """
    batch = len(arrays[0])
    turns = -(-batch // size)

    def split(x):
        x = jnp.concatenate([x, jnp.repeat(x[-1:], turns * size - batch, axis=0)])
        return jnp.swapaxes(x.reshape(size, turns, *x.shape[1:]), 0, 1)

    def join(x):
        x = jnp.swapaxes(x, 0, 1)
        return x.reshape(size * turns, *x.shape[2:])[:batch]

    result = jax.lax.map(lambda turn: function(*turn), jax.tree.map(split, arrays))
    return jax.tree.map(join, result)


def decode(
    module: gptface_model.GPTFace,
    params,
    tokens: jax.Array,
    known: jax.Array,
    config: DecodeConfig,
    key: jax.Array,
    words: jax.Array | None = None,
    slots: int | None = None,
    codebook: jax.Array | None = None,
) -> DecodeResult:
    """Fills the open positions of every sequence of a batch.

    Guidance, schedules and random numbers are a sample's own: its tokens do not
    depend on its batch mates.

    Args:
      module: the model (static).
      params: its parameters; read, never written.
      tokens: int32 [B,L] joint ids (`model.assemble`); what stands at open
        positions is ignored.
      known: bool [B,L], True = given and never resampled. Positions outside
        `config.side` count as known. Padding must be known.
      config: options (static).
      key: one key, from which sample b gets fold_in(key, b), or keys [B].
      words: bool [|V|], the text ids that may be drawn; default all but the special
        ones.
      slots: `kept.slots` of what is known, for calls within jit.
      codebook: float [K,C] of the VQGAN, which `config.density` needs.

    Returns:
      A DecodeResult after exactly ceil(open / k) iterations a sample.
    """
    config = config.settled(module.config, platforms.current())
    slots = _slots(module, known, config, slots)
    return fill_jitted(
        module, params, tokens, known, config, key, words, slots, codebook
    )


def _slots(module, known, config: DecodeConfig, slots: int | None) -> int:
    return keeping.slots(config, module.config, known) if slots is None else slots


def _density(config: DecodeConfig, codebook: jax.Array | None) -> jax.Array | None:
    """`ops.sampling.code_density` float32 [K], where codes are drawn by it."""
    if not config.density or config.side == "text":
        return None
    return sampling.code_density(codebook, config.density)


def fill(
    module, params, tokens, known, config: DecodeConfig, key, words=None, slots=0,
    codebook=None,
) -> DecodeResult:  # fmt: skip
    """`decode` without jit, of settled options."""
    if key.ndim == 0:
        key = jax.vmap(lambda b: jax.random.fold_in(key, b))(
            jnp.arange(tokens.shape[0])
        )
    begin = _begin(module, params, tokens, known, config, slots)
    density = _density(config, codebook)
    end = _advance(module, params, begin, config, key, words, density=density)
    result = _result(end)
    return _traced(module, params, result) if config.traced_afterwards else result


def _begin(
    module, params, tokens, known, config: DecodeConfig, slots: int = 0
) -> _Carry:
    """The carry before the first iteration."""
    decoded = np.zeros(tokens.shape[1], bool)
    for where in config.slices(module.config.layout).values():
        decoded[where] = True
    is_open = ~known & decoded
    # Shapes are static: as many iterations as a sample with all positions open takes.
    bound = -(-int(decoded.sum()) // config.k)
    carry = _Carry(
        tokens=jnp.where(is_open, module.config.vocab.mask_id, tokens),
        is_open=is_open,
        total=jnp.sum(is_open, axis=1),
        iteration=jnp.zeros(len(tokens), jnp.int32),
        itm_log_prob=jnp.full((len(tokens), bound), jnp.nan),
        committed_at=jnp.full(tokens.shape, -1),
        sure=jnp.zeros(tokens.shape) if config.remask else None,
    )
    if not config.restore:
        own = predict.start(params, config)
        repeated = jax.tree.map(lambda x: jnp.repeat(x[None], len(tokens), 0), own)
        carry = carry.replace(moved=repeated)
    if slots:
        views = predict.kept_views(module, carry.tokens, config)
        kept = keeping.begin(module, params, views, is_open, slots)
        carry = carry.replace(kept=kept)
    return carry


def _advance(
    module,
    params,
    carry: _Carry,
    config: DecodeConfig,
    key,
    words=None,
    share=1.0,
    strengths: predict.Strengths | None = None,
    bias: jax.Array | None = None,
    density: jax.Array | None = None,
) -> _Carry:
    """The carry after a share of each sample's iterations, rounded up; 1 for all."""
    commit = functools.partial(
        _commit, model=module.config, config=config, density=density
    )
    # Taken apart before the loop, in which that would be done at every turn.
    layers = params["transformer"] if carry.kept is not None else None
    parts = layers and taken_apart(module.config.transformer, layers)
    scores_of = functools.partial(
        predict.predict, module, params, config, words, parts=parts
    )
    if 0 < config.at_once < len(carry.tokens):
        scores_of = functools.partial(_in_turns, scores_of, config.at_once)
    until = jnp.ceil(share * -(-carry.total // config.k))

    def is_busy(carry: _Carry) -> jax.Array:
        return jnp.any(carry.is_open, axis=1) & (carry.iteration < until)

    def body(carry: _Carry) -> _Carry:
        # 1 -> 0
        remaining = jnp.sum(carry.is_open, axis=1) / jnp.maximum(carry.total, 1)
        carry = _refreshed(module, params, carry, config)
        scores, match, change = scores_of(
            carry.tokens, carry.is_open, remaining, carry.moved, strengths, bias,
            carry.kept,
        )  # fmt: skip
        after = jax.vmap(commit)(carry, scores, match, remaining, key)
        if not config.restore:
            after = after.replace(moved=change)
        # Samples of a batch end at different times; those that are done keep their
        # carry.
        busy = is_busy(carry)

        def keep(new, old):
            return jnp.where(busy.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(keep, after, carry)

    # Not a scan: a small mask ends after few iterations, whatever the bound is.
    return jax.lax.while_loop(lambda c: jnp.any(is_busy(c)), body, carry)


def _refreshed(module, params, carry: _Carry, config: DecodeConfig) -> _Carry:
    """The carry with keys and values of all positions as they are now, when due."""
    if carry.kept is None or not config.refresh:
        return carry

    def read():
        views = predict.kept_views(module, carry.tokens, config)
        return keeping.read(module, params, views)

    # By the sample's own iterations; the first has just read.
    due = (carry.iteration > 0) & (carry.iteration % config.refresh == 0)
    due &= jnp.any(carry.is_open, axis=1)
    old = carry.kept.past
    past = jax.tree.map(
        lambda new, old: jnp.where(due[:, None, None, None], new, old),
        jax.lax.cond(jnp.any(due), read, lambda: old),
        old,
    )
    return carry.replace(kept=carry.kept.replace(past=past))


def _result(end: _Carry) -> DecodeResult:
    return DecodeResult(
        tokens=end.tokens,
        itm_log_prob=end.itm_log_prob,
        num_iterations=end.iteration,
        committed_at=end.committed_at,
    )


fill_jitted = jax.jit(fill, static_argnames=("module", "config", "slots"))


def _traced(module, params, result: DecodeResult) -> DecodeResult:
    """The result with log p(q=1) of what was known before each iteration."""

    def before(i, match):
        later = result.committed_at >= i
        tokens = jnp.where(later, module.config.vocab.mask_id, result.tokens)
        found = predict.itm_log_prob(module, params, tokens)
        return match.at[:, i].set(jnp.where(i < result.num_iterations, found, jnp.nan))

    last = jnp.max(result.num_iterations)
    match = jax.lax.fori_loop(0, last, before, result.itm_log_prob)
    return result.replace(itm_log_prob=match)


def rerank(
    module: gptface_model.GPTFace,
    params,
    tokens: jax.Array,
    known: jax.Array,
    config: DecodeConfig,
    key: jax.Array,
    num_candidates: int,
    strengths: predict.Strengths | None = None,
    bias: jax.Array | None = None,
    slots: int | None = None,
    codebook: jax.Array | None = None,
) -> tuple[DecodeResult, jax.Array]:
    """Decodes every sequence several times and keeps what matches best (A.9.4).

    With `config.prune_at` candidates that match worst are given up on the way.

    Args:
      module, params, tokens, known, config: see `decode`.
      key: keys [B]; candidate i of sample b has fold_in(key[b], i).
      num_candidates: N, of each sequence.
      strengths: of attributes, beside the text or without one (SPEC E.15). Of several
        candidates the best is then that of `predict.signed_match`.
      bias: float32 [B,P,V], what each code gains at each image position.
      slots, codebook: see `decode`.

    Returns:
      (DecodeResult of the best, log p(q=1) of all the finished ones, float32 [B,N]; of
      the best alone [B,1] where others were pruned or strengths chose).
    """
    config = config.settled(module.config, platforms.current())
    slots = _slots(module, known, config, slots)
    return _rerank_jitted(
        module, params, tokens, known, config, key, num_candidates, strengths, bias,
        slots, codebook,
    )  # fmt: skip


@functools.partial(
    jax.jit, static_argnames=("module", "config", "num_candidates", "slots")
)
def _rerank_jitted(
    module, params, tokens, known, config, key, num_candidates, strengths, bias, slots,
    codebook,
):  # fmt: skip
    size = len(tokens)
    number = jnp.tile(jnp.arange(num_candidates), size)
    # All candidates begin alike: what is read of them at the start is read once.
    carry, key, added = jax.tree.map(
        lambda x: jnp.repeat(x, num_candidates, axis=0),
        (
            _begin(module, params, tokens, known, config, slots),
            key,
            {"strengths": strengths, "bias": bias},
        ),
    )
    keys = jax.vmap(jax.random.fold_in)(key, number)
    density = _density(config, codebook)
    advance = functools.partial(
        _advance, module, params, config=config, density=density
    )
    signed = strengths is not None and num_candidates > 1
    for share, keep in config.survivors(num_candidates):
        carry = advance(carry, key=keys, share=share, **added)
        # Of what is there so far: the model knows pictures with holes.
        if signed:
            of = added["strengths"]
            found = predict.signed_match(module, params, carry.tokens, of)
        else:
            found = predict.itm_log_prob(module, params, carry.tokens)
        found = found.reshape(size, -1)
        _, best = jax.lax.top_k(found, keep)
        rows = (jnp.arange(size)[:, None] * found.shape[1] + best).reshape(-1)
        carry, keys, added = jax.tree.map(
            lambda x, rows=rows: x[rows], (carry, keys, added)
        )
    if config.prune_at:
        carry = advance(carry, key=keys, **added)
    if config.prune_at or signed:
        scores = predict.itm_log_prob(module, params, carry.tokens)[:, None]
    else:
        scores = found
    result = _result(carry)
    # Traced is the best one alone: a trace takes a pass an iteration.
    if config.traced_afterwards:
        result = _traced(module, params, result)
    return result, scores
