"""Talk2Face: one prefix language model over image and text tokens (SPEC part B).

[CLS] prompt [SEP] prefix [SEP] target [SEP]; the network is `nn.prefix_lm`.
"""

from __future__ import annotations

from typing import Any

import jax

from gptface_jax.nn.prefix_lm import PrefixLM, PrefixLMConfig

__all__ = ["PrefixLM", "PrefixLMConfig", "logits"]


def logits(
    config: PrefixLMConfig, params: Any, tokens: jax.Array, segments: jax.Array
) -> jax.Array:
    """Logits of the next token at every position, float32 [B,L,V].

    Args:
      config, params: of the model, such as `interop.tencent.load` gives.
      tokens: int32 [B,L] joint ids.
      segments: int32 [B,L], 1 prefix, 2 target, 0 padding.
    """
    module, variables = PrefixLM(config), {"params": params}
    hidden = module.apply(variables, tokens, segments, method="sequence")
    return module.apply(variables, hidden, method="token_logits")[
        ..., : config.vocab.size
    ]
