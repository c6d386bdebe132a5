"""Options of the decoder, by what they concern; flat names are the public ones.

The groups are the bases of `DecodeConfig`: a function that needs one of them only says
so, and is handed the whole.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re

from gptface_jax.nn.sequence import SequenceLayout
from gptface_jax.ops import guidance as ops_guidance
from gptface_jax.ops import watermark
from gptface_jax.systems.gptface import model as gptface_model

SIDES = ("image", "text", "both")
SELECTIONS = ("boundary", "global", "halton")
CONFIDENCES = ("drawn", "entropy")
GUIDANCE = ("none", *ops_guidance.RULES, "embedding")
FORMS = ("auto", "explicit", "low_rank")
# Products that take as long as one byte from memory, by kind of device.
_BALANCE = {"cpu": 6}
# The last quarter of the positions stays as it is committed.
REMASK_UNTIL = 0.25
# Blocks and final norm; never embeddings, output layers or the matching head,
# which could raise the score without changing the picture (SPEC A.9.3).
UPDATE_SET = r"^transformer/"


@dataclasses.dataclass(frozen=True)
class Committing:
    """Options of which tokens are drawn, how, and in which order.

    Attributes:
      k: tokens committed per iteration.
      side: which modality may hold open positions.
      select: "boundary" commits next to known tokens first, "global" by
        confidence alone, "halton" in an order that is spread over the grid.
      temperature, temperature_end: of sampling, falling linearly.
      density: width within which codes count as similar, in distances of a code to the
        nearest other one. The temperature then acts on probability per volume of the
        codebook's space, and not on single codes, of which those that resemble no other
        would be preferred (`ops.sampling.for_temperature`); 0 turns it off, and at
        temperature 1 it does nothing. For codebooks with many similar codes: 1.
      confidence_noise: Gumbel noise on confidences, annealed to 0.
      raw_confidence: rank by logits (with fusion, by their mixture) instead of
        log-probabilities (literal).
      confidence: "drawn", the score of the token that was drawn, or "entropy": how
        sure the model is of a position before it is drawn. Of tokens that are drawn
        first and chosen after, likely ones are chosen, as at a lower temperature.
      remask: share of `k` that an iteration takes back, the committed tokens of which
        the model was least sure, while more than `REMASK_UNTIL` of the positions are
        open; as many more are committed, so that it takes no longer.
      refresh: iterations from one pass over all positions to the next. In between the
        positions that are not decoded keep the keys and values that they had there,
        which costs as much less as there are more of them; 0 makes that pass at the
        start alone. Of pictures and without guidance, whose gradient needs them all.
      prune_at: shares of the iterations after which candidates that match worst are
        given up, down to one after the last (SPEC E.14); () keeps all to the end.
    """

    k: int = 8
    side: str = "image"
    select: str = "boundary"
    temperature: float = 1.0
    temperature_end: float = 0.7
    density: float = 0.0
    confidence_noise: float = 1.0
    raw_confidence: bool = False
    confidence: str = "drawn"
    remask: float = 0.0
    refresh: int = 1
    prune_at: tuple[float, ...] = ()

    def check(self) -> None:
        """Raises ValueError for values that make no sense; so do the other groups'.

        The groups do not check themselves when they are made: `DecodeConfig` calls the
        checks of all of them once, on the whole.
        """
        _one_of(self, side=SIDES, select=SELECTIONS, confidence=CONFIDENCES)
        if self.k < 1:
            raise ValueError(f"k is {self.k}; commit at least 1 token an iteration")
        _not_negative(
            self, "temperature", "temperature_end", "density", "confidence_noise",
            "remask", "refresh",
        )  # fmt: skip
        try:
            shares = (0.0, *map(float, self.prune_at), 1.0)
            rising = all(a < b for a, b in itertools.pairwise(shares))
        except (TypeError, ValueError):
            rising = False
        if not rising:
            raise ValueError(
                f"prune_at is {self.prune_at!r}; give rising shares between 0 and 1, "
                "such as (0.3, 0.6)"
            )

    def survivors(self, candidates: int) -> tuple[tuple[float, int], ...]:
        """(share of the iterations, candidates that are kept after it), one at last.

        They fall by the same factor each time: 16 with two prunings to 4 and 1.
        """
        if not self.prune_at:
            return ((1.0, 1),)
        count = len(self.prune_at)
        kept = (round(candidates ** (1 - i / count)) for i in range(1, count + 1))
        return tuple(zip(self.prune_at, kept))

    def passes(self, candidates: int) -> float:
        """Cost of all candidates as a multiple of one; their matching not counted."""
        cost, before, alive = 0.0, 0.0, candidates
        for share, kept in (*self.survivors(candidates), (1.0, 1)):
            cost += (share - before) * alive
            before, alive = share, kept
        return cost

    def slices(self, layout: SequenceLayout) -> dict[str, slice]:
        """Positions of each decoded side."""
        both = {"image": layout.image_slice, "text": layout.text_slice}
        return {s: where for s, where in both.items() if self.side in (s, "both")}


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Options of how the text enters sampling.

    Attributes:
      eq6: hide the text while sampling (equation 6 as printed).
      match_token: sample with the match control row MATCHED, where trained.
      cfg, cfg_end: classifier-free guidance w of z_null + w (z_text - z_null), going
        linearly from the first to the second, by default constant; 1 turns it off.
        The model must have seen pictures without texts (`objective.null_fraction`,
        or empty captions).
    """

    eq6: bool = False
    match_token: bool = True
    cfg: float = 1.0
    cfg_end: float | None = None

    def check(self) -> None:
        _not_negative(self, "cfg", *(["cfg_end"] if self.cfg_end is not None else []))

    @property
    def uses_cfg(self) -> bool:
        """Whether classifier-free guidance does anything."""
        return (self.cfg, self.last_cfg) != (1.0, 1.0)

    @property
    def last_cfg(self) -> float:
        """Weight of classifier-free guidance at the end."""
        return self.cfg if self.cfg_end is None else self.cfg_end


@dataclasses.dataclass(frozen=True)
class Steering:
    """Options of how the parameters follow the gradient of log p(q=1).

    Attributes:
      guidance: "none", a rule of `ops.guidance.RULES`, or "embedding": no parameter
        moves, code v gains step_size * <e_v - e_mask, d log p(q=1) / d e_j>.
      step_size: lambda of "literal" and "ascent", eta of the normalised rules.
      num_steps: inner ascent steps per iteration.
      form: of a sample's parameters: "explicit" has arrays of their own, "low_rank"
        has none (see `nn.low_rank`); "auto" takes what costs less, see `settled`.
      update_set: regex of parameter paths that guidance may change; "literal"
        changes all parameters, as printed.
      last_blocks: guidance may change the last so many layers only, which is cheaper;
        0 for all.
      at_once: samples of a batch that are worked on at a time, which bounds the memory;
        0 for all.
      kl_max: trust region, mean over all open positions in nats; 0 turns it off.
      fusion: gamma of p_shifted^gamma * p^(1-gamma); 1 turns it off. Neither is
        applied to "literal".
      eta_growth: scale the step by sqrt(1 - open / image tokens).
      restore: start every iteration from the model's own parameters, as the paper does;
        otherwise the shifts add up (claim G5).
    """

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

    def check(self) -> None:
        _one_of(self, guidance=GUIDANCE, form=FORMS)
        if self.num_steps < 1:
            raise ValueError(
                f"num_steps is {self.num_steps}; use 1 or more, or guidance 'none'"
            )
        _not_negative(self, "step_size", "kl_max", "last_blocks", "at_once")
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

    def settled(self, model: gptface_model.GPTFaceConfig, platform: str):
        """The options with the form that costs less on a "cpu", "gpu" or "tpu".

        For a weight, the explicit form multiplies L times and moves it and its gradient
        six times; the low-rank form compares L x L positions for the norm and again for
        the read, which a row and a column of weights share.
        """
        if self.form != "auto":
            return self
        length, width = model.layout.length, model.transformer.width
        explicit = 2 * length + 6 * 4 * _BALANCE.get(platform, 100)
        cheaper = self.restore and 4 * length**2 * 2 / width < explicit
        return dataclasses.replace(self, form="low_rank" if cheaper else "explicit")

    @property
    def low_rank(self) -> bool:
        """Whether the form is the low-rank one.

        Raises:
          ValueError: it is not settled.
        """
        if self.form == "auto":
            raise ValueError("form 'auto' depends on the device; use config.settled")
        return self.form == "low_rank"


@dataclasses.dataclass(frozen=True)
class Marking:
    """Options of what the result reports, and of the watermark hidden in it.

    Attributes:
      trace: report log p(q=1) before each iteration without guidance too, which takes
        one more pass an iteration of what is returned.
      watermark: what a keyed half of the codes gains at open image positions, in nats;
        0 turns it off. See `ops.watermark`, `pipelines.watermark_detection`.
      watermark_key: the secret, 0 to 2**64 - 1.
      watermark_left: the half depends on the left neighbour's code too, where that is
        known when a position is filled (literal).
    """

    trace: bool = False
    watermark: float = 0.0
    watermark_key: int = 0
    watermark_left: bool = False

    def check(self) -> None:
        _not_negative(self, "watermark")
        watermark.check_key(self.watermark_key)


_GROUPS = (Committing, Steering, Conditioning, Marking)


@dataclasses.dataclass(frozen=True)
class DecodeConfig(Marking, Conditioning, Steering, Committing):
    """All options of the decoder, hashable: static under jit. The bases explain them.

    Fields come in the order of `_GROUPS`, the reverse of the bases.
    """

    def __post_init__(self):
        for group in _GROUPS:
            group.check(self)
        if self.uses_cfg and (self.eq6 or self.side != "image"):
            raise ValueError(
                "cfg compares codes with and without the text; it needs side 'image' "
                "and no eq6. cfg=1 turns it off"
            )
        if self.refresh != 1 and (self.guidance != "none" or self.side != "image"):
            raise ValueError(
                f"refresh is {self.refresh}; keys are kept of pictures (side 'image') "
                "without guidance: leave it 1, or set guidance 'none'"
            )

    @property
    def traced_afterwards(self) -> bool:
        """Whether log p(q=1) is asked for and takes passes of its own.

        Guidance computes it anyway.
        """
        return self.trace and self.guidance == "none"

    def forwards(self, has_match_token: bool) -> int:
        """Cost of an iteration in forward passes; a backward pass counts as two.

        Without the shorter step that a trust region may ask for.

        Args:
          has_match_token: whether the model was trained with the match token.
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
            matched = has_match_token and self.match_token
            same = not (self.eq6 or matched) and self.restore
            cost += passes - same
        return cost


def _one_of(options, **choices: tuple[str, ...]) -> None:
    for name, known in choices.items():
        if (value := getattr(options, name)) not in known:
            raise ValueError(f"{name} {value!r} is none of {', '.join(known)}")


def _not_negative(options, *names: str) -> None:
    for name in names:
        value = getattr(options, name)
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} is {value}; use a number from 0 on")
