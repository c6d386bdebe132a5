"""A classifier trained apart, which says what pictures show."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.core.perception_tasks import EXPRESSIONS
from gptface_jax.data import image, phrases
from gptface_jax.data.record import Record
from gptface_jax.evaluate import edits
from gptface_jax.pipelines import batching, networks
from gptface_jax.protocols import samples
from gptface_jax.protocols.records import pictures_of


class Judge:
    """The classifier on uint8 pictures of any size, in batches."""

    def __init__(self, network: networks.Network, batch_size: int = 64):
        self.attributes = tuple(network.config.attributes)
        self.size, self.batch_size = network.config.resolution, batch_size
        apply = functools.partial(network.module.apply, {"params": network.params})
        self._logits = jax.jit(apply)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Verdicts bool [B,A] on pictures uint8 [B,S,S,3]: what is present."""
        return self.logits(images) > 0

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Scores float32 [B,A]: positive where an attribute is seen."""
        side = self.size, self.size

        def logits(images):
            small = np.stack([image.resize(picture, side) for picture in images])
            return self._logits(image.to_unit_range(small))

        return batching.run(logits, [images], self.batch_size)

    def check(self, attributes: Sequence[str]) -> None:
        """Refuses an attribute that the judge does not know.

        Raises:
          UserError: there is one.
        """
        for name in attributes:
            if name not in self.attributes:
                raise UserError(
                    f"the judge does not know '{name}'; it knows "
                    + ", ".join(self.attributes)
                )

    def balanced_accuracy(self, records: Sequence[Record]) -> dict[str, float]:
        """Balanced accuracy by attribute, on records with confident labels."""
        said = self(pictures_of(records, self.size))
        result = {}
        for i, name in enumerate(self.attributes):
            truth = [phrases.known(r.labels or {}, name) for r in records]
            sure = np.array([t is not None for t in truth])
            right = np.array([bool(t) for t in truth])
            result[name] = edits.balanced_accuracy(said[sure, i], right[sure])
        return result

    def expressions(self, records: Sequence[Record]) -> list[dict[str, str]]:
        """Predictions for `protocols.folds`: the surest of the expressions it knows.

        Of records with one of them; others are left out.

        Raises:
          UserError: it tells fewer than two expressions, or no record has one.
        """
        known = [name for name in self.attributes if name in EXPRESSIONS]
        if len(known) < 2:
            raise UserError(
                "this judge tells no expressions apart; train one by "
                "configs/judge/faces64.py:expressions"
            )
        some = [r for r in records if r.expression in known]
        if not some:
            raise UserError(f"none of {len(records)} pictures has an expression")
        places = [self.attributes.index(name) for name in known]
        logits = self.logits(pictures_of(some, self.size))[:, places]
        said = [known[i] for i in np.argmax(logits, -1)]
        return [
            {"task": "expression", **samples.named(r), "truth": r.expression, "said": s}
            for r, s in zip(some, said)
        ]


def on_pictures(network: networks.Network, method: str = "__call__") -> Callable:
    """A method of a network as a function of pictures [B,H,W,3] of any size.

    They are resized to the network's own resolution (antialiased Lanczos).
    """
    side = network.config.resolution

    @jax.jit
    def run(params, picture):
        shape = (picture.shape[0], side, side, picture.shape[3])
        if picture.shape != shape:
            picture = jax.image.resize(picture, shape, "lanczos3")
        return network.module.apply({"params": params}, picture, method=method)

    return functools.partial(run, jax.device_put(network.params))
