"""What every experiment shares; `tiny(config)` is what ":tiny" applies on top."""

from __future__ import annotations

from ml_collections import ConfigDict

# Where the prepared photographs are; data.train.path overrides it.
LFW = "../shared/data/lfw_attributes"


def base(system: str) -> ConfigDict:
    """The engine's settings; `gptface_jax.train.settings` documents each."""
    return ConfigDict(
        {
            "system": system,
            # A run or model directory whose weights a new run starts with.
            "init_from": "",
            "seed": 0,
            "total_steps": 1000,
            "batch_size": 32,
            "grad_accum": 1,
            "ema_decay": 0.0,
            "log_every": 50,
            "eval_every": 1000,
            "eval_batches": 0,
            "checkpoint_every": 1000,
            "keep": 2,
            "best_metric": "eval/loss",
            "best_mode": "min",
            "tensorboard": False,
            "wandb": "",
            "sample_every": 0,
            "early_stop": {"metric": "", "patience": 5},
            "profile_steps": 0,
            # data, fsdp, tensor, mixed or two_slices; sizes as mesh.fsdp=8.
            "mesh": {"preset": "data"},
            "optim": {
                "method": "adamw",
                "peak_lr": 1e-3,
                "start_lr": 2e-4,
                "end_lr": 1e-5,
                "warmup_fraction": 0.01,
                "schedule": "cosine",
                "b1": 0.9,
                "b2": 0.999,
                "eps": 1e-6,
                "bias_correction": True,
                "weight_decay": 0.01,
                "clip_norm": 1.0,
            },
        }
    )


def set_batches(config: ConfigDict, sizes: dict) -> None:
    """Gives every feed a size of its own: {feed: examples a step}."""
    del config["batch_size"]  # a number stays a number otherwise
    config.batch_size = sizes


def photos(split: str) -> dict:
    return {"kind": "parquet", "path": LFW, "split": split}


def synthetic(count: int, size: int, seed: int = 0) -> dict:
    return {"kind": "synthetic", "count": count, "size": size, "seed": seed}


def token_caches(*names: str) -> dict:
    """Folders that `gptface tokenize` wrote under tokens/, mixed by their sizes."""
    parts = tuple({"kind": "tokens", "path": f"tokens/{n}"} for n in names)
    return {"kind": "mixture", "sources": parts}


def tiny(config: ConfigDict) -> ConfigDict:
    """A few steps, every one logged; the caller shrinks the model."""
    config.total_steps = 4
    if isinstance(config.batch_size, int):
        config.batch_size = 4
    config.log_every = 1
    config.eval_every = config.checkpoint_every = 2
    config.data.eval_records = 8
    return config


def tiny_gptface(config: ConfigDict) -> ConfigDict:
    """`tiny` for GPTFace: no token cache, no vocabulary file, an 8 x 8 grid."""
    tiny(config)
    # On any machine; and what is compiled for one is often right for another.
    gptface = base("gptface")
    config.optim, config.mesh = gptface.optim, gptface.mesh
    config.model.transformer.num_layers = config.model.transformer.unroll = 2
    config.model.transformer.width = 16
    config.model.transformer.num_heads = 2
    config.model.transformer.mlp_width = 24
    config.model.layout.grid = (8, 8)
    config.model.layout.max_text_tokens = 12
    config.model.layout.multiple_of = 8
    config.model.vocab.codebook_size = 27
    config.model.max_positions = 80
    config.model.cross_modal_heads = min(1, config.model.get("cross_modal_heads", 0))
    # All losses from the first step on.
    config.objective.alignment_alone = config.objective.matching_alone = 0.0
    config.objective.text_fraction = 1.0
    config.data.image_ids = "palette"
    config.data.vocab = ""
    config.data.vocab_size = 200
    config.data.workers = 0
    config.data.train = synthetic(64, 32)
    config.data.eval = synthetic(8, 32, seed=1)
    return config


def tiny_talk2face(config: ConfigDict) -> ConfigDict:
    """`tiny` for Talk2Face: no token cache, no vocabulary file, an 8 x 8 grid."""
    tiny(config)
    default = base("talk2face")
    config.optim, config.mesh = default.optim, default.mesh
    transformer = config.model.transformer
    transformer.num_layers = transformer.unroll = 2
    transformer.update(width=16, num_heads=2, mlp_width=24, dtype="float32")
    config.model.update(grid=(8, 8), length=104, max_positions=184)
    config.model.vocab.codebook_size = 27
    config.data.update(image_ids="palette", vocab="", vocab_size=400, workers=0)
    config.data.train = synthetic(64, 32)
    config.data.eval = synthetic(8, 32, seed=1)
    config.data.captions = config.data.eval_captions = {"max_phrases": 4}
    config.data.tasks.update(max_attributes=4, max_prefix=36)
    return config


def tiny_faceptor(config: ConfigDict, all_tasks: bool = False) -> ConfigDict:
    """`tiny` for Faceptor: every data set is drawn faces of 32 px, nets are small."""
    tiny(config)
    config.batch_size.update({name: 2 for name in config.batch_size})
    config.optim, config.mesh = base("faceptor").optim, base("faceptor").mesh
    model = config.model
    stage2 = len(model.decoder.new_levels) > 0
    layers = {"num_layers": 2, "width": 16, "num_heads": 2, "mlp_width": 24}
    model.vit.transformer.update(**layers, unroll=1)
    model.vit.update(patch=8, grid=4, output_width=0)
    model.decoder.update(width=16, layers=1, heads=2, mlp_width=24, unroll=1)
    model.decoder.update(levels=(1,), new_levels=(0,) if stage2 else ())
    model.update(source_level=1, embedding_width=8)
    model.update(attribute_resolution=32, dense_resolution=32)
    model.update(attribute_levels=(0, 1), attribute_width=32, dense_width=8)
    model.dense_levels = (0, 0, 1, 1)
    if "sequence" in model:
        model.sequence.transformer.update(**layers, unroll=1)
        model.sequence.vocab.codebook_size = 27
        model.sequence.max_positions = 18
    # As many points as drawn faces have.
    queries = {"align": 68}
    if not all_tasks:
        _one_of_each_family(config)
    model.tasks = tuple(
        {
            "name": task["name"],
            "queries": queries.get(task["name"].partition("_")[0], 0),
            "identities": 16 if task["identities"] else 0,
        }
        for task in model.tasks
    )
    config.objective.heatmap_side = 0
    config.data.update(image_ids="palette", workers=0, augmentation={})
    config.data.train = synthetic(64, 32)
    config.data.eval = synthetic(8, 32, seed=1)
    return config


def _one_of_each_family(config: ConfigDict) -> None:
    """Leaves the first trained task of each family: others take long to compile."""
    first = {}
    for name in config.batch_size:
        first.setdefault(name.partition("_")[0], name)
    for values in (config.batch_size, config.objective.weights):
        for name in [n for n in values if n not in first.values()]:
            del values[name]


def tiny_shared(config: ConfigDict) -> ConfigDict:
    """`tiny` for a GPTFace that is a Talk2Face as well."""
    objective = config.objective.to_dict()
    config.objective = config.objective.pairs
    tiny_gptface(config)
    config.objective = objective | {"pairs": config.objective.to_dict()}
    config.model.update(length=104, max_positions=184)
    config.data.vocab_size = 400
    config.data.tasks.update(max_attributes=4, max_prefix=36)
    config.data.tasks.captions = config.data.captions.to_dict() | {"max_phrases": 4}
    return config


def check(arg: str, *allowed: str) -> str:
    """The part after the colon of --config=file.py:arg."""
    if arg not in ("", *allowed):
        known = ", ".join(allowed)
        raise ValueError(f"config argument '{arg}' is unknown; use {known}, or none")
    return arg
