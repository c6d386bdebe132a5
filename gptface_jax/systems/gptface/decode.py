"""Guided iterative decoding (paper equations 6-7, SPEC A.9.2): one jitted loop.

Each iteration shifts the parameters along the gradient of log p(q=1), samples
every open position with the shifted parameters, and commits the k tokens next
to the span boundary of which the model is most sure. The shifted parameters
exist only inside the loop body, so nothing has to be restored.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re

import flax
import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.core.vocab import SequenceLayout
from gptface_jax.ops import guidance as ops_guidance
from gptface_jax.ops import sampling, watermark
from gptface_jax.systems.gptface import guidance
from gptface_jax.systems.gptface import model as gptface_model

SIDES = ("image", "text", "both")
SELECTIONS = ("boundary", "global")
GUIDANCE = ("none", *ops_guidance.RULES, "embedding")
FORMS = ("auto", "explicit", "low_rank")
# Products that take as long as one byte from memory, by kind of device.
_BALANCE = {"cpu": 6}
# Blocks and final norm; never embeddings, output layers or the matching head,
# which could raise the score without changing the picture (SPEC A.9.3).
UPDATE_SET = r"^transformer/"


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Options of the decoder; hashable, static under jit.

    Attributes:
      k: tokens committed per iteration.
      guidance: "none", a rule of `ops.guidance.RULES`, or "embedding": no parameter
        moves, code v gains step_size * <e_v - e_mask, d log p(q=1) / d e_j>.
      step_size: lambda of "literal" and "ascent", eta of the normalised rules.
      num_steps: inner ascent steps per iteration.
      form: of a sample's parameters: "explicit" has arrays of their own, "low_rank"
        has none (see `guidance`); "auto" takes what costs less.
      update_set: regex of parameter paths that guidance may change; "literal"
        changes all parameters, as printed.
      last_blocks: guidance may change the last so many layers only, which is cheaper;
        0 for all.
      kl_max: trust region, mean over all open positions in nats; 0 turns it off.
      fusion: gamma of p_shifted^gamma * p^(1-gamma); 1 turns it off. Neither is
        applied to "literal".
      at_once: samples of a batch that are guided at a time, which bounds the memory;
        0 for all.
      eta_growth: scale the step by sqrt(1 - open / image tokens).
      restore: start every iteration from the model's own parameters, as the paper does;
        otherwise the shifts add up (claim G5).
      eq6: hide the text while sampling (equation 6 as printed).
      match_token: sample with the match control row MATCHED, where trained.
      cfg, cfg_end: classifier-free guidance w of z_null + w (z_text - z_null), going
        linearly from the first to the second, by default constant; 1 turns it off.
        The model must have seen pictures without texts (`objective.null_fraction`,
        or empty captions).
      side: which modality may hold open positions.
      select: "boundary" commits next to known tokens first, "global" by
        confidence alone.
      temperature, temperature_end: of sampling, falling linearly.
      confidence_noise: Gumbel noise on confidences, annealed to 0.
      raw_confidence: rank by logits (with fusion, by their mixture) instead of
        log-probabilities (literal).
      trace: tell log p(q=1) before each iteration without guidance too, which takes one
        more pass an iteration of what is returned.
      watermark: what a keyed half of the codes gains at open image positions, in nats;
        0 turns it off. See `ops.watermark`, `apps.detecting`.
      watermark_key: the secret, 0 to 2**64 - 1.
      watermark_left: the half depends on the left neighbour's code too, where that is
        known when a position is filled (literal).
    """

    k: int = 8
    guidance: str = "ascent_norm"
    step_size: float = 1e-2
    num_steps: int = 1
    form: str = "auto"
    update_set: str = UPDATE_SET
    last_blocks: int = 0
    at_once: int = 0
    kl_max: float = 0.5
    fusion: float = 0.9
    eta_growth: bool = False
    restore: bool = True
    eq6: bool = False
    match_token: bool = True
    cfg: float = 1.0
    cfg_end: float | None = None
    side: str = "image"
    select: str = "boundary"
    temperature: float = 1.0
    temperature_end: float = 0.7
    confidence_noise: float = 1.0
    raw_confidence: bool = False
    trace: bool = False
    watermark: float = 0.0
    watermark_key: int = 0
    watermark_left: bool = False

    def __post_init__(self):
        for name, value, choices in (
            ("guidance", self.guidance, GUIDANCE),
            ("side", self.side, SIDES),
            ("select", self.select, SELECTIONS),
            ("form", self.form, FORMS),
        ):
            if value not in choices:
                raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
        if self.k < 1:
            raise ValueError(f"k is {self.k}; commit at least 1 token an iteration")
        if self.num_steps < 1:
            raise ValueError(
                f"num_steps is {self.num_steps}; use 1 or more, or guidance 'none'"
            )
        for name in (
            "step_size",
            "kl_max",
            "temperature",
            "temperature_end",
            "confidence_noise",
            "cfg",
            "cfg_end",
            "last_blocks",
            "at_once",
            "watermark",
        ):
            value = getattr(self, name)
            if value is None and name == "cfg_end":
                continue
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; use a number from 0 on")
        if self.uses_cfg and (self.eq6 or self.side != "image"):
            raise ValueError(
                "cfg compares codes with and without the text; it needs side 'image' "
                "and no eq6. cfg=1 turns it off"
            )
        watermark.check_key(self.watermark_key)
        rule = self.guidance in ops_guidance.RULES
        if not self.restore and (
            self.last_blocks or self.form == "low_rank" or not rule
        ):
            raise ValueError(
                "restore=False adds up the shifts of a rule in the explicit form; use "
                f"one of {', '.join(ops_guidance.RULES)} and leave last_blocks 0"
            )
        if not 0 <= self.fusion <= 1:
            raise ValueError(f"fusion is {self.fusion}; use 0 (unguided) to 1")
        try:
            re.compile(self.update_set)
        except re.error as error:
            raise ValueError(
                f"update_set {self.update_set!r} is no regular expression ({error}); "
                f"the default is {UPDATE_SET!r}"
            ) from None

    @property
    def uses_cfg(self) -> bool:
        """Whether classifier-free guidance does anything."""
        return (self.cfg, self.last_cfg) != (1.0, 1.0)

    @property
    def last_cfg(self) -> float:
        """Weight of classifier-free guidance at the end."""
        return self.cfg if self.cfg_end is None else self.cfg_end

    @property
    def untold(self) -> bool:
        """Whether log p(q=1) is asked for, and guidance does not tell it."""
        return self.trace and self.guidance == "none"

    def forwards(self, told: bool) -> int:
        """What an iteration costs, in forward passes; a backward pass counts as two.

        Without the shorter step that a trust region may ask for.

        Args:
          told: whether the model has the match token.
        """
        passes = 2 if self.uses_cfg else 1
        if self.guidance == "none":
            return passes
        cost = 3 * self.num_steps
        moved = self.guidance != "embedding"
        mixed = self.guidance != "literal" and (self.kl_max > 0 or self.fusion < 1)
        if moved:
            cost += passes
        if mixed or not moved:  # unguided scores; the gradient's pass may give them
            same = not (self.eq6 or (told and self.match_token)) and self.restore
            cost += passes - same
        return cost

    def slices(self, layout: SequenceLayout) -> dict[str, slice]:
        """Decoded side -> its positions."""
        both = {"image": layout.image_slice, "text": layout.text_slice}
        return {s: where for s, where in both.items() if self.side in (s, "both")}

    def low_rank(self, model: gptface_model.GPTFaceConfig) -> bool:
        """Whether this model is guided in the low-rank form, here.

        For a weight, the explicit form multiplies L times and moves it and its gradient
        six times; the low-rank form compares L x L positions for the norm and again for
        the read, which a row and a column of weights share.
        """
        if self.form != "auto" or not self.restore:
            return self.form == "low_rank"
        length, width = model.layout.length, model.transformer.width
        flops_per_byte = _BALANCE.get(jax.default_backend(), 100)
        explicit = 2 * length + 6 * 4 * flops_per_byte
        return 4 * length**2 * 2 / width < explicit


@flax.struct.dataclass
class DecodeResult:
    """What the loop returns.

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
    iteration: jax.Array  # int32 [B]
    itm_log_prob: jax.Array  # float32 [B,T]
    committed_at: jax.Array  # int32 [B,L]
    moved: guidance.Shift | None = None  # of each sample, where nothing is restored


def itm_log_prob(module, params, tokens: jax.Array) -> jax.Array:
    """log p(q=1 | tokens), match bit unknown; [B,L] -> float32 [B]."""
    variables = {"params": params}
    hidden = module.apply(variables, tokens)
    logits = module.apply(variables, hidden, method="itm_logits")
    return jax.nn.log_softmax(logits, axis=-1)[:, 1]


def _start(params, config: DecodeConfig, low_rank: bool) -> guidance.Shift:
    pattern = ".*" if config.guidance == "literal" else config.update_set
    return guidance.begin(params, pattern, low_rank)


def shift(
    module, params, tokens: jax.Array, config: DecodeConfig, scale=1.0, below=None,
    start: guidance.Shift | None = None,
):  # fmt: skip
    """Parameters moved to make this one sequence match.

    Args:
      module: the model.
      params: nested dict.
      tokens: int32 [L].
      config: rule, step size, number of steps, update set and form.
      scale: factor on the change.
      below: [L,D], see `GPTFace.__call__`.
      start: where they were moved to before.

    Returns:
      (guidance.Shift, log p(q=1) before it, last hidden states before it [L,D]).

    Raises:
      UserError: the update set is empty.
    """
    shifted = start or _start(params, config, config.low_rank(module.config))
    first = None
    for _ in range(config.num_steps):
        value, hidden, gradient = guidance.value_and_gradient(
            module, params, shifted, tokens, below
        )
        first = first or (value, hidden)
        shifted = guidance.step(
            config.guidance, config.step_size, params, shifted, gradient, scale
        )
    return shifted, *first


def side_logits(
    module, variables, tokens: jax.Array, config: DecodeConfig, below=None, hidden=None
) -> dict[str, jax.Array]:
    """Logits over each decoded modality's own ids: side -> float32 [P,V].

    Args:
      module, variables: the model and `Shift.variables`.
      tokens: int32 [L].
      config: side, match token and equation 6.
      below: [L,D], see `GPTFace.__call__`.
      hidden: [L,D], the last states where they are known.
    """
    if hidden is None:
        seen, row = _seen(module, tokens, config)
        below = None if below is None else below[None]
        hidden = guidance.apply(module, variables, seen[None], row, below=below)[0]
    return {
        side: guidance.apply(
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


def _commit(carry: _Carry, scores, match, remaining, key, model, config) -> _Carry:
    """One sample's iteration, given its scores: side -> [P,V]."""
    layout, vocab = model.layout, model.vocab
    distances = {
        "image": sampling.grid_distances(layout.grid),
        "text": sampling.line_distances(layout.max_text_tokens),
    }
    offsets = {"image": vocab.text_size, "text": 0}
    key = jax.random.fold_in(key, carry.iteration)
    # Linear from the first temperature to the last over the sample's own run.
    temperature = config.temperature_end + remaining * (
        config.temperature - config.temperature_end
    )
    drawn = carry.tokens
    confidence = jnp.full(layout.length, -jnp.inf)
    ring = jnp.full(layout.length, sampling.FAR)
    for side, where in config.slices(layout).items():
        offered = scores[side]
        if side == "image" and config.watermark:
            codes = vocab.joint_to_image(carry.tokens[where])  # below 0 where open
            offered += config.watermark * watermark.favoured(
                config.watermark_key,
                codes,
                layout.grid[1],
                vocab.codebook_size,
                config.watermark_left,
            )
        ids, sure = sampling.sample(offered, temperature, trees.stream(key, side))
        drawn = drawn.at[where].set(ids + offsets[side])
        confidence = confidence.at[where].set(sure)
        if config.select == "boundary":
            given = ~carry.is_open[where] & (carry.tokens[where] != vocab.pad_id)
            ring = ring.at[where].set(sampling.rings(distances[side], given))
    noise = jax.random.gumbel(trees.stream(key, "order"), (layout.length,))
    confidence += config.confidence_noise * remaining * noise
    commit = sampling.commit_mask(ring, confidence, carry.is_open, config.k)
    return carry.replace(
        tokens=jnp.where(commit, drawn, carry.tokens),
        is_open=carry.is_open & ~commit,
        iteration=carry.iteration + 1,
        itm_log_prob=carry.itm_log_prob.at[carry.iteration].set(match),
        committed_at=jnp.where(commit, carry.iteration, carry.committed_at),
    )


def _predict(
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
    start, belows = None, (None,) * len(passes)
    depth = module.config.transformer.num_layers
    if config.last_blocks > depth:
        raise UserError(f"last_blocks is {config.last_blocks}; the model has {depth}")
    if 0 < config.last_blocks < depth:
        stop = depth - config.last_blocks
        first, share = gptface_model.some_layers(module, params, 0, stop)
        module, params = gptface_model.some_layers(module, params, stop, depth)
        states = functools.partial(first.apply, {"params": share}, method="states")
        start = states(tokens)
        belows = tuple(states(*_seen(module, tokens, view)) for view in passes)
    if config.guidance != "none":
        module = guidance.unrolled(module)
    weight = config.last_cfg + remaining * (config.cfg - config.last_cfg)

    def logits(variables, tokens, weight, belows, hidden=None):
        """One sample's."""
        found = [
            side_logits(
                module, variables, tokens, view, below, hidden if i == 0 else None
            )
            for i, (view, below) in enumerate(zip(passes, belows))
        ]
        if words is not None and "text" in found[0]:
            found[0]["text"] = jnp.where(words, found[0]["text"], -jnp.inf)
        if len(found) == 1:
            return found[0]
        return jax.tree.map(lambda z, null: null + weight * (z - null), *found)

    seen = (tokens, weight, belows)
    unmoved = functools.partial(logits, {"params": params})
    if config.guidance == "none":
        unknown = jnp.full(len(tokens), jnp.nan)
        return _scores(jax.vmap(unmoved)(*seen), config), unknown, None
    # The gradient's own forward pass is the plain one, where it saw the same.
    told = config.match_token and module.config.match_token
    same = not config.eq6 and not told
    if config.guidance == "embedding":
        change, match, hidden = jax.vmap(
            lambda row, below: _embedding_gain(module, params, row, config, below)
        )(tokens, start)
    else:
        scale = jnp.ones(len(tokens))
        if config.eta_growth:
            # Not 1 - mean(open): the mean of ones may exceed 1 in float32.
            scale = jnp.sqrt(jnp.mean(~is_open[:, layout.image_slice], axis=1))
        change, match, hidden = jax.vmap(
            lambda row, *given: shift(module, params, row, config, *given)
        )(tokens, scale, start, before)
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


def _embedding_gain(module, params, tokens, config: DecodeConfig, below):
    """What the ids of each side gain by the gradient at their embeddings (A.9.4).

    Returns:
      (side -> [P,V], log p(q=1), last hidden states [L,D]).
    """
    if below is not None:
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


@functools.partial(jax.jit, static_argnames=("module", "config"))
def decode(
    module: gptface_model.GPTFace,
    params,
    tokens: jax.Array,
    known: jax.Array,
    config: DecodeConfig,
    key: jax.Array,
    words: jax.Array | None = None,
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

    Returns:
      A DecodeResult after exactly ceil(open / k) iterations a sample.
    """
    if key.ndim == 0:
        key = jax.vmap(lambda b: jax.random.fold_in(key, b))(
            jnp.arange(tokens.shape[0])
        )
    slices = config.slices(module.config.layout).values()
    decoded = np.zeros(tokens.shape[1], bool)
    for where in slices:
        decoded[where] = True
    is_open = ~known & decoded
    total = jnp.sum(is_open, axis=1)
    bound = -(-int(decoded.sum()) // config.k)
    commit = functools.partial(_commit, model=module.config, config=config)

    predict = functools.partial(_predict, module, params, config, words)
    if config.guidance != "none" and 0 < config.at_once < len(tokens):
        predict = functools.partial(_in_turns, predict, config.at_once)

    def body(carry: _Carry) -> _Carry:
        remaining = jnp.sum(carry.is_open, axis=1) / jnp.maximum(total, 1)  # 1 -> 0
        scores, match, change = predict(
            carry.tokens, carry.is_open, remaining, carry.moved
        )
        after = jax.vmap(commit)(carry, scores, match, remaining, key)
        if not config.restore:
            after = after.replace(moved=change)
        busy = jnp.any(carry.is_open, axis=1)

        def keep(new, old):
            return jnp.where(busy.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(keep, after, carry)

    carry = _Carry(
        tokens=jnp.where(is_open, module.config.vocab.mask_id, tokens),
        is_open=is_open,
        iteration=jnp.zeros(len(tokens), jnp.int32),
        itm_log_prob=jnp.full((len(tokens), bound), jnp.nan),
        committed_at=jnp.full(tokens.shape, -1),
    )
    if not config.restore:
        own = _start(params, config, low_rank=False)
        repeated = jax.tree.map(lambda x: jnp.repeat(x[None], len(tokens), 0), own)
        carry = carry.replace(moved=repeated)
    end = jax.lax.while_loop(lambda c: jnp.any(c.is_open), body, carry)
    result = DecodeResult(
        tokens=end.tokens,
        itm_log_prob=end.itm_log_prob,
        num_iterations=end.iteration,
        committed_at=end.committed_at,
    )
    return _traced(module, params, result) if config.untold else result


def _traced(module, params, result: DecodeResult) -> DecodeResult:
    """With log p(q=1) of what was known before each iteration."""

    def before(i, match):
        later = result.committed_at >= i
        tokens = jnp.where(later, module.config.vocab.mask_id, result.tokens)
        found = itm_log_prob(module, params, tokens)
        return match.at[:, i].set(jnp.where(i < result.num_iterations, found, jnp.nan))

    last = jnp.max(result.num_iterations)
    match = jax.lax.fori_loop(0, last, before, result.itm_log_prob)
    return result.replace(itm_log_prob=match)


@functools.partial(jax.jit, static_argnames=("module", "config", "candidates"))
def rerank(
    module: gptface_model.GPTFace,
    params,
    tokens: jax.Array,
    known: jax.Array,
    config: DecodeConfig,
    key: jax.Array,
    candidates: int,
) -> tuple[DecodeResult, jax.Array]:
    """Decodes every sequence several times and keeps what matches best (A.9.4).

    Args:
      module, params, tokens, known, config: see `decode`.
      key: keys [B]; candidate i of sample b has fold_in(key[b], i).
      candidates: N, of each sequence.

    Returns:
      (DecodeResult of the best, log p(q=1) of all the finished ones, float32 [B,N]).
    """
    size = len(tokens)
    number = jnp.tile(jnp.arange(candidates), size)
    keys = jax.vmap(jax.random.fold_in)(jnp.repeat(key, candidates), number)
    result = decode(
        module,
        params,
        jnp.repeat(tokens, candidates, axis=0),
        jnp.repeat(known, candidates, axis=0),
        dataclasses.replace(config, trace=False),
        keys,
    )
    scores = itm_log_prob(module, params, result.tokens).reshape(size, candidates)
    best = jnp.arange(size) * candidates + jnp.argmax(scores, axis=1)
    result = jax.tree.map(lambda x: x[best], result)
    return _traced(module, params, result) if config.untold else result, scores
