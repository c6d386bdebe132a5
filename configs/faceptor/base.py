"""Faceptor-Base as published (SPEC C.2 to C.6): six tasks, seven data sets, 103 M.

Reads shards that `gptface prepare` writes of data sets that you have, each under
data/NAME; docs/faceptor.md says what records must hold. Start the encoder from a FaRL
checkpoint with `gptface import --format farl`, and --config.init_from. ":fsdp" splits
parameters over the devices.
"""

from configs import base

# Task -> (pictures an iteration, alpha), SPEC C.5.
TASKS = {
    "align_300w": (4, 1000.0),
    "parsing_celebam": (4, 100.0),
    "age_morph2": (64, 6.0),
    "affect_affectnet": (64, 4.0),
    "affect_rafdb": (16, 1.0),
    "biattr_celeba": (64, 2.0),
    "recog_ms1mv3": (256, 5.0),
}
IDENTITIES = 93_431  # of MS1MV3


def get_config(arg: str = ""):
    base.check(arg, "tiny", "fsdp")
    config = faceptor(TASKS)
    if arg == "fsdp":
        config.mesh.preset = "fsdp"
    if arg == "tiny":
        base.tiny_faceptor(config)
    return config


def faceptor(tasks: dict):
    """The published recipe, for tasks as in `TASKS`."""
    config = base.base("faceptor")
    config.model = {
        "vit": {
            "transformer": {
                "num_layers": 12,
                "width": 768,
                "num_heads": 12,
                "mlp_width": 3072,
                "feed_forward": "dense",
                "gate": "quick_gelu",
                "init": "fan_in",
                "norm_eps": 1e-5,
                "drop_path": 0.2,
                "remat": "none",
            },
            "patch": 16,
            "grid": 32,
            "output_width": 512,
        },
        "decoder": {
            "width": 256,
            "layers": 9,
            "heads": 8,
            "mlp_width": 2048,
            "levels": (11,),
            "new_levels": (),
        },
        "tasks": tuple(entry(name) for name in tasks),
        "source_level": 11,
        "attribute_resolution": 112,
        "dense_resolution": 512,
    }
    config.objective = {
        "weights": {name: alpha for name, (_, alpha) in tasks.items()},
        "main": "",
        "stage": 1,
        "trained": "all",
        "heatmap_side": 128,
    }
    base.set_batches(config, {name: size for name, (size, _) in tasks.items()})
    config.optim.update(
        peak_lr=5e-4, start_lr=1e-5, end_lr=0.0, warmup_fraction=0.04, eps=1e-8,
        weight_decay=0.05, clip_norm=5.0,
    )  # fmt: skip
    # The encoder's rate is a tenth; no parameter is exempt from the decay.
    config.optim.no_decay = "(?!)"
    config.optim.groups = {"backbone": {"match": "^backbone/", "lr_scale": 0.1}}
    config.total_steps = 50_000
    config.log_every = 100
    config.eval_every = config.checkpoint_every = 2500
    config.best_metric = ""  # of many tasks none is the one; see docs/faceptor.md
    config.data = {
        "train": {name: prepared(name, "train") for name in tasks},
        "eval": {
            name: prepared(name, "test")
            for name in tasks
            if not name.startswith("recog")
        },
        "eval_records": 2000,
        "augmentation": {},
        "image_ids": "tokenizer",
        "tokenizer": "",
        "threads": 2,
        "workers": 8,
    }
    return config


def entry(task: str) -> dict:
    return {
        "name": task,
        "identities": IDENTITIES if task.startswith("recog") else 0,
    }


def prepared(task: str, split: str) -> dict:
    name = task.partition("_")[2]
    return {"kind": "arrayrecord", "path": f"data/{name}/{split}"}
