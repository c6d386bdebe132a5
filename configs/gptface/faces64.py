"""GPTFace for 64 px on CPU: 64 image tokens, 32 words, 1.2 M parameters.

Preset `control` (match token, SPEC A.5.2) with what made image-text matching
leave chance at this size; docs/results.md has the comparison. ":paper" is the
literal preset at the same size. Both read the caches that `gptface tokenize`
writes: tokens/lfw_train, tokens/lfw_validation and tokens/synthetic_train.
"""

from configs import base

# Scores of LFW attributes that are reliable on inspection.
RELIABLE = (
    "Smiling",
    "Eyeglasses",
    "Wearing_Hat",
    "Mouth_Slightly_Open",
    "No_Beard",
    "Mustache",
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Gray_Hair",
    "Wavy_Hair",
    "Wearing_Lipstick",
    "Wearing_Necktie",
    "Wearing_Earrings",
    "Goatee",
    "Bushy_Eyebrows",
    "Big_Nose",
    "Narrow_Eyes",
    "Pale_Skin",
)


def tokens(*names: str, weights: tuple[float, ...] | None = None) -> dict:
    spec = base.token_caches(*names)
    return spec | ({"weights": weights} if weights else {})


def get_config(arg: str = ""):
    base.check(arg, "tiny", "paper", "tiny_paper")
    config = base.base("gptface")
    config.model = {
        "transformer": {
            "num_layers": 4,
            "width": 128,
            "num_heads": 4,
            "mlp_width": 344,
            "init": "fan_in",
            "qk_norm": True,
            "remat": "none",
            "unroll": 4,
        },
        "layout": {"grid": (8, 8), "max_text_tokens": 32},
        "vocab": {"text_size": 1024, "codebook_size": 1024},
        "max_positions": 98,
        "match_token": True,
        "embedding_init": 0.06,
        "embedding_multiplier": 11.3,
        "cross_modal_heads": 2,
        "contrastive_width": 64,
        "word_bag": True,
    }
    config.objective = {
        "ratio_schedule": "uniform",
        "wide_range": (0.1, 0.9),
        "clean_fraction": 0.3,
        "span_fraction": 0.8,
        "text_fraction": 0.4,
        "text_wide_fraction": 0.3,
        "text_weight": 0.15,
        "paired": True,
        "hidden_negatives": False,
        "itm_weight": 2.0,
        "told_negatives": 0.1,
        "contrastive_weight": 1.0,
        "word_bag_weight": 0.2,
        "alignment_layers": 2,
        "alignment_alone": 0.08,
        "alignment_until": 0.13,
        "matching_alone": 0.05,
    }
    config.optim.peak_lr = 1.5e-3
    config.optim.warmup_fraction = 0.03
    config.optim.b2 = 0.98
    config.total_steps = 6000
    config.batch_size = 32
    config.ema_decay = 0.995
    config.eval_every = config.checkpoint_every = 200
    config.data = {
        "train": tokens("lfw_train", "synthetic_train"),
        "eval": tokens("lfw_validation"),
        "eval_records": 512,
        "image_ids": "cache",
        "tokenizer": "",  # of the codes: draws sample edits during training
        "codebook_init": True,
        "vocab": "",
        "vocab_size": 1024,
        "captions": {
            "from_labels": True,
            "style": "strong",
            "rho": 1.0,
            "max_phrases": 8,
            "tags": 0.5,
            "attributes": RELIABLE,
            "hard_fraction": 0.2,
            "empty_fraction": 0.1,
        },
        "eval_captions": {
            "from_labels": True,
            "max_phrases": 8,
            "attributes": RELIABLE,
        },
        "threads": 2,
        "workers": 0,
    }
    if "paper" in arg:
        config.model.transformer.init = "normal"
        config.model.transformer.qk_norm = False
        config.model.embedding_init = 0.02
        config.model.match_token = False
        config.model.contrastive_width = 0
        config.model.word_bag = False
        config.model.embedding_multiplier = 1.0
        config.model.cross_modal_heads = 0
        config.objective = {
            "ratio_schedule": "rescaled",
            "clean_fraction": 0.0,
            "span_fraction": 1.0,
            "pooled": True,
        }
        config.data.captions.hard_fraction = 0.0
        config.data.captions.tags = 0.0
        config.data.captions.empty_fraction = 0.0
        config.data.codebook_init = False
        config.optim.peak_lr = 1e-3
        config.optim.warmup_fraction = 0.01
        config.ema_decay = 0.0
        config.batch_size = 64
    if "tiny" in arg:
        base.tiny_gptface(config)
    return config
