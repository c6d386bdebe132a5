"""VQGAN for 128 px, f = 8: 16 x 16 tokens of 1,024 codes, for one GPU.

A discriminator from a third of the run on, and a distance in the feature space of
runs/features128 (`configs/judge/faces64.py:features`, model.resolution 128).
":f16" has 8 x 8 tokens; ":pixels" only pixel losses, ":f16_pixels" both. ":mini" is
":f16" with narrow first levels, for a few minutes of one GPU: the tokenizer of
`configs/gptface/mini.py`. It reads drawn faces from pictures/synthetic_train.

":cpu" is for one core, hours: the narrow network of `configs/vqgan/faces64.py` goes on
from the bundled weights at 128 px with 4,096 codes, and became the bundled tokenizer
"vqgan128" (docs/results/tokenizer.md has the commands). Pixels and features of
EfficientNet-lite0 (extra `features`), in which eyes, mouth and brows count more.
Photographs upright and as they are, with the points of their faces, and drawn faces,
all written once (the colour photographs of `faces` are cropped too tightly for the
frame):

  for how in upright landmarks; do for set in lfw_attributes masks; do
    gptface prepare --images ../shared/data/$set --split train --$how \\
        --out runs/data/${set}_$how
  done; done
  gptface prepare --images ../shared/data/faces --split train --data colour=True \\
      --landmarks --out runs/data/faces_landmarks
  gptface prepare --images synthetic --limit 4000 --data size=128 --out runs/data/drawn

":cpu_gan" goes on from "vqgan128" with a discriminator, the decoder alone, so
that codes stay what transformers are trained on, and
":conditional" with a decoder that sees what is known of the photograph, trained alone.
"""

from configs import base
from configs.vqgan import faces64

FORMS = ("f16", "pixels", "f16_pixels", "mini", "cpu", "cpu_gan", "conditional")
FORMS += ("tiny", "tiny_cpu", "tiny_conditional")


def get_config(arg: str = ""):
    base.check(arg, *FORMS)
    if arg in ("tiny", "tiny_conditional"):
        return faces64.get_config("tiny_gan" if arg == "tiny" else arg)
    if arg in ("cpu", "cpu_gan", "conditional", "tiny_cpu"):
        return for_one_core(arg)
    config = base.base("vqgan")
    deep = arg in ("f16", "f16_pixels", "mini")
    config.model = {
        "resolution": 128,
        "level_channels": (64, 128, 128, 256, 256) if deep else (64, 128, 128, 256),
        "num_res_blocks": 2,
        "attn_resolutions": (8,) if deep else (16,),
        "z_channels": 256,
        "embed_dim": 64,
        "codebook_size": 1024,
        "groups": 32,
        "dtype": "bfloat16",
    }
    config.objective = {"l1": 1.0, "l2": 1.0, "gradient": 0.25, "revive_every": 100}
    if not arg.endswith("pixels"):
        faces64.adversarial(config)
        config.objective.perceptual.path = "runs/features128"
        config.objective.adversary.discriminator.update(channels=64, num_layers=3)
    config.optim.peak_lr = 5e-4
    config.optim.start_lr = 5e-5
    config.optim.end_lr = 1e-5
    config.optim.b2 = 0.99
    config.optim.weight_decay = 0.0
    config.optim.warmup_fraction = 0.02
    config.ema_decay = 0.999
    config.total_steps = 20_000
    config.batch_size = 64
    config.eval_every = config.checkpoint_every = 1000
    config.data = {
        "train": {
            "kind": "mixture",
            "sources": (base.photos("train"), base.synthetic(20_000, 128)),
        },
        "eval": base.photos("validation"),
        "eval_records": 500,
        "flip": True,
        "threads": 2,
        "workers": 8,
    }
    if arg == "mini":
        config.model.update(level_channels=(32, 64, 128, 256, 256), embed_dim=32)
        config.objective.perceptual.dtype = "bfloat16"
        config.objective.adversary.discriminator.dtype = "bfloat16"
        config.optim.peak_lr = 1e-3
        config.total_steps = 3000
        config.log_every = 100
        config.ema_decay = 0.995
        drawn = {"kind": "arrayrecord", "path": "pictures/synthetic_train"}
        config.data.train.sources = (base.photos("train"), drawn)
        config.data.workers = 14
    return config


def for_one_core(arg: str):
    config = faces64.get_config("tiny" if arg == "tiny_cpu" else "")
    config.objective.update(
        face_map={"eyes": 5.0, "mouth": 4.0, "brows": 3.0},
        # At the bundled model's pictures the slopes of the maps are 24, 54, 95, 159 and
        # 352 times as steep as that of L1: so they are about even, together twice it.
        perceptual={
            "weight": 0.08,
            "network": "efficientnet_lite0",
            "depths": (4.0, 2.0, 1.0, 0.5, 0.25),
        },
    )
    if arg == "tiny_cpu":
        config.objective.perceptual.weight = 0.0  # needs no files
        return config
    config.model.resolution = 128
    config.model.codebook_size = 4096  # .4 dB above 1,024, docs/results/tokenizer.md
    config.init_from = "gptface_jax/models/demo64"
    config.optim.peak_lr = 1e-3
    config.optim.start_lr = 1e-4
    config.optim.end_lr = 2e-5
    config.optim.warmup_fraction = 0.05  # the weights are good already
    config.ema_decay = 0.995
    config.total_steps = 5000
    config.batch_size = 16
    config.data.train.sources = tuple(
        {"kind": "arrayrecord", "path": f"runs/data/{name}"}
        for name in (
            "lfw_attributes_upright",
            "lfw_attributes_landmarks",
            "masks_upright",
            "masks_landmarks",
            "faces_landmarks",
            "drawn",
        )
    )
    config.data.threads = 1
    if arg == "conditional":
        photographs = config.data.train.sources
        faces64.conditional(config, 128)
        config.data.train.sources = photographs
        config.init_from = "vqgan128"
        config.total_steps = 6000
    if arg == "cpu_gan":
        perceptual = config.objective.perceptual
        faces64.adversarial(config)
        config.objective.perceptual = perceptual
        config.objective.update(trainable="decoder", revive_every=0)
        config.init_from = "vqgan128"
        config.objective.adversary.start = 0.1
        config.optim.peak_lr = 5e-4
        config.total_steps = 4000
    return config
