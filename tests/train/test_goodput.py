"""Where the wall time goes, by a clock of our own."""

import pytest

from gptface_jax.train.goodput import WallTime


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_shares_by_hand():
    clock = Clock()
    wall = WallTime(clock)
    clock.now = 4.0  # opened
    wall.lost(6.0)  # steps that another process took in vain
    wall.opened()
    with wall.spent("compile"):
        clock.now = 6.0
    clock.now = 10.0
    found = wall.take()
    assert found == {
        "seconds": 16.0,
        "time/step": 4 / 16,
        "time/restart": 10 / 16,
        "time/compile": 2 / 16,
    }
    wall.add("input", 0.5)
    with pytest.raises(RuntimeError), wall.spent("evaluation"):
        with wall.spent("checkpoint"):
            clock.now = 11.0
            raise RuntimeError
    clock.now = 12.0
    assert wall.take() == {
        "seconds": 2.0,
        "time/step": 0.25,
        "time/input": 0.25,
        "time/checkpoint": 0.5,
    }


def test_shares_are_of_one():
    clock = Clock()
    wall = WallTime(clock)
    for part in ("input", "evaluation", "checkpoint"):
        wall.add(part, 1.0)
    clock.now = 4.0
    found = wall.take()
    assert sum(v for k, v in found.items() if k.startswith("time/")) == 1.0
