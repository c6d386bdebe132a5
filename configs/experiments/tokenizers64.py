"""What decides what a tokenizer keeps: f, codes, losses, training pictures (G11, G12).

The form of `configs/vqgan/faces64.py:gan` at a length that two CPU cores can repeat
nine times; `launch/sweep.py` runs the points. All learn from photographs and drawn
faces but "textures" (no face among them) and "mixed" (faces and textures).
"""

from configs import base
from configs.vqgan import faces64


def get_config(arg: str = ""):
    arg = base.check(arg, "tiny")
    config = faces64.get_config("tiny_gan" if arg else "gan")
    if not arg:
        config.batch_size = 16
        config.total_steps = 400
        config.eval_every = config.checkpoint_every = 200
        config.data.threads = 1
    return config


def get_sweep():
    textures = {"kind": "textures", "size": 64, "count": 4000}
    photos, drawn = base.photos("train"), base.synthetic(4000, 64)
    levels = {"model.level_channels": (16, 16, 64, 128, 128)}
    mixed = {"kind": "mixture", "sources": (photos, drawn, textures)}
    # Without faces the discriminator wins early; the run is to end all the same.
    alone = {"data.train": textures, "objective.adversary.won_below": 0.0}
    return {
        "f8_1024_pixels": {
            "objective.perceptual.weight": 0.0,
            "objective.adversary.weight": 0.0,
        },
        "f8_1024": {},
        "f16_1024": levels,
        "f8_4096": {"model.codebook_size": 4096},
        "f8_256": {"model.codebook_size": 256},
        "f8_1024_mixed": {"data.train": mixed},
        "f8_1024_textures": alone,
        "f16_4096": {**levels, "model.codebook_size": 4096},
        "f16_256": {**levels, "model.codebook_size": 256},
    }
