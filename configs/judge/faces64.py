"""A classifier of attributes at 64 px, trained apart, to judge edits.

":synthetic" learns from synthetic faces, ":lfw" from the LFW photographs.
"""

from configs import base

SYNTHETIC = (
    "Smiling",
    "Eyeglasses",
    "Male",
    "Wearing_Hat",
    "No_Beard",
    "Mustache",
    "Mouth_Slightly_Open",
    "Black_Hair",
    "Blond_Hair",
    "Bangs",
    "Wearing_Lipstick",
    "Young",
)
LFW = ("Smiling", "Eyeglasses", "Male", "Wearing_Hat")


def get_config(arg: str = "synthetic"):
    base.check(arg, "synthetic", "lfw", "tiny")
    config = base.base("judge")
    config.model = {
        "resolution": 64,
        "attributes": LFW if arg == "lfw" else SYNTHETIC,
        "channels": (32, 64, 128, 192),
        "dropout": 0.2,
    }
    config.objective = {}
    config.total_steps = 1500
    config.batch_size = 64
    config.ema_decay = 0.99
    config.optim.peak_lr = 1e-3
    config.optim.warmup_fraction = 0.05
    config.optim.weight_decay = 0.05
    config.eval_every = config.checkpoint_every = 500
    photos = arg == "lfw"
    config.data = {
        "train": base.photos("train") if photos else base.synthetic(20000, 64, seed=5),
        "eval": base.photos("validation") if photos else base.synthetic(1000, 64, 6),
        "eval_records": 1000,
        "threads": 2,
        "workers": 0,
    }
    if arg == "tiny":
        base.tiny(config)
        config.model.resolution = 32
        config.model.channels = (8, 16)
        config.data.train = base.synthetic(64, 32)
        config.data.eval = base.synthetic(8, 32, seed=1)
    return config
