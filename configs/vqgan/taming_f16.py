"""The paper's tokenizer: taming's face VQGAN, f = 16, 8,192 codes, 336 px.

Declared at 336 the network meets 336, 168, 84, 42 and 21 and never "16", so the
attention level is set to 21 (SPEC A.2.1). L1, LPIPS (its weights are to be had at
`objective.perceptual.path`), codebook loss, adaptive hinge loss from update 30,000 on.
Learning rate 4.5e-6 x batch, Adam betas 0.5 and 0.9 for both networks, no clipping.
":literal" keeps the published order of beta in the codebook loss and revives no codes.
"""

from configs import base


def get_config(arg: str = ""):
    base.check(arg, "literal", "tiny")
    config = base.base("vqgan")
    config.model = {
        "resolution": 336,
        "channels": 128,
        "channel_multipliers": (1, 1, 2, 2, 4),
        "num_res_blocks": 2,
        "attn_resolutions": (21,),
        "z_channels": 256,
        "embed_dim": 256,
        "codebook_size": 8192,
        "groups": 32,
        "dtype": "bfloat16",
    }
    config.total_steps = 500_000
    config.objective = {
        "l1": 1.0,
        "gradient": 0.0,
        "beta_on_codebook": arg == "literal",
        "revive_every": 0 if arg == "literal" else 100,
        "perceptual": {
            "weight": 1.0,
            "network": "lpips",
            "path": "weights/vgg16.pth,weights/vgg_lpips.pth",
            "dtype": "bfloat16",
        },
        "adversary": {
            "weight": 0.8,
            "start": 30_000 / config.total_steps,
            "ramp": 0.0 if arg == "literal" else 0.01,
            "warmup": 0.0 if arg == "literal" else 0.002,
            "discriminator": {"channels": 64, "num_layers": 3, "dtype": "bfloat16"},
        },
    }
    config.best_metric = ""
    config.batch_size = 32
    config.optim.peak_lr = config.optim.start_lr = config.optim.end_lr = 4.5e-6 * 32
    config.optim.schedule = "constant"
    config.optim.b1, config.optim.b2, config.optim.eps = 0.5, 0.9, 1e-8
    config.optim.weight_decay = 0.0
    config.optim.clip_norm = 0.0
    config.eval_every = config.checkpoint_every = 5000
    config.data = {
        "train": {"kind": "folder", "path": "photos/train"},
        "eval": {"kind": "folder", "path": "photos/validation"},
        "eval_records": 512,
        "flip": True,
        "threads": 2,
        "workers": 8,
    }
    if arg == "tiny":
        base.tiny(config)
        config.model.resolution = 32
        config.model.channels = 8
        config.model.channel_multipliers = (1, 2)
        config.model.num_res_blocks = 1
        config.model.attn_resolutions = (16,)
        config.model.z_channels = config.model.embed_dim = 8
        config.model.codebook_size = 32
        config.model.groups = 4
        config.objective.revive_every = 2
        config.objective.perceptual.weight = 0.0  # needs no files
        config.objective.adversary.update(start=0.5, warmup=0.25)
        config.objective.adversary.discriminator.update(channels=4, num_layers=1)
        config.data.workers = 0
        config.data.train = base.synthetic(64, 32)
        config.data.eval = base.synthetic(8, 32, seed=1)
    return config
