"""Seeds and texts as people give them."""

from __future__ import annotations

import jax

from gptface_jax.core.errors import UserError
from gptface_jax.data.text import TextTokenizer


def unknown_words(tokenizer: TextTokenizer, text: str) -> list[str]:
    """A note on the words of a text that a model does not understand, if there are any.

    Raises:
      UserError: it understands none.
    """
    ids, words = tokenizer.encode([text])[0], tokenizer.understood(text)
    if not words or (ids[ids != tokenizer.pad_id] == tokenizer.unk_id).all():
        raise UserError(
            f"no word of the text '{text[:60]}' is known to this model; use plain "
            "English, e.g. 'a smiling woman with glasses'"
        )
    unknown = [word for word, known in words.items() if not known]
    if not unknown:
        return []
    named = ", ".join(word[:30] for word in unknown[:5])
    return [
        f"the model understands {len(words) - len(unknown)} of the {len(words)} words "
        f"of '{text[:60]}', not: {named}{', ...' if unknown[5:] else ''}; plain "
        "English works best"
    ]


def key_of(seed: int) -> jax.Array:
    """The random key of a seed.

    Raises:
      UserError: a seed that does not fit into 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise UserError(f"seed is {seed}; use 0 to {2**32 - 1}")
    return jax.random.key(seed)
