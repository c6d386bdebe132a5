"""Talk2Face `mini` (SPEC 0.3): 128 px at f = 16, 64 image tokens, 15.6 M parameters.

The recipe of `faces64` in a wider and deeper model, for minutes of one GPU, on the
caches of `configs/gptface/mini.py`.
"""

from configs import base
from configs.gptface import mini
from configs.talk2face import faces64


def get_config(arg: str = ""):
    base.check(arg, "tiny")
    config = faces64.get_config(arg)
    if arg:
        return config
    config.model.transformer.update(
        num_layers=8, width=384, num_heads=6, mlp_width=1024, unroll=1, dropout=0.1,
        dtype="bfloat16", attention="xla",
    )  # fmt: skip
    config.model.embedding_init = 0.05
    config.model.embedding_multiplier = 19.6
    config.optim.peak_lr = 1e-3
    config.ema_decay = 0.998
    config.batch_size = 256
    config.total_steps = 3000
    config.eval_every = config.checkpoint_every = 500
    config.log_every = 100
    config.data.train = mini.tokens("lfw_train", "synthetic_train")
    config.data.eval = mini.tokens("lfw_validation", "synthetic_validation")
    config.data.vocab_size = config.model.vocab.text_size = 2048
    config.data.workers = 3
    return config
