"""GPTFace models that are timed."""

from __future__ import annotations

from typing import Any


def _size(
    layers, width, heads, mlp_width, grid, words, codes, text_size, length, unroll=1
):
    return {
        "transformer": {
            "num_layers": layers,
            "width": width,
            "num_heads": heads,
            "mlp_width": mlp_width,
            "remat": "none",
            "unroll": unroll,
        },
        "layout": {"grid": grid, "max_text_tokens": words, "multiple_of": length},
        "vocab": {"text_size": text_size, "codebook_size": codes},
        "max_positions": 512,
    }


# name -> (model, batch)
SIZES: dict[str, tuple[dict[str, Any], int]] = {
    "tiny": (_size(2, 16, 2, 24, (3, 3), 6, 27, 200, 1), 4),
    # configs/gptface/faces64.py
    "faces64": (_size(4, 128, 4, 344, (8, 8), 30, 1024, 1024, 1, 4), 64),
    # configs/gptface/mini.py
    "mini": (_size(8, 384, 6, 1024, (8, 8), 34, 1024, 2048, 8), 32),
    # 128 px
    "grid16": (_size(6, 256, 4, 688, (16, 16), 32, 1024, 2048, 1, 6), 8),
    # configs/gptface/pretrain_base.py
    "pretrain_base": (_size(12, 768, 12, 3072, (21, 21), 64, 8192, 30522, 128), 2),
}
