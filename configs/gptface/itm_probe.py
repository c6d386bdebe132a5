"""What makes matching leave chance and codes follow the text: one run a variant.

Every variant changes one thing of ":control"; `gptface train --config
configs/gptface/itm_probe.py:VARIANT --workdir runs/probe/VARIANT`. What
was found with them is in docs/results.md. Reads tokens/synthetic_train and
tokens/synthetic_validation.
"""

from configs import base
from configs.gptface import faces64

VARIANTS = {
    # The paper's recipe: pooled loss, curriculum from 15 %, random negatives.
    "paper": {},
    # Matching alone, on whole pictures and texts: can it be learnt at all?
    "itm_only": {
        "objective.image_weight": 0.0,
        "objective.text_weight": 0.0,
        "objective.clean_fraction": 1.0,
        "objective.text_ratio": 0.0,
    },
    "control": {},
    "no_alignment": {
        "objective.contrastive_weight": 0.0,
        "objective.word_bag_weight": 0.0,
        "objective.alignment_alone": 0.0,
    },
    "contrastive_only": {"objective.word_bag_weight": 0.0},
    "word_bag_only": {"objective.contrastive_weight": 0.0},
    "no_matching_alone": {"objective.matching_alone": 0.0},
    "all_layers": {"objective.alignment_layers": 0},
    "quiet_embeddings": {"model.embedding_multiplier": 1.0},
    "no_cross_modal_heads": {"model.cross_modal_heads": 0},
    "hidden_negatives": {"objective.hidden_negatives": True},
    "all_texts_masked": {"objective.text_fraction": 1.0, "objective.text_weight": 1.0},
    "unpaired": {"objective.paired": False, "batch_size": 64},
    "sentences_only": {"data.captions.tags": 0.0},
    "no_wide_text": {"objective.text_wide_fraction": 0.0},
    "no_hard": {"data.captions.hard_fraction": 0.0},
    "normal_init": {
        "model.transformer.init": "normal",
        "model.embedding_init": 0.02,
    },
    "no_qk_norm": {"model.transformer.qk_norm": False},
    "low_mask": {"objective.wide_range": (0.1, 0.2)},
    "lr_low": {"optim.peak_lr": 5e-4},
    "lr_high": {"optim.peak_lr": 3e-3},
    "small_batch": {"batch_size": 16},
    "few_phrases": {"data.captions.max_phrases": 2},
    "many_phrases": {"data.captions.max_phrases": 10},
}


def get_config(arg: str = "control"):
    arg = base.check(arg, *VARIANTS, "tiny") or "control"
    if arg == "tiny":
        return faces64.get_config("tiny")
    literal = arg in ("paper", "itm_only")
    config = faces64.get_config("paper" if literal else "")
    config.total_steps = 500
    if not literal:
        config.objective.alignment_alone = 0.3
        config.objective.alignment_until = 0.5
        config.objective.matching_alone = 0.2
    config.eval_every = 100
    config.checkpoint_every = 0
    config.ema_decay = 0.0
    config.data.train = {"kind": "tokens", "path": "tokens/synthetic_train"}
    config.data.eval = {"kind": "tokens", "path": "tokens/synthetic_validation"}
    for name, value in VARIANTS[arg].items():
        node = config
        *parents, last = name.split(".")
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config
