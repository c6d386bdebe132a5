"""GPTFace and Talk2Face at 128 px on one set of weights: 256 image tokens, for CPU.

The recipe of `configs/gptface/shared.py` on the 4,096 codes of
`configs/vqgan/faces128.py:cpu`: 5.0 M parameters, as many sequences of each system in
every step. ":gpu" is three times as large, in bfloat16. Photographs upright and as they
are, and drawn faces, tokenized once:

  for set in lfw_attributes_upright lfw_attributes_landmarks faces_landmarks drawn; do
    gptface tokenize --images runs/data/$set --mirror --tokenizer vqgan128 \\
        --out tokens/128/$set
  done
  gptface tokenize --images ../shared/data/masks --split train --mirror \\
      --data classes="{'Wearing_Mask': 'label=mask'}" --tokenizer vqgan128 \\
      --out tokens/128/masks
  gptface tokenize --images ../shared/data/lfw_attributes --split validation \\
      --upright --tokenizer vqgan128 --out tokens/128/lfw_validation
  gptface tokenize --images synthetic --seed 1 --limit 500 --data size=128 \\
      --tokenizer vqgan128 --out tokens/128/drawn_validation

(the pictures of `runs/data` are those that the tokenizer is trained on, see there).
"""

from configs import base
from configs.gptface import faces64, shared


def tokens(*names: str) -> dict:
    return faces64.tokens(*(f"128/{name}" for name in names))


def get_config(arg: str = ""):
    base.check(arg, "tiny", "gpu")
    config = shared.get_config("tiny" if arg == "tiny" else "")
    if arg == "tiny":
        return config
    config.model.transformer.update(width=256, mlp_width=688)
    config.model.update(embedding_init=0.05, embedding_multiplier=16.0)
    config.model.layout.update(grid=(16, 16))
    config.model.vocab.codebook_size = 4096
    # Twice as many attributes after a picture as at 64 px: each is one more lesson.
    config.model.update(length=352, max_positions=384, contrastive_width=128)
    config.data.tasks.max_attributes = 18
    captioned = ("lfw_attributes_upright", "lfw_attributes_landmarks", "masks", "drawn")
    config.data.train = {
        "pairs": tokens(*captioned),
        "sequences": tokens(*captioned, "faces_landmarks"),
    }
    attributes = (*faces64.RELIABLE, "Wearing_Mask")
    for captions in (config.data, config.data.tasks):
        captions.captions.attributes = attributes
    config.data.eval = {
        "pairs": tokens("lfw_validation"),
        "sequences": tokens("lfw_validation", "drawn_validation"),
    }
    config.optim.peak_lr = 1.2e-3
    config.total_steps = 3200  # 204,800 sequences
    # As many steps as at 64 px, which has twice as many in all: after half of them
    # pictures and words are not aligned yet.
    config.objective.pairs.update(
        alignment_alone=0.16, alignment_until=0.26, matching_alone=0.1
    )
    config.ema_decay = 0.998
    if arg == "gpu":
        config.model.transformer.update(
            num_layers=8, width=384, num_heads=6, mlp_width=1024, unroll=1,
            dropout=0.1, dtype="bfloat16", attention="xla",
        )  # fmt: skip
        config.model.update(embedding_init=0.05, embedding_multiplier=19.6)
        config.model.cross_modal_heads = 3
        config.objective.pairs.alignment_layers = 4
        config.optim.peak_lr = 1e-3
        config.batch_size = 128
        config.data.workers = 3
    return config
