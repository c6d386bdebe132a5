"""A classifier of attributes at 64 px, trained apart, to judge edits.

":synthetic" learns from synthetic faces, ":lfw" from the LFW photographs, and
":lfw_all" from these all forty attributes. ":features" learns forty attributes of
both kinds of faces; its feature maps compare pictures when a VQGAN is trained
(`configs/vqgan/faces64.py:gan`), so it must not judge that VQGAN. ":masks" tells faces
with a face mask from those without, ":happiness" happy ones from others by the labels
that people gave to `faces`; its photographs are grey and cropped tightly.
":expressions" tells the seven expressions of `faces` apart: the plain network that
others are compared with (`gptface evaluate folds`).
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
ALL = tuple(
    """5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips
    Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin
    Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open
    Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline
    Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat
    Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young""".split()
)
EXPRESSIONS = (
    "neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear",
)  # fmt: skip
ATTRIBUTES = {
    "synthetic": SYNTHETIC,
    "lfw": LFW,
    "lfw_all": ALL,
    "features": ALL,
    "masks": ("Wearing_Mask",),
    "happiness": ("Smiling",),
    "expressions": EXPRESSIONS,
    "tiny": SYNTHETIC,
}


def masks(split):
    return {
        "kind": "parquet",
        "path": "../shared/data/masks",
        "split": split,
        "classes": {"Wearing_Mask": "label=mask"},
    }


def faces(split, words):
    """Photographs of `faces`; words: attribute -> the expression that it means."""
    return {
        "kind": "parquet",
        "path": "../shared/data/faces",
        "split": split,
        "classes": {name: f"expression={word}" for name, word in words.items()},
    }


def get_config(arg: str = "synthetic"):
    arg = base.check(arg, *ATTRIBUTES) or "synthetic"
    config = base.base("judge")
    config.model = {
        "resolution": 64,
        "attributes": ATTRIBUTES[arg],
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
    photos, drawn = base.photos("train"), base.synthetic(20000, 64, seed=5)
    config.data = {
        "train": photos if arg.startswith("lfw") else drawn,
        "eval": base.synthetic(1000, 64, 6)
        if arg == "synthetic"
        else base.photos("validation"),
        "eval_records": 1000,
        "threads": 2,
        "workers": 0,
    }
    if arg == "features":
        config.seed = 1
        config.total_steps = 800
        config.eval_every = config.checkpoint_every = 200
        config.data.train = {"kind": "mixture", "sources": (photos, drawn)}
    if arg == "masks":
        config.total_steps = 400
        config.eval_every = config.checkpoint_every = 100
        config.data.train, config.data.eval = masks("train"), masks("validation")
    if arg in ("happiness", "expressions"):
        config.total_steps = 600
        config.eval_every = config.checkpoint_every = 100
        words = {name: name for name in EXPRESSIONS}
        words = {"Smiling": "happiness"} if arg == "happiness" else words
        config.data.train = faces("train", words)
        config.data.eval = faces("validation", words)
    if arg == "tiny":
        base.tiny(config)
        config.model.resolution = 32
        config.model.channels = (8, 16)
        config.data.train = base.synthetic(64, 32)
        config.data.eval = base.synthetic(8, 32, seed=1)
    return config


def get_sweep():
    """Learning rate against width (`launch/sweep.py`)."""
    return {
        f"lr_{rate:g}_width_{width}": {
            "optim.peak_lr": rate,
            "model.channels": tuple(width * n for n in (1, 2, 4, 6)),
        }
        for rate in (3e-4, 1e-3, 3e-3)
        for width in (16, 32)
    }
