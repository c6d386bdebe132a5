"""VQGAN for 64 px, f = 8: 8 x 8 tokens of 1,024 codes, 3 M parameters.

A full-width convolution at 64 x 64 is what costs on a CPU, so the first two
levels are narrow. Pixel losses only; ":gan" adds a discriminator and a distance in
the feature space of runs/features64 (`configs/judge/faces64.py:features`).
":f16" and ":f16_gan" have 4 x 4 tokens. ":decoder" trains the decoder of `init_from`
on, by the losses of ":gan"; the codes stay what they were. ":conditional" trains one
that sees what is known of the photograph, from the bundled weights on (SPEC E.12): by
features of EfficientNet-lite0 (extra `features`) and a discriminator, for one core.
"""

from configs import base

FORMS = ("gan", "f16", "f16_gan", "decoder", "conditional")
TINY = ("tiny", "tiny_gan", "tiny_decoder", "tiny_conditional")


def get_config(arg: str = ""):
    base.check(arg, *FORMS, *TINY)
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
    if arg.startswith("f16"):
        config.model.level_channels = (16, 16, 64, 128, 128)
    if arg.endswith(("gan", "decoder")):
        adversarial(config)
    if arg.endswith("decoder"):
        config.init_from = "runs/vqgan64"
        config.total_steps = 1200
        config.optim.peak_lr = 1e-3
        config.objective.update(trainable="decoder", revive_every=0)
        config.objective.adversary.start = 0.1
    if arg.endswith("conditional"):
        conditional(config, 64)
    if arg.startswith("tiny"):
        base.tiny(config)
        config.model.resolution = 32
        config.model.level_channels = (8, 8, 16)
        config.model.z_channels = config.model.embed_dim = 8
        config.model.codebook_size = 27
        alone = arg in ("tiny_decoder", "tiny_conditional")
        config.objective.revive_every = 0 if alone else 1
        config.ema_decay = 0.9
        config.data.train = base.synthetic(64, 32)
        config.data.eval = base.synthetic(8, 32, seed=1)
    if arg == "tiny_gan":
        config.model.level_channels = (8, 8)  # half as long to compile
    if arg == "tiny_conditional":
        config.model.condition_channels = 4
        config.init_from = ""
    if arg in ("tiny_gan", "tiny_decoder", "tiny_conditional"):
        config.objective.perceptual.weight = 0.0  # needs no files
        config.objective.adversary.update(start=0.5, ramp=0.25, warmup=0.25)
        config.objective.adversary.discriminator.update(channels=4, num_layers=1)
    return config


def adversarial(config) -> None:
    """A discriminator from a third of the run on, and the distance of features."""
    # At a trained model's pictures its slope is 20 times as steep as that of L1.
    config.objective.perceptual = {"weight": 0.1, "path": "runs/features64"}
    config.objective.adversary = {
        "weight": 0.3,
        "start": 0.35,
        "ramp": 0.1,
        "warmup": 0.03,
        "hold_below": 0.4,
        "discriminator": {"channels": 32, "num_layers": 2},
    }
    config.optim.phases = {
        "discriminator": {"peak_lr": 2e-4, "end_lr": 2e-5, "b1": 0.5, "clip_norm": 0.0}
    }
    # The least distance is not the best picture: the latest checkpoint counts.
    config.best_metric = ""


def conditional(config, size: int) -> None:
    """A decoder trained alone that sees the photograph around a hole."""
    adversarial(config)
    config.model.condition_channels = 64
    config.objective.update(
        trainable="decoder",
        revive_every=0,
        holes={"inside": 5.0, "everything": 0.2, "drawn": 0.0, "model": ""},
        # As even and as heavy as in `configs/vqgan/faces128.py:cpu`.
        perceptual={
            "weight": 0.08,
            "network": "efficientnet_lite0",
            "path": "",
            "depths": (4.0, 2.0, 1.0, 0.5, 0.25),
        },
    )
    config.objective.adversary.start = 0.2
    config.init_from = "gptface_jax/models/demo64"
    config.optim.peak_lr = 1e-3
    config.optim.start_lr = 1e-4
    config.optim.end_lr = 2e-5
    config.ema_decay = 0.995
    config.total_steps = 1500
    config.batch_size = 16
    config.eval_every = config.checkpoint_every = 250
    config.data.train.sources = (
        base.photos("train"),
        {"kind": "parquet", "path": "../shared/data/faces", "split": "train"},
        {"kind": "parquet", "path": "../shared/data/landmarks", "split": "train"},
        base.synthetic(4000, size),
    )
    config.data.threads = 1
