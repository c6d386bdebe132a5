"""VQGAN for 64 px, f = 8: 8 x 8 tokens of 1,024 codes, 3 M parameters.

A full-width convolution at 64 x 64 is what costs on a CPU, so the first two
levels are narrow.
"""

from configs import base


def get_config(arg: str = ""):
    base.check(arg, "tiny")
    config = base.base("vqgan")
    config.model = {
        "resolution": 64,
        "level_channels": (16, 16, 64, 128),
        "num_res_blocks": 1,
        "attn_resolutions": (),
        "z_channels": 128,
        "embed_dim": 16,
        "codebook_size": 1024,
        "groups": 8,
    }
    config.objective = {
        "l1": 1.0,
        "l2": 1.0,
        "gradient": 0.25,
        "revive_every": 50,
    }
    config.optim.peak_lr = 2e-3
    config.optim.start_lr = 2e-4
    config.optim.end_lr = 4e-5
    config.optim.b2 = 0.99
    config.optim.weight_decay = 0.0
    config.optim.warmup_fraction = 0.02
    config.total_steps = 3600
    config.batch_size = 32
    config.eval_every = config.checkpoint_every = 500
    config.data = {
        "train": {
            "kind": "mixture",
            "sources": (base.photos("train"), base.synthetic(4000, 64)),
        },
        "eval": base.photos("validation"),
        "eval_records": 500,
        "flip": True,
        "threads": 2,
        "workers": 0,
    }
    if arg == "tiny":
        base.tiny(config)
        config.model.resolution = 32
        config.model.level_channels = (8, 8, 16)
        config.model.z_channels = config.model.embed_dim = 8
        config.model.codebook_size = 32
        config.objective.revive_every = 2
        config.data.train = base.synthetic(64, 32)
        config.data.eval = base.synthetic(8, 32, seed=1)
    return config
