"""Naive Faceptor (SPEC C.7): the same encoder, a head for each family, 179 M.

The data of `base`; all tasks weigh the same, and the encoder's rate is a tenth.
"""

from configs import base
from configs.faceptor.base import TASKS, faceptor


def get_config(arg: str = ""):
    base.check(arg, "tiny")
    config = faceptor({name: (size, 1.0) for name, (size, _) in TASKS.items()})
    config.model.design = "heads"
    if arg == "tiny":
        base.tiny_faceptor(config)
    return config
