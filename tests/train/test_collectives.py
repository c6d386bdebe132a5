"""Collectives read from HLO: written by hand, and of a program that was compiled."""

import types

import numpy as np
import pytest

from gptface_jax.train.planning import collectives

HLO = """HloModule jit_f
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %all-reduce.1 = f32[4]{0} all-reduce(%x), channel_id=1, replica_groups=[4,2]<=[8], \
use_global_device_ids=true, to_apply=%add, metadata={op_name="jit(f)/while/body/psum"}
}
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}
ENTRY %main (p0: f32[4]) -> f32[4] {
  %loop = (s32[], f32[4]) while(%t), condition=%cond, body=%body, \
backend_config={"known_trip_count":{"n":"12"}}
  %ag = bf16[8,16]{1,0} all-gather(%p), replica_groups={{0,2},{1,3},{4,6},{5,7}}, \
dimensions={0}, metadata={op_name="jit(f)/gather"}
  %rs = f32[2,4]{1,0} reduce-scatter(%p), replica_groups=[2,4]<=[2,4]T(0,1), \
to_apply=%add
  %ags = (f32[4]{0}, f32[8]{0}) all-gather-start(%p), \
replica_groups=mesh['x'=2,'y'=4], device_ids=([2,2,2]T(1,0,2)) {'x'}, dimensions={0}
  %agd = f32[8]{0} all-gather-done(%ags)
  %part = f32[16]{0} all-gather(%p), \
replica_groups=mesh['x'=8] {'x':(2)2}, dimensions={0}
  %cp = f32[8]{0} collective-permute(%p), source_target_pairs={{0,4},{4,0}}
  %self = f32[4]{0} all-reduce(%p), replica_groups=[8,1]<=[8], to_apply=%add
  %all = f32[] all-reduce(%p), replica_groups={}, to_apply=%add
}
"""
MESH = types.SimpleNamespace(
    axis_names=("data", "fsdp", "tensor"), devices=np.empty((2, 2, 2)), size=8
)


def test_kinds_axes_bytes_and_loops():
    found = collectives.of_program(HLO, MESH)
    shown = [(c.kind, c.axes, c.ways, c.bytes, c.count) for c in found]
    assert shown == [
        ("all-reduce", ("tensor",), 2, 16, 12),
        ("all-gather", ("fsdp",), 2, 256, 1),
        ("reduce-scatter", ("fsdp", "tensor"), 4, 128, 1),
        ("all-gather", ("fsdp",), 2, 32, 1),
        ("all-gather", ("fsdp",), 2, 64, 1),
        ("collective-permute", ("data",), 2, 32, 1),
        ("all-reduce", ("data", "fsdp", "tensor"), 8, 4, 1),
    ]
    assert found[0].source == "jit(f)/while/body/psum"


def test_bytes_on_the_wire_by_the_ring_algorithms():
    reduce, gather, scatter, *_, permute, _ = collectives.of_program(HLO, MESH)
    assert reduce.wire_bytes == pytest.approx(2 * 16 / 2 * 12)
    assert gather.wire_bytes == pytest.approx(256 / 2)
    assert scatter.wire_bytes == pytest.approx(128 * 3 / 4)
    assert permute.wire_bytes == 32
    totals = collectives.total(collectives.of_program(HLO, MESH))
    assert list(totals)[0] == ("all-reduce", ("tensor",))
    assert totals["all-gather", ("fsdp",)] == pytest.approx(128 + 16 + 32)


@pytest.mark.parametrize(
    "condition,times",
    [
        ("%bound = s32[]{:T(128)} constant(6)", 6),
        ("%bound = u32[]{:T(128)} constant(6)", 1),
        ("%a = s32[] constant(6)\n  %b = s32[] constant(3)", 1),
    ],
)
def test_loops_whose_trips_only_the_condition_tells(condition, times):
    known = 'backend_config={"known_trip_count":{"n":"12"}}'
    text = HLO.replace(known, "backend_config={}").replace(
        "ENTRY", f"%cond (p: (s32[], f32[4])) -> pred[] {{\n  {condition}\n}}\nENTRY"
    )
    assert collectives.of_program(text, MESH)[0].count == times
