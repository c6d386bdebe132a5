"""What decides what a tokenizer of 128 px keeps, at equal time: 40 minutes of a core.

`configs/vqgan/faces128.py:cpu` against pixels alone, four times as many codes, slopes
by rotation, and a wider network that begins with patches and new weights.
`launch/sweep.py` runs the points; `gptface reconstruct --efficientnet` compares them by
features and Frechet distance:

  python launch/sweep.py --config configs/experiments/tokenizers128.py \\
      --out runs/tokenizers128
"""

from configs import base
from configs.vqgan import faces128

MINUTES = 40
# Of one picture of a training step on one core of the machine that compared them.
SECONDS = {
    "features": 0.18,
    "pixels": 0.155,
    "codes_4096": 0.18,
    "rotation": 0.18,
    "wide": 0.33,
}


def get_config(arg: str = ""):
    arg = base.check(arg, "tiny")
    config = faces128.get_config("tiny_cpu" if arg else "cpu")
    if not arg:
        config.model.codebook_size = 1024
        config.log_every = 25
        config.eval_every = config.checkpoint_every = 250
        config.total_steps = steps("features", config.batch_size)
    return config


def steps(name: str, batch_size: int) -> int:
    return round(60 * MINUTES / (batch_size * SECONDS[name]))


def get_sweep():
    once = {f"objective.face_map.{part}": 1.0 for part in ("eyes", "mouth", "brows")}
    wide = {
        "init_from": "",
        "optim.peak_lr": 2e-3,
        "model.patch": 4,
        "model.level_channels": (128, 256),
        "model.z_channels": 256,
    }
    changes = {
        "features": {},
        "pixels": {"objective.perceptual.weight": 0.0, **once},
        "codes_4096": {"model.codebook_size": 4096},
        "rotation": {"objective.code_gradient": "rotation"},
        "wide": wide,
    }
    batch_size = get_config().batch_size
    return {
        name: {**change, "total_steps": steps(name, batch_size)}
        for name, change in changes.items()
    }
