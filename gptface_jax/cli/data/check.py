"""shards against their manifest, all of them or a sample

  gptface data check --images sets/laion_face
  gptface data check --images sets/laion_face --sample 10000

Without --sample every shard's SHA-256 is compared with its manifest, if that holds it,
and every picture decoded. With --sample no digest is: it would take reading it all.
Prints JSON with all faults; the exit status is 2 where there is one.
"""

from __future__ import annotations

import argparse
import collections
import json

from gptface_jax.cli.data import _shared
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_arguments(parser, sample=0)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.data.inspection import check

    count, unopened = _shared.sample(options), collections.Counter()
    found = _shared.open_set(options, unopened)
    total = len(found) if count is None else min(count, len(found))
    with _shared.bar(options, total) as progress:
        result = check.check(found, count, progress, unopened)
    print(json.dumps(result, indent=2))
    if result["faults"]:
        worst = ", ".join(f"{k} ({n})" for k, n in result["faults"].items())
        raise UserError(f"'{options.images}' has faults: {worst}; prepare it again")
