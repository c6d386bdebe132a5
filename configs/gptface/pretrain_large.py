"""The paper's recipe at about a billion parameters, for a pod: fsdp x tensor.

Everything but the sizes is that of `pretrain_base.py`: 24 layers of width 1,536, batch
1,024. Its mesh splits the state over all chips of a slice and each layer in two.
":tiny" is small.
"""

from configs import base
from configs.gptface import pretrain_base


def get_config(arg: str = ""):
    base.check(arg, "tiny")
    config = pretrain_base.get_config()
    config.model.transformer.num_layers = 24
    config.model.transformer.width = 1536
    config.model.transformer.num_heads = 24
    config.model.transformer.mlp_width = 6144
    config.batch_size = 1024
    config.optim.peak_lr = 4e-4
    config.optim.start_lr = 4e-5
    config.mesh.update(data=1, fsdp=-1, tensor=2)
    if arg == "tiny":
        base.tiny_gptface(config)
    return config
