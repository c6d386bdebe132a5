"""Talk2Face as published: 256 px, 256 image tokens, 110 M parameters (SPEC B.6-B.8).

Dense feed-forward, tied output, one mean over all target tokens, four tasks of 48.
Reads caches that `gptface tokenize` writes with a VQGAN of 1,024 codes at f = 16
(`configs/vqgan/taming_f16.py`, or a released one through `gptface import`), of pictures
with texts and labels: docs/talk2face.md. ":fsdp" splits parameters over the devices.
"""

from configs import base


def get_config(arg: str = ""):
    base.check(arg, "tiny", "fsdp")
    config = base.base("talk2face")
    config.model = {
        "transformer": {
            "num_layers": 12,
            "width": 768,
            "num_heads": 12,
            "mlp_width": 3072,
            "feed_forward": "dense",
            "dropout": 0.1,
            "remat": "attention",
            "dtype": "bfloat16",
        },
        "vocab": {"text_size": 30522, "codebook_size": 1024},
        "grid": (16, 16),
        "length": 334,
        "max_positions": 1024,
    }
    config.objective = {"scored": "target", "pooled": True}
    config.optim.peak_lr = 2e-4
    config.optim.start_lr = 0.0
    config.optim.end_lr = 0.0
    config.optim.warmup_fraction = 0.1
    config.optim.schedule = "linear"
    config.total_steps = 500_000
    config.batch_size = 192
    config.log_every = 100
    config.eval_every = config.checkpoint_every = 5000
    config.data = {
        "train": base.token_caches("pairs_train"),
        "eval": base.token_caches("pairs_validation"),
        "eval_records": 1024,
        "image_ids": "cache",
        "tokenizer": "",
        "codebook_init": False,
        "vocab": "bert-base-uncased",
        "label_sets": "",
        "captions": {"from_labels": False},
        "eval_captions": {"from_labels": False},
        "tasks": {"max_attributes": 12, "combined_fraction": 0.2},
        "packing": {"length": 0, "sequences": 3.0, "rows": 8},  # rows of 1024 hold 3
        "threads": 16,
        "workers": 8,
    }
    if arg == "fsdp":
        config.mesh.preset = "fsdp"
    if arg == "tiny":
        base.tiny_talk2face(config)
    return config
