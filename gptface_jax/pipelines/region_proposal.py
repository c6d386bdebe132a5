"""Where a sentence wants a photo changed: masks without a user (SPEC E.2).

Either by the match: how much would the match of picture and sentence, less that of the
picture and a neutral sentence, gain if one token were not known? Tokens that contradict
the sentence stand out. Or by the likelihood: where do the two sentences lead to
different tokens?

Where a sentence names an attribute, the place in which that shows on drawn faces counts
as well: no bundled model knows it better.
"""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions, image, synthetic
from gptface_jax.pipelines.editor import Editor
from gptface_jax.systems.gptface import guidance, predict
from gptface_jax.systems.gptface.model import MATCHED

LIKELIHOOD = "likelihood"
METHODS = ("gradient", "occlusion", LIKELIHOOD)
_MASKS = 16  # of "likelihood"
NEUTRAL = "a photo of a person"
AREA = 0.2  # of the picture, where a sentence names no attribute
_PAIRS = 24  # drawn faces that say where an attribute shows


@functools.partial(jax.jit, static_argnums=0)
def _slopes(module, params, tokens):
    """Gain float32 [B,L] of each position: <e_mask - e_j, d log p(q=1) / d e_j>."""

    def one(row):
        *_, slope, table = guidance.embedding_slopes(module, params, row)
        return jnp.sum(slope * (table[module.config.vocab.mask_id] - table[row]), -1)

    return jax.vmap(one)(tokens)


@functools.partial(jax.jit, static_argnums=0)
def _occluded(module, params, tokens):
    """Change [n] of the log odds of a match when 3 x 3 codes of int [L] are hidden."""
    layout, vocab = module.config.layout, module.config.vocab
    height, width = layout.grid
    row, column = np.divmod(np.arange(height * width), width)
    rows, columns = row[:, None] - row, column[:, None] - column
    neighbours = np.maximum(np.abs(rows), np.abs(columns)) <= 1
    hidden = np.zeros((height * width + 1, layout.length), bool)
    hidden[:-1, layout.image_slice] = neighbours
    log_prob = predict.itm_log_prob(
        module, params, jnp.where(hidden, vocab.mask_id, tokens)
    )
    odds = log_prob - jnp.log1p(-jnp.exp(jnp.minimum(log_prob, -1e-6)))
    return odds[:-1] - odds[-1]


@functools.partial(jax.jit, static_argnums=0)
def _divergence(module, params, tokens):
    """Divergence, nats [n], of the hidden codes' distributions under two texts [2,L].

    KL(p(code | first text) || p(code | second text)), where a random half of the codes
    is hidden and the match bit says that the text matches; means over `_MASKS` halves.
    """
    layout, vocab = module.config.layout, module.config.vocab
    n = layout.num_image_tokens
    order = jax.random.uniform(jax.random.key(0), (_MASKS // 2, n)).argsort(axis=1)
    first = order < n // 2
    halves = jnp.concatenate([first, ~first])

    def one(half):
        hidden = jnp.zeros(layout.length, bool).at[layout.image_slice].set(half)
        seen = jnp.where(hidden, vocab.mask_id, tokens)
        variables, match = {"params": params}, jnp.full(2, MATCHED)
        states = module.apply(variables, seen, match)[:, layout.image_slice]
        logits = module.apply(variables, states, method="image_logits")
        wanted, now = jax.nn.log_softmax(logits)
        return jnp.where(half, jnp.sum(jnp.exp(wanted) * (wanted - now), axis=-1), 0.0)

    return jnp.sum(jax.lax.map(one, halves), axis=0) / jnp.sum(halves, axis=0)


def saliency(
    editor: Editor,
    pixels: np.ndarray,
    text: str,
    source: str,
    method: str,
) -> np.ndarray:
    """Score of each token of a picture by how much it stands against a sentence.

    Args:
      editor: the networks.
      pixels: uint8 [1,S,S,3].
      text: what should be seen.
      source: what is seen now, or a neutral sentence.
      method: "occlusion" hides 3 x 3 tokens at a time, "gradient" takes the slope at
        the token's embedding, both of the match; "likelihood" hides random halves and
        asks how the two sentences disagree about what is there.

    Returns:
      float32 [h,w].

    Raises:
      UserError: an unknown method.
    """
    if method not in METHODS:
        raise UserError(f"method '{method}' is none of {', '.join(METHODS)}")
    layout = editor.layout
    ids = np.repeat(editor.image_ids(pixels), 2, axis=0)
    tokens = editor.tokens(ids, [text, source])
    module, params = editor.module, editor.params
    if method == LIKELIHOOD:
        found = _divergence(module, params, tokens)
        return np.asarray(found).reshape(layout.grid)
    if method == "gradient":
        wanted, now = np.asarray(_slopes(module, params, tokens))[:, layout.image_slice]
    else:
        wanted, now = (np.asarray(_occluded(module, params, row)) for row in tokens)
    return (wanted - now).reshape(layout.grid)


def mask_tokens(
    salience: np.ndarray, area: float, prior: np.ndarray | None = None
) -> np.ndarray:
    """The tokens that stand out: means of 3 x 3, the highest, their largest pieces.

    Args:
      salience: float [h,w].
      area: share of the tokens to take.
      prior: float [h,w] >= 0, how much each token counts beforehand.

    Returns:
      bool [h,w].
    """
    from scipy import ndimage

    smooth = ndimage.uniform_filter(salience.astype(np.float64), 3, mode="nearest")
    smooth = (smooth - smooth.min()) / max(np.ptp(smooth), 1e-12)
    if prior is not None:
        smooth = prior * (0.4 + 0.6 * smooth)
    count = max(1, round(area * smooth.size))
    # What never counts is not taken, even where fewer are left than asked for.
    chosen = (smooth >= np.sort(smooth.ravel())[-count]) & (smooth > 0)
    labels, number = ndimage.label(chosen)
    sizes = ndimage.sum_labels(chosen, labels, np.arange(1, number + 1))
    return np.isin(labels, 1 + np.flatnonzero(sizes >= sizes.max() / 2))


def changed_tokens(
    before: synthetic.Factors, name: str, grid: tuple[int, int]
) -> tuple[bool, np.ndarray]:
    """Tokens of a drawn face that change when an attribute is given or taken away.

    Returns:
      (whether it is given, bool [h,w]).
    """
    present = synthetic.labels(before)[name] < 0.5
    after = synthetic.set_attribute(before, name, present)
    changed = synthetic.edit_mask(before, after, 8 * max(grid))
    return present, image.pixels_to_tokens(changed, grid)


@functools.cache
def attribute_prior(name: str, grid: tuple[int, int]) -> np.ndarray:
    """Share of drawn faces in which an attribute changes a token; float [h,w].

    Args:
      name: of `synthetic.ATTRIBUTES`.
      grid: (h, w).
    """
    faces = synthetic.SyntheticFaces(count=20 * _PAIRS, seed=4321)
    found = (changed_tokens(faces.factors(i), name, grid)[1] for i in range(len(faces)))
    seen = itertools.islice((x for x in found if x.any()), _PAIRS)
    return np.mean(list(seen), axis=0)


def text_prior(text: str, grid: tuple[int, int]) -> np.ndarray | None:
    """Map float [h,w] of where a sentence's attributes show; None without any."""
    known = [n for n in captions.named(text) if n in synthetic.ATTRIBUTES]
    return np.max([attribute_prior(n, grid) for n in known], axis=0) if known else None


def propose(
    editor: Editor,
    pixels: np.ndarray,
    text: str,
    source: str = NEUTRAL,
    method: str = LIKELIHOOD,
    area: float | None = None,
    aligned: bool = True,
) -> np.ndarray:
    """Tokens of a picture that an edit should draw anew.

    Args:
      editor: the networks.
      pixels: uint8 [S,S,3].
      text, source, method: see `saliency`.
      area: share of the tokens to take; default what the attributes of the sentence
        usually take, else `AREA`.
      aligned: the picture is filled by an upright face, so that `text_prior` counts.

    Returns:
      bool [h,w].
    """
    prior = text_prior(text, editor.grid) if aligned else None
    if area is None:
        area = AREA if prior is None else float(prior.mean())
    salience = saliency(editor, pixels[None], text, source, method)
    return mask_tokens(salience, area, prior)
