"""shards against their manifest, all of them or a sample

  gptface data check --images sets/laion_face
  gptface data check --images sets/laion_face --sample 10000

Without --sample every shard's SHA-256 is compared and every picture decoded. Prints
JSON; the exit status is 2 where anything is wrong.
"""

from __future__ import annotations

import argparse
import json

from gptface_jax.cli.data import _shared
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_arguments(parser, sample=0)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.data.inspection import check

    found, count = _shared.open_set(options), _shared.sample(options)
    total = len(found) if count is None else min(count, len(found))
    with _shared.bar(options, total) as progress:
        result = check.check(found, count, progress)
    print(json.dumps(result, indent=2))
    if result["faults"]:
        worst = ", ".join(f"{k} ({n})" for k, n in result["faults"].items())
        raise UserError(f"'{options.images}' has faults: {worst}; prepare it again")
