"""Faceptor-Full as published (SPEC C.5): six tasks on thirteen data sets.

As `base`, with more data sets; those of one family share all but their queries.
"""

from configs import base
from configs.faceptor.base import faceptor

TASKS = {
    "align_300w": (4, 250.0),
    "align_wflw": (4, 250.0),
    "align_cofw": (4, 250.0),
    "align_aflw": (4, 250.0),
    "parsing_celebam": (4, 100.0),
    "parsing_lapa": (4, 100.0),
    "age_morph2": (64, 4.0),
    "age_utkface": (16, 1.0),
    "affect_affectnet": (64, 6.66),
    "affect_rafdb": (16, 1.67),
    "affect_ferplus": (16, 1.67),
    "biattr_celeba": (64, 2.0),
    "recog_ms1mv3": (256, 5.0),
}


def get_config(arg: str = ""):
    base.check(arg, "tiny")
    config = faceptor(TASKS)
    if arg == "tiny":
        base.tiny_faceptor(config, all_tasks=True)
    return config
