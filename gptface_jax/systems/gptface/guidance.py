"""GPTFace's guidance: raising log p(q=1) of one sample (SPEC A.9, E.1).

How its parameters are shifted, with or without arrays of their own, is
`nn.low_rank`'s; here are the score and what it costs.
"""

from __future__ import annotations

import jax

from gptface_jax.core import trees
from gptface_jax.core.types import Params
from gptface_jax.nn import low_rank, shifted_network
from gptface_jax.systems.gptface import model as gptface_model


def bytes_of_one(model: gptface_model.GPTFaceConfig) -> int:
    """Bytes of memory that guiding one sample takes, about.

    Weights three times (its own, their gradient, and moved), and of every layer what
    the backward pass reads.
    """
    t, length = model.transformer, model.layout.length
    weights = t.width * (4 * t.width + 3 * t.mlp_width)
    kept = length * (8 * t.width + 3 * t.mlp_width + 2 * t.num_heads * length)
    return 4 * t.num_layers * (3 * weights + kept)


def value_and_gradient(
    module,
    params: Params,
    shift: shifted_network.Shift,
    tokens: jax.Array,
    hidden_states=None,
):
    """The score log p(q=1) of one sequence, match bit unknown, and its gradient.

    Args:
      module, params: the model.
      shift: where the gradient is taken.
      tokens: int32 [L].
      hidden_states: [L,D], see `Backbone.__call__`.

    Returns:
      (log p(q=1), last hidden states [L,D], low_rank.Gradient).
    """
    module, depth = (
        shifted_network.unrolled(module),
        module.config.transformer.num_layers,
    )
    tokens = tokens[None]
    entering = None if hidden_states is None else hidden_states[None]

    def score(run: low_rank.Run):
        states = entering
        # The last layer apart: its keys and values come of all positions, but its
        # queries, and all that follows them, of [CLS] alone.
        if depth > 1:
            states = run(0, depth - 1, "states", tokens, hidden_states=states)
        # Of the last layer the score needs the first position only.
        logits = run(depth - 1, depth, "match_logits", tokens, hidden_states=states)
        return jax.nn.log_softmax(logits[0])[1], states

    value, states, gradient = low_rank.value_and_gradient(module, params, shift, score)
    hidden, _ = shifted_network.run_layers(
        module,
        shift.variables(params),
        depth - 1,
        depth,
        "__call__",
        tokens,
        hidden_states=states,
    )
    return value, hidden[0], gradient


def embedding_slopes(module, params: Params, tokens: jax.Array):
    """Slopes of log p(q=1) of one sequence, int32 [L], by its embeddings.

    Returns:
      (log p(q=1), last hidden states [L,D], slopes d log p / d e_j float32 [L,D],
      table [V,D]).
    """
    table = shifted_network.Paths().table
    shift = shifted_network.begin(params, f"^{table}$", low_rank=True)
    value, hidden, gradient = value_and_gradient(module, params, shift, tokens)
    return value, hidden, gradient.values[table][0], trees.flatten(params)[table]
