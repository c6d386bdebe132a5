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

from gptface_jax.core import trees
from gptface_jax.ops import guidance as ops_guidance
from gptface_jax.ops import sampling
from gptface_jax.systems.gptface import guidance
from gptface_jax.systems.gptface import model as gptface_model

SIDES = ("image", "text", "both")
SELECTIONS = ("boundary", "global")
FORMS = ("auto", "explicit", "low_rank")
# Blocks and final norm; never embeddings, output layers or the matching head,
# which could raise the score without changing the picture (SPEC A.9.3).
UPDATE_SET = r"^transformer/"


@dataclasses.dataclass(frozen=True)
class DecodeConfig:
    """Options of the decoder; hashable, static under jit.

    Attributes:
      k: tokens committed per iteration.
      guidance: "none" or a rule of `ops.guidance.RULES`.
      step_size: lambda of "literal" and "ascent", eta of the normalised rules.
      num_steps: inner ascent steps per iteration.
      form: of a sample's parameters: "explicit" has arrays of their own, "low_rank"
        has none (see `guidance`); "auto" takes what costs less.
      update_set: regex of parameter paths that guidance may change; "literal"
        changes all parameters, as printed.
      kl_max: trust region, mean over all open positions in nats; 0 turns it off.
      fusion: gamma of p_shifted^gamma * p^(1-gamma); 1 turns it off. Neither is
        applied to "literal".
      eta_growth: scale the step by sqrt(1 - open / image tokens).
      eq6: hide the text while sampling (equation 6 as printed).
      match_token: sample with the match control row MATCHED, where trained.
      side: which modality may hold open positions.
      select: "boundary" commits next to known tokens first, "global" by
        confidence alone.
      temperature, temperature_end: of sampling, falling linearly.
      confidence_noise: Gumbel noise on confidences, annealed to 0.
      raw_confidence: rank by logits (with fusion, by their mixture) instead of
        log-probabilities (literal).
    """

    k: int = 8
    guidance: str = "ascent_norm"
    step_size: float = 1e-2
    num_steps: int = 1
    form: str = "auto"
    update_set: str = UPDATE_SET
    kl_max: float = 0.5
    fusion: float = 0.9
    eta_growth: bool = False
    eq6: bool = False
    match_token: bool = True
    side: str = "image"
    select: str = "boundary"
    temperature: float = 1.0
    temperature_end: float = 0.7
    confidence_noise: float = 1.0
    raw_confidence: bool = False

    def __post_init__(self):
        known = ("none", *ops_guidance.RULES)
        for name, value, choices in (
            ("guidance", self.guidance, known),
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
        ):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is {value}; use a number from 0 on")
        if not 0 <= self.fusion <= 1:
            raise ValueError(f"fusion is {self.fusion}; use 0 (unguided) to 1")
        try:
            re.compile(self.update_set)
        except re.error as error:
            raise ValueError(
                f"update_set {self.update_set!r} is no regular expression ({error}); "
                f"the default is {UPDATE_SET!r}"
            ) from None

    def low_rank(self, model: gptface_model.GPTFaceConfig) -> bool:
        """Whether this model is guided in the low-rank form."""
        return self.form != "explicit"


@flax.struct.dataclass
class DecodeResult:
    """What the loop returns.

    Attributes:
      tokens: int32 [B,L] joint ids, no [MASK] left on the decoded side.
      itm_log_prob: float32 [B,T] log p(q=1) before each iteration; NaN after
        a sample is done, and everywhere with guidance "none".
      num_iterations: int32 [B], exactly ceil(open / k).
      committed_at: int32 [B,L] iteration that filled a position, -1 for known.
    """

    tokens: jax.Array
    itm_log_prob: jax.Array
    num_iterations: jax.Array
    committed_at: jax.Array


@flax.struct.dataclass
class _Carry:
    tokens: jax.Array  # int32 [L], [MASK] where open
    is_open: jax.Array  # bool [L]
    iteration: jax.Array  # int32
    itm_log_prob: jax.Array  # float32 [T]
    committed_at: jax.Array  # int32 [L]


def itm_log_prob(module, params, tokens: jax.Array) -> jax.Array:
    """log p(q=1 | tokens), match bit unknown; [B,L] -> float32 [B]."""
    variables = {"params": params}
    hidden = module.apply(variables, tokens)
    logits = module.apply(variables, hidden, method="itm_logits")
    return jax.nn.log_softmax(logits, axis=-1)[:, 1]


def shift(module, params, tokens: jax.Array, config: DecodeConfig, scale=1.0):
    """Parameters moved to make this one sequence match.

    Args:
      module: the model.
      params: nested dict.
      tokens: int32 [L].
      config: rule, step size, number of steps, update set and form.
      scale: factor on the change.

    Returns:
      (guidance.Shift, log p(q=1) before it).

    Raises:
      UserError: the update set is empty.
    """
    pattern = ".*" if config.guidance == "literal" else config.update_set
    shifted = guidance.begin(params, pattern, config.low_rank(module.config))
    first = None
    for _ in range(config.num_steps):
        value, gradient = guidance.value_and_gradient(module, params, shifted, tokens)
        first = value if first is None else first
        shifted = guidance.step(
            config.guidance, config.step_size, params, shifted, gradient, scale
        )
    return shifted, first


def side_logits(
    module, variables, tokens: jax.Array, config: DecodeConfig
) -> dict[str, jax.Array]:
    """Logits over each decoded modality's own ids: side -> float32 [P,V]."""
    model_config = module.config
    layout, vocab = model_config.layout, model_config.vocab
    if config.eq6:
        text = jnp.arange(tokens.shape[0]) >= layout.text_slice.start
        tokens = jnp.where(text, vocab.pad_id, tokens)
    row = gptface_model.MATCHED if config.match_token else gptface_model.UNKNOWN
    hidden = guidance.apply(module, variables, tokens[None], jnp.array([row]))
    slices = {"image": layout.image_slice, "text": layout.text_slice}
    return {
        side: guidance.apply(
            module, variables, hidden[:, where], method=f"{side}_logits"
        )[0]
        for side, where in slices.items()
        if config.side in (side, "both")
    }


def _decode_one(module, params, tokens, known, key, config: DecodeConfig, bound: int):
    """Decodes one sequence; see `decode`."""
    model_config = module.config
    layout, vocab = model_config.layout, model_config.vocab
    slices = {"image": layout.image_slice, "text": layout.text_slice}
    distances = {
        "image": sampling.grid_distances(layout.grid),
        "text": sampling.line_distances(layout.max_text_tokens),
    }
    offsets = {"image": vocab.text_size, "text": 0}
    sides = [s for s in slices if config.side in (s, "both")]

    position = jnp.arange(layout.length)
    allowed = jnp.zeros(layout.length, bool)
    for side in sides:
        where = slices[side]
        allowed |= (position >= where.start) & (position < where.stop)
    is_open = ~known & allowed
    total = jnp.sum(is_open)

    def body(carry: _Carry) -> _Carry:
        key_now = jax.random.fold_in(key, carry.iteration)
        remaining = jnp.sum(carry.is_open) / jnp.maximum(total, 1)  # 1 -> 0
        scores, match = _predict(module, params, carry, config, sides, slices)

        # Linear from the first temperature to the last over the sample's own run.
        temperature = config.temperature_end + remaining * (
            config.temperature - config.temperature_end
        )
        drawn = carry.tokens
        confidence = jnp.full(layout.length, -jnp.inf)
        ring = jnp.full(layout.length, sampling.FAR)
        for side in sides:
            where = slices[side]
            ids, sure = sampling.sample(
                scores[side], temperature, trees.stream(key_now, side)
            )
            drawn = drawn.at[where].set(ids + offsets[side])
            confidence = confidence.at[where].set(sure)
            if config.select == "boundary":
                given = ~carry.is_open[where] & (carry.tokens[where] != vocab.pad_id)
                side_ring = sampling.rings(distances[side], given)
                ring = ring.at[where].set(side_ring)
        noise = jax.random.gumbel(trees.stream(key_now, "order"), (layout.length,))
        confidence += config.confidence_noise * remaining * noise
        commit = sampling.commit_mask(ring, confidence, carry.is_open, config.k)
        return _Carry(
            tokens=jnp.where(commit, drawn, carry.tokens),
            is_open=carry.is_open & ~commit,
            iteration=carry.iteration + 1,
            itm_log_prob=carry.itm_log_prob.at[carry.iteration].set(match),
            committed_at=jnp.where(commit, carry.iteration, carry.committed_at),
        )

    carry = _Carry(
        tokens=jnp.where(is_open, vocab.mask_id, tokens),
        is_open=is_open,
        iteration=jnp.int32(0),
        itm_log_prob=jnp.full(bound, jnp.nan),
        committed_at=jnp.full(layout.length, -1),
    )
    return jax.lax.while_loop(lambda c: jnp.any(c.is_open), body, carry)


def _predict(module, params, carry: _Carry, config: DecodeConfig, sides, slices):
    """Scores of each side under the shifted parameters, and log p(q=1).

    Scores are log-probabilities, or logits with `raw_confidence`.
    """

    def normalise(logits):
        return jax.tree.map(jax.nn.log_softmax, logits)  # over the last axis

    scores = (lambda logits: logits) if config.raw_confidence else normalise

    def predict(variables):
        return scores(side_logits(module, variables, carry.tokens, config))

    unshifted = {"params": params}
    if config.guidance == "none":
        return predict(unshifted), jnp.nan
    scale = jnp.float32(1.0)
    if config.eta_growth:
        # Not 1 - mean(open): the mean of ones may exceed 1 in float32.
        scale = jnp.sqrt(jnp.mean(~carry.is_open[slices["image"]]))
    shifted, match = shift(module, params, carry.tokens, config, scale)
    plain_needed = config.guidance != "literal" and (
        config.kl_max > 0 or config.fusion < 1
    )
    if not plain_needed:
        return predict(shifted.variables(params)), match
    plain = predict(unshifted)
    if config.kl_max > 0:
        is_open = {s: carry.is_open[slices[s]] for s in sides}
        moved = normalise(predict(shifted.variables(params)))
        kl = ops_guidance.kl_divergence(moved, normalise(plain), is_open)
        trust = ops_guidance.trust_scale(kl, config.kl_max)
        shifted = shifted.scaled(params, trust)
    moved = predict(shifted.variables(params))
    if config.fusion < 1:
        mix = functools.partial(ops_guidance.fuse, gamma=config.fusion)
        moved = scores(jax.tree.map(mix, moved, plain))
    return moved, match


@functools.partial(jax.jit, static_argnames=("module", "config"))
def decode(
    module: gptface_model.GPTFace,
    params,
    tokens: jax.Array,
    known: jax.Array,
    config: DecodeConfig,
    key: jax.Array,
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

    Returns:
      A DecodeResult after exactly ceil(open / k) iterations a sample.
    """
    layout = module.config.layout
    size = {"image": layout.num_image_tokens, "text": layout.max_text_tokens}
    most = sum(n for side, n in size.items() if config.side in (side, "both"))
    bound = -(-most // config.k)
    if key.ndim == 0:
        key = jax.vmap(lambda b: jax.random.fold_in(key, b))(
            jnp.arange(tokens.shape[0])
        )
    one = functools.partial(_decode_one, module, params, config=config, bound=bound)
    end = jax.vmap(lambda t, m, k: one(t, m, k))(tokens, known, key)
    return DecodeResult(
        tokens=end.tokens,
        itm_log_prob=end.itm_log_prob,
        num_iterations=end.iteration,
        committed_at=end.committed_at,
    )
