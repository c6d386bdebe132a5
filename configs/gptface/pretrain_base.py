"""The paper's pre-training (SPEC A.2-A.7), preset `paper`.

336 px at f = 16 gives 21 x 21 = 441 tokens of 8,192 codes, BERT's 30,522 words,
12 layers of width 768, batch 192, 1,000,000 steps. ":ff2048" is the size-matched
gated feed-forward (115.9 M parameters in all instead of 144.2 M).
"""

from configs import base


def get_config(arg: str = ""):
    base.check(arg, "tiny", "ff2048")
    config = base.base("gptface")
    config.model = {
        "transformer": {
            "num_layers": 12,
            "width": 768,
            "num_heads": 12,
            "mlp_width": 2048 if arg == "ff2048" else 3072,
            "dtype": "bfloat16",
            "remat": "full",
            "dropout": 0.0,
            "unroll": 1,
        },
        # 507 positions, padded to 512 for kernels that work in blocks.
        "layout": {"grid": (21, 21), "max_text_tokens": 64, "multiple_of": 128},
        "vocab": {"text_size": 30522, "codebook_size": 8192},
        "max_positions": 512,
        "match_token": False,
        "embedding_init": 0.02,
    }
    config.objective = {
        "ratio_schedule": "paper",
        "clean_fraction": 0.0,
        "span_fraction": 1.0,
        "text_ratio": 0.2,
        "text_span_fraction": 0.5,
        "negative_fraction": 0.5,
        "pooled": True,
    }
    config.total_steps = 1_000_000
    config.batch_size = 192
    config.eval_every = config.checkpoint_every = 5000
    config.log_every = 100
    config.data = {
        "train": {"kind": "tokens", "path": "tokens/train"},
        "eval": {"kind": "tokens", "path": "tokens/validation"},
        "eval_records": 4096,
        "image_ids": "cache",
        "tokenizer": "",  # of the codes: draws sample edits during training
        "vocab": "bert-base-uncased",
        "vocab_size": 30522,
        "captions": {"from_labels": False},
        "eval_captions": {"from_labels": False},
        "threads": 2,
        "workers": 4,
    }
    if arg == "tiny":
        base.tiny_gptface(config)
    return config
