"""Talk2Face for 64 px on CPU: 64 image tokens, 1.1 M parameters, half an hour.

Shape and widths of `configs/gptface/faces64.py`, and its caches. Separate means of
image and text tokens: of one mean an answer of two words would be a fortieth.
":paper" has the published form at this size: dense, bare output, one mean.
":digits" and ":ordinal" write ages in digits, and predict their neighbours as well.
":edits" learns to draw a face after another one and a sentence too, from pairs of drawn
faces: `gptface tokenize --images synthetic_edits --limit 10000 --tokenizer demo64 --out
tokens/edits_train`, and tokens/edits_validation with --limit 600 --seed 1.
"""

from configs import base
from configs.gptface import faces64


def get_config(arg: str = ""):
    base.check(
        arg,
        *("tiny", "paper", "tiny_paper", "digits", "ordinal", "tiny_ordinal"),
        *("edits", "tiny_edits"),
    )
    config = base.base("talk2face")
    config.model = {
        "transformer": {
            "num_layers": 4,
            "width": 128,
            "num_heads": 4,
            "mlp_width": 344,
            "feed_forward": "gated",
            "init": "fan_in",
            "qk_norm": True,
            "remat": "none",
            "unroll": 4,
        },
        "vocab": {"text_size": 1024, "codebook_size": 1024},
        "grid": (8, 8),
        "length": 112,
        "max_positions": 192,
        "positions": "by_modality",
        "embedding_init": 0.06,
        "embedding_multiplier": 11.3,
        "output_transform": True,
        "output_bias": True,
    }
    config.objective = {"pooled": False, "image_weight": 1.0, "text_weight": 1.0}
    config.optim.peak_lr = 1.5e-3
    config.optim.warmup_fraction = 0.03
    config.optim.b2 = 0.98
    config.total_steps = 3000
    config.batch_size = 32
    config.ema_decay = 0.995
    config.eval_every = config.checkpoint_every = 200
    captions = {"max_phrases": 8, "attributes": faces64.RELIABLE}
    config.data = {
        "train": faces64.tokens("lfw_train", "synthetic_train", "faces_train"),
        "eval": faces64.tokens("lfw_validation", "synthetic_validation"),
        "eval_records": 512,
        "image_ids": "cache",
        "tokenizer": "",  # of the codes: draws faces after texts during training
        "codebook_init": True,
        "vocab": "",
        "vocab_size": 1024,
        "label_sets": "",
        "captions": captions,
        "eval_captions": captions,
        "tasks": {
            "max_attributes": 8,
            "combined_fraction": 0.2,
            "given_fraction": 0.9,
            "given_keys": "all",
            "age_tokens": "word",
            "max_prefix": 44,
            "turns": (),  # tasks of the rows; all as often as each other
        },
        # Rows of several sequences: 512 and 5.25 fit these data.
        "packing": {"length": 0, "sequences": 2.0, "rows": 8},
        "threads": 2,
        "workers": 0,
    }
    for age_tokens in ("digits", "ordinal"):
        if age_tokens in arg:
            config.data.tasks.age_tokens = age_tokens
    if "paper" in arg:
        config.model.transformer.update(feed_forward="dense", init="normal")
        config.model.transformer.update(mlp_width=512, qk_norm=False)
        config.model.update(positions="absolute", embedding_init=0.02)
        config.model.update(embedding_multiplier=1.0)
        config.model.update(output_transform=False, output_bias=False)
        config.objective.pooled = True
        config.data.codebook_init = False
        config.optim.peak_lr = 1e-3
    if "tiny" in arg:
        base.tiny_talk2face(config)
    if "edits" in arg:
        # Two images and 22 words; ages as ":ordinal" has them.
        config.model.length = 160
        config.batch_size = 40  # as many rows of each of five tasks
        config.data.tasks.update(edits=True, age_tokens="ordinal")
        pairs = [
            {"kind": "tokens", "path": f"tokens/edits_{name}"}
            for name in ("train", "validation")
        ]
        if "tiny" in arg:
            config.data.tasks.age_tokens = "word"
            config.batch_size, config.data.eval_records = 5, 10
            pairs = [{"kind": "synthetic_edits", "count": 64, "size": 32}] * 2
        for split, found in zip(("train", "eval"), pairs):
            given = config.data[split].to_dict()
            parts = given.get("sources", (given,))
            config.data[split] = {"kind": "mixture", "sources": (*parts, found)}
    return config
