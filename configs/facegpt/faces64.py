"""FaceGPT for 64 px on CPU: 3D faces in the tokens of the bundled GPTFace.

    gptface prepare --images rendered --limit 8000 --data size=64 \\
      --out pictures/rendered
    gptface prepare --images rendered --limit 512 --seed 1 --data size=64 \\
      --out pictures/rendered_eval
    gptface train --config configs/facegpt/faces64.py --workdir runs/facegpt

Starts with the weights and the tokenizer of the model "demo64". Photographs are learnt
by analysis and synthesis where there are some with landmarks:
--config.data.train.photos="{'kind': 'arrayrecord', 'path': 'pictures/photos'}", which
`gptface prepare --upright --size 64` made; pairs of GPTFace beside them, so that
nothing is forgotten: --config.data.train.pairs and --config.data.eval.pairs, caches.
":discrete" makes codes of the coefficients, ":single" one token of all.
":unsupervised" learns without known coefficients, ":no_landmarks" without landmarks.
"""

from configs import base
from configs.gptface import faces64

_VOCABULARY = {"grouped": 5, "single": 1, "discrete": 5 + 20 * 64}
_POSITIONS = {"grouped": 5, "single": 1, "discrete": 20}


def rendered(count: int, size: int, seed: int = 0) -> dict:
    return {"kind": "rendered", "count": count, "size": size, "seed": seed}


def get_config(arg: str = ""):
    base.check(arg, "tiny", "single", "discrete", "unsupervised", "no_landmarks")
    config = faces64.get_config()
    config.system = "facegpt"
    config.init_from = "demo64"
    scheme = arg if arg in ("single", "discrete") else "grouped"
    config.model.vocab.face_tokens = _VOCABULARY[scheme]
    config.model.faces = {"scheme": scheme}
    # After GPTFace's positions.
    config.model.max_positions = 98 + _POSITIONS[scheme]
    config.objective = {
        "faces": {"truth": 1.0, "warm_start": 0.3, "size": 64},
        "pairs": config.objective.to_dict(),
        "retention": 1.0,
    }
    # What was learnt before has been learnt: no more of it alone.
    config.objective.pairs.update(
        alignment_alone=0.0, alignment_until=0.0, matching_alone=0.0
    )
    config.optim.peak_lr = 5e-4
    config.total_steps = 4000
    config.batch_size = 32
    config.eval_every = config.checkpoint_every = 200
    config.best_metric = "eval/vertex_mm"
    config.data.update(
        tokenizer="demo64",
        codebook_init=False,
        face_model="procedural",
        face_vertices=0,
        captions={"from_labels": False},
        eval_captions={"from_labels": False},
    )
    config.data.train = {"rendered": _shards("rendered"), "photos": {}, "pairs": {}}
    config.data.eval = {"rendered": _shards("rendered_eval"), "pairs": {}}
    if arg == "unsupervised":
        config.objective.faces.update(truth=0.0, calibration=0.0, warm_start=0.0)
    if arg == "no_landmarks":
        config.objective.faces.landmarks = 0.0
    if arg == "tiny":
        tiny(config)
    return config


def _shards(name: str) -> dict:
    return {"kind": "arrayrecord", "path": f"pictures/{name}"}


def tiny(config):
    """A few steps of all three feeds, without files: codes of colours, small meshes."""
    config.init_from = ""
    pairs = config.objective.to_dict()
    faces = pairs.pop("faces")
    config.objective = config.objective.pairs
    base.tiny_gptface(config)
    faces.update(warm_start=0.5, size=16)
    config.objective = {
        "faces": faces, "pairs": config.objective.to_dict(), "retention": 1.0
    }  # fmt: skip
    config.model.max_positions = 80 + 5
    config.data.update(face_vertices=300, tokenizer="")
    config.data.vocab_size = 300
    drawn = config.data.train, config.data.eval
    heads = {**rendered(16, 32), "max_vertices": 300}
    config.data.train = {"rendered": heads, "photos": drawn[0], "pairs": drawn[0]}
    config.data.eval = {"rendered": {**heads, "seed": 1, "count": 8}, "pairs": drawn[1]}
    return config
