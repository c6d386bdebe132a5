"""What a compiler expects of a program, read from HLO written by hand."""

import pytest

from gptface_jax.train.planning import estimates

HLO = """HloModule jit_f
%fused_product (p: bf16[8,4]) -> bf16[8,2] {
  %w = bf16[4,2]{1,0} parameter(1)
  ROOT %out = bf16[8,2]{1,0} convolution(%p, %w), dim_labels=bf_io->bf
}
%inner (p: f32[8]) -> f32[8] {
  ROOT %sum = f32[8]{0} reduce(%p, %zero), dimensions={1}, to_apply=%add
}
%fused_norm (p: f32[8]) -> f32[8] {
  %t = f32[8]{0} transpose(%p), dimensions={0}
  ROOT %nested = f32[8]{0} fusion(%t), kind=kLoop, calls=%inner
}
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %f.1 = (bf16[8,2]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/f32[8]{0}) fusion(%a), \
kind=kOutput, calls=%fused_product, metadata={op_name="jit(f)/while/body/dot"}, \
backend_config={"window_config":{"estimated_cycles":"1000"}}
  %k = f32[8]{0} custom-call(%b), custom_call_target="tpu_custom_call", \
frontend_attributes={kernel_metadata={
"xprof_metadata":"{block_q: 512}"
}}, metadata={op_name="jit(f)/while/body/splash"}
  %f.2 = f32[8]{0} fusion(%b), kind=kLoop, calls=%fused_norm, \
backend_config={"estimated_cycles":"30"}
}
%cond (p: (s32[], f32[4])) -> pred[] {
  %n = s32[] constant(12)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}
ENTRY %main (p0: f32[4]) -> f32[4] {
  %loop = (s32[], f32[4]) while(%t), condition=%cond, body=%body
  %copy.1 = f32[4]{0} copy(%p0), backend_config={"estimated_cycles":"7"}
  %s = f32[4]{0} scatter(%p0, %p0, %p0), \
backend_config={"estimated_cycles":"9223372036854775807"}
  %free = f32[4]{0} bitcast(%p0), backend_config={"estimated_cycles":"0"}
  %add.1 = f32[4]{0} add(%p0, %p0), backend_config={"estimated_cycles":"5"}
}
"""


def test_instructions_are_told_apart_and_loops_multiply():
    found = estimates.of_program(HLO)
    shown = [(op.kind, op.cycles, op.count, op.shape) for op in found]
    assert shown == [
        ("products", 1000, 12, "(bf16[8,2], f32[8])"),
        ("sums", 30, 12, "f32[8]"),  # which a fusion inside a fusion adds up
        ("copies", 7, 1, "f32[4]"),
        ("elementwise", 5, 1, "f32[4]"),
        ("kernels", 0, 12, "f32[8]"),
        ("gathers", 0, 1, "f32[4]"),  # said to be unknown
    ]
    assert found[0].source == "jit(f)/while/body/dot" and found[1].source == ""
    kinds = estimates.by_kind(found)
    assert list(kinds.items())[:4] == [
        ("products", 12_000), ("sums", 360), ("copies", 7), ("elementwise", 5)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "HloModule x\nENTRY %e (p: f32[]) -> f32[] {\n}"])
def test_compilers_that_expect_nothing(text):
    assert estimates.of_program(text) == []
