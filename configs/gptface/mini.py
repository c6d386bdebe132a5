"""GPTFace `mini` (SPEC 0.3): 128 px at f = 16, 64 image tokens, 16.5 M parameters.

The recipe of `faces64` in a wider and deeper model, for minutes of one GPU;
docs/mini.md has the whole way. Reads the caches that `gptface tokenize` writes with the
tokenizer of `configs/vqgan/faces128.py:mini`: tokens/mini/lfw_train and so on.
"""

from configs import base
from configs.gptface import faces64


def tokens(*names: str) -> dict:
    return faces64.tokens(*(f"mini/{name}" for name in names))


def get_config(arg: str = ""):
    base.check(arg, "tiny")
    config = faces64.get_config(arg)
    if arg:
        return config
    config.model.transformer.update(
        num_layers=8, width=384, num_heads=6, mlp_width=1024, unroll=1, dropout=0.1,
        dtype="bfloat16", attention="xla",
    )  # fmt: skip
    config.model.layout.update(max_text_tokens=34, multiple_of=8)
    config.model.max_positions = 104
    config.model.embedding_init = 0.05
    config.model.embedding_multiplier = 19.6
    config.model.cross_modal_heads = 3
    config.model.contrastive_width = 128
    config.objective.alignment_layers = 4
    config.optim.peak_lr = 1e-3
    config.ema_decay = 0.998
    config.batch_size = 256
    config.total_steps = 3000
    config.eval_every = config.checkpoint_every = 500
    config.log_every = 100
    config.data.train = tokens("lfw_train", "synthetic_train")
    config.data.eval = tokens("lfw_validation")
    config.data.vocab_size = config.model.vocab.text_size = 2048
    config.data.workers = 3
    return config
