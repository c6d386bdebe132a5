"""Ages as words, as digits, or as targets that know their neighbours (SPEC B.7.2)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.label_text import DataSet, Key
from gptface_jax.data.label_values import Integer

AGE_TOKENS = ("word", "digits", "ordinal")
NUMBERS = 120  # 0 to 119 have soft targets
REACH = 5  # numbers on each side that a soft target spreads over


def with_age_tokens(
    data_sets: Mapping[str, DataSet], age_tokens: str
) -> dict[str, DataSet]:
    """The data sets with numbers written as `age_tokens` says.

    "word" writes 25, or as the key says (`Integer.apart`); "digits" 2 5; "ordinal" 25:
    it changes what is predicted, see `ordinal_targets`.

    Raises:
      UserError: another word.
    """
    if age_tokens not in AGE_TOKENS:
        raise UserError(f"age_tokens '{age_tokens}'; use {', '.join(AGE_TOKENS)}")
    if age_tokens == "word":
        return dict(data_sets)
    number = Integer(apart=age_tokens == "digits")

    def changed(key: Key) -> Key:
        is_number = isinstance(key.kind, Integer)
        return dataclasses.replace(key, kind=number) if is_number else key

    return {
        name: dataclasses.replace(d, keys=tuple(map(changed, d.keys)))
        for name, d in data_sets.items()
    }


def ordinal_targets(
    number: int, number_ids: np.ndarray, reach: int = REACH, spread: float = 2.0
) -> tuple[np.ndarray, np.ndarray]:
    """Soft targets over a number and its neighbours (SPEC B.7.2, age_tokens "ordinal").

    The weights are those of a Gaussian of the distance, cut off at `reach` and at the
    ends of the range, and add up to 1.

    Args:
      number: the true one, 0..N-1.
      number_ids: int [N], the token of each number.
      reach: so many numbers on each side.
      spread: standard deviation of the Gaussian.

    Returns:
      (ids int32 [2 * reach + 1], weights float32 likewise); where a neighbour is out of
      the range, the weight is 0 and the id that of `number`.
    """
    near = np.arange(number - reach, number + reach + 1)
    inside = (near >= 0) & (near < len(number_ids))
    weights = np.exp(-0.5 * ((near - number) / spread) ** 2) * inside
    ids = number_ids[np.where(inside, near, number)]
    return ids.astype(np.int32), (weights / weights.sum()).astype(np.float32)
