"""Sources of pictures, read or drawn once, into ArrayRecord shards.

`prepare` takes the records of one source as they are, on one machine (`local`). What
comes off the web goes through `stages` instead, which clean it, on any number of
machines (`beam`).
"""

from gptface_jax.data.prepare.local import Select, prepare

__all__ = ["Select", "prepare"]
