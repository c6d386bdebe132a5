"""A small Faceptor on drawn faces with truth and on photographs, 128 px, 4 M.

Six tasks: all of drawn faces, and of photographs attributes (scores of a classifier),
expressions (labels by people) and landmarks (predicted points). Pictures are normalised
alike for all, so that one pass of the encoder answers everything. ":drawn" is 64 px,
0.75 M parameters and drawn faces alone, for half an hour of a CPU core; ":parts" is
that with parsing and landmarks alone, for two minutes (`edit --perception`); ":naive"
is ":drawn" with a head for each family of tasks (SPEC C.7, claim F1), ":last" with
queries that read the encoder's last layer alone (C.4, claim F2); ":tokens" and
":patches" are the same on GPTFace's layers (SPEC C.11): set --config.init_from to a
GPTFace of `faces64`, and with tokens --config.data.tokenizer to its VQGAN.
"""

from configs import base

# Task -> (pictures a step, weight). A weight brings its loss to the size of the others.
DRAWN = {
    "align_drawn": (16, 20.0),
    "parsing_drawn": (16, 4.0),
    "age_drawn": (16, 0.5),
    "affect_drawn": (16, 2.0),
    "biattr_drawn": (16, 0.5),
    "recog_drawn": (16, 0.1),
}
PARTS = {"parsing_drawn": (24, 4.0), "align_drawn": (4, 2.0)}
PHOTOS = {"align_frames": (8, 10.0), "affect_faces": (16, 1.0), "biattr_lfw": (16, 0.5)}
TINY = ("tiny", "tiny_tokens", "tiny_patches")
SHARED = "../shared/data"
PEOPLE = 2000  # drawn, four pictures of each


def get_config(arg: str = ""):
    base.check(arg, *TINY, "drawn", "parts", "naive", "last", "tokens", "patches")
    small = arg not in ("", "tiny")
    # Photographs first: of a family the first task is what `perceive` asks.
    few = PARTS if arg == "parts" else DRAWN
    tasks, size = (few, 64) if small else (PHOTOS | DRAWN, 128)
    config = base.base("faceptor")
    config.model = {
        "vit": {
            "transformer": {
                "num_layers": 6,
                "width": 192,
                "num_heads": 6,
                "mlp_width": 576,
                "feed_forward": "dense",
                "gate": "quick_gelu",
                "init": "fan_in",
                "norm_eps": 1e-5,
                "drop_path": 0.05,
                "remat": "none",
                "unroll": 6,
            },
            "patch": 8,
            "grid": size // 8,
            "output_width": 0,
        },
        "decoder": {
            "width": 128,
            "layers": 4,
            "heads": 4,
            "mlp_width": 256,
            "levels": (5,),
            "new_levels": (1, 3),
            "unroll": 4,
        },
        "tasks": tuple(
            {"name": n, "identities": PEOPLE if n.startswith("recog") else 0}
            for n in tasks
        ),
        "pixels": "unit",
        "source_level": 5,
        "embedding_width": 128,
        "attribute_resolution": size,
        "dense_resolution": size,
    }
    config.objective = {
        "weights": {name: weight for name, (_, weight) in tasks.items()},
        "main": "",
        "stage": 2,  # all levels from the start
        "trained": "all",
        "heatmap_radius": 5.0,
    }
    base.set_batches(config, {name: count for name, (count, _) in tasks.items()})
    config.optim.update(
        peak_lr=1e-3, start_lr=0.0, end_lr=0.0, warmup_fraction=0.05, b2=0.98,
        weight_decay=0.05, clip_norm=5.0,
    )  # fmt: skip
    config.total_steps = 3000
    config.ema_decay = 0.995
    config.eval_every = config.checkpoint_every = 500
    config.best_metric = ""
    drawn = base.synthetic(4 * PEOPLE, size, seed=5)
    config.data = {
        "train": {name: photos(name, "train") or drawn for name in tasks},
        "eval": {
            name: photos(name, "validation") or base.synthetic(512, size, seed=6)
            for name in tasks
            if not name.startswith("recog")
        },
        "eval_records": 512,
        "augmentation": {},
        "image_ids": "tokenizer",
        "tokenizer": "",
        "threads": 2,
        "workers": 0,
    }
    if small:
        _smaller(config)
    if arg == "parts":
        config.total_steps = 400
        base.set_batches(config, {name: count for name, (count, _) in tasks.items()})
    if arg == "naive":
        levels = (0, 1, 2, 3)
        config.model.update(design="heads", attribute_width=64, dense_width=64)
        config.model.update(attribute_levels=levels, dense_levels=levels)
    if arg == "last":
        config.model.decoder.new_levels = ()
        config.objective.stage = 1
    if arg.endswith(("tokens", "patches")):
        _on_gptface(config, "tokens" if arg.endswith("tokens") else "patches")
    if "tiny" in arg:
        base.tiny_faceptor(config)
    return config


def _smaller(config) -> None:
    """For a CPU: half as wide, and fewer pictures of the tasks that need fewer."""
    layers = {"num_layers": 4, "width": 96, "num_heads": 3, "mlp_width": 288}
    config.model.vit.transformer.update(**layers, unroll=4, drop_path=0.0)
    config.model.decoder.update(width=64, layers=2, mlp_width=128, unroll=2)
    config.model.decoder.update(levels=(3,), new_levels=(0, 1))
    config.model.update(source_level=3, embedding_width=64)
    for name in config.batch_size:
        config.batch_size[name] = 16 if name.startswith(("align", "parsing")) else 8
    config.optim.peak_lr = 2e-3
    config.total_steps = 2000
    config.ema_decay = 0.99


def photos(task: str, split: str):
    """The photographs of a task; None: it is of drawn faces."""
    folders = {"frames": "landmarks", "faces": "faces", "lfw": "lfw_attributes"}
    name = task.partition("_")[2]
    if name not in folders:
        return None
    path = f"{SHARED}/{folders[name]}"
    return {"kind": "parquet", "path": path, "split": split}


def _on_gptface(config, encoder: str) -> None:
    """The encoder is the GPTFace of `configs/gptface/faces64.py`."""
    from configs.gptface import faces64

    gptface = faces64.get_config().model
    config.model.encoder = encoder
    config.model.sequence = {
        "transformer": gptface.transformer.to_dict(),
        "vocab": gptface.vocab.to_dict(),
        "max_positions": 66,  # [CLS], 8 x 8 tokens or patches, [SEP]
        "embedding_init": gptface.embedding_init,
        "embedding_multiplier": gptface.embedding_multiplier,
        "patch": 8 if encoder == "patches" else 0,
    }
    layers = gptface.transformer.num_layers
    config.model.source_level = layers - 1
    config.model.decoder.update(levels=(layers - 1,), new_levels=(0, 1, 2))
