"""Which part of the model or of the training an instruction counts for, and that the parts add up to the whole."""

import dataclasses

import jax
import pytest
from training_batches import batch

from embed.compilation import hlo
from embed.compilation.chips import Chip
from embed.compilation.hlo import Cost
from embed.compilation.parts import EXCHANGE, OTHER, part_of, parts, pass_of
from embed.losses.contrastive import Contrastive
from embed.models import api
from embed.models.embedder import Embedder
from embed.models.gemma import Gemma
from embed.models.pooling import MeanPooling
from embed.objectives.pairs import Pairs
from embed.training.optimizers import adamw
from embed.training.state import create
from embed.training.step import make_step

CHIP = Chip("made up", 1e9, flops=1e12, bandwidth=1e9, exchange=1e9, clock=1e6)


def cost(scope="", opcode="fusion", **numbers) -> Cost:
    return dataclasses.replace(Cost(scope, opcode, 0.0, 0.0, 0.0, 0.0), **numbers)


STACK = "jit(step)/jvp(Embedder.run)/Embedder/encoder/stack/while/body/closed_call/layers"


@pytest.mark.parametrize(
    ("scope", "part"),
    [
        (f"{STACK}/attention/query/BLD,DHK->BLHK/dot_general", "attention"),
        (f"{STACK}/attention/query_norm/mul", "norms"),
        (f"{STACK}/attention_post_norm/reduce_sum", "norms"),
        (f"{STACK}/cross_attention/key/dot_general", "attention"),
        (f"{STACK}/mlp/down/dot_general", "mlp"),
        (f"{STACK}/add", "blocks: sums, loops"),
        ("jit(step)/transpose(jvp(Embedder.run))/Embedder/encoder/embedding/jit(_take)/scatter-add", "token table"),
        ("jit(step)/jvp(Embedder.run)/Embedder/projection_0/dot_general", "before and after blocks"),
        ("jit(step)/jvp(loss)/exp", "loss"),
        ("jit(step)/optimizer/mul", "optimizer"),
        ("jit(step)/reduce_sum", OTHER),
        ("", OTHER),
    ],
)
def test_the_part_of_a_scope(scope, part):
    assert part_of(cost(scope)) == part


@pytest.mark.parametrize("opcode", ["all-reduce", "all-gather-start", "reduce-scatter"])
def test_an_exchange_is_one_wherever_it_came_of(opcode):
    assert part_of(cost(f"{STACK}/mlp/down", opcode)) == EXCHANGE


def test_the_pass_of_a_scope():
    again = "jit(step)/transpose(jvp(E))/layers/checkpoint/rematted_computation/mlp/dot_general"
    assert pass_of(cost(again)) == "again"
    assert pass_of(cost("jit(step)/transpose(jvp(E))/layers/mlp/dot_general")) == "backward"
    assert pass_of(cost("jit(step)/jvp(E)/layers/mlp/dot_general")) == "forward"
    assert pass_of(cost("jit(step)/while/body/layers/mlp/dot_general")) == "forward"
    # Cached gradients: each micro-batch is embedded again, and then led back.
    assert pass_of(cost("jit(step)/while/body/again/jvp(E)/layers/mlp/dot_general")) == "again"
    assert pass_of(cost("jit(step)/while/body/transpose(again)/jvp(E)/layers/mlp/dot_general")) == "backward"
    assert pass_of(cost("jit(step)/optimizer/mul")) is None
    assert pass_of(cost("jit(step)/jvp(E)/layers/mlp/gather", "all-gather")) is None and pass_of(cost()) is None


def test_parts_are_summed_and_the_slowest_comes_first():
    costs = [
        cost("a/jvp(E)/mlp/x", flops=4e12, cycles=1e6),
        cost("a/transpose(jvp(E))/mlp/y", bytes=1e9, cycles=3e6),
        cost("a/jvp(E)/attention/splash", kernel_flops=5e12, flops=5e12),
        cost("a/optimizer/z", bytes=6e9, cycles=2e6),
    ]
    attention, mlp, optimizer = parts(costs, CHIP)
    assert (attention.name, attention.seconds, attention.bound) == ("attention", 10.0, 5.0)
    assert (mlp.name, mlp.seconds, mlp.passes, mlp.flops, mlp.bytes) == ("mlp", 4.0, (1.0, 0.0, 3.0), 4e12, 1e9)
    assert mlp.bound == 4.0 and (optimizer.seconds, optimizer.bound, optimizer.passes) == (2.0, 6.0, (0.0, 0.0, 0.0))
    assert [part.name for part in parts(costs, None)] == ["optimizer", "mlp", "attention"]


@pytest.mark.parametrize(("remat", "micro_batches"), [("none", 1), ("full", 1), ("none", 4)])
def test_the_parts_of_a_step_add_up_to_its_work(remat, micro_batches):
    encoder = Gemma(
        48, 16, 2, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=24, window=4, global_every=2, remat=remat
    )
    objective = Pairs(Contrastive(0.2), api.build(Embedder(encoder, MeanPooling(), (6,), (3,))))
    optimizer, given = adamw(0.1), batch(vocab=48, parts=micro_batches)
    state = jax.eval_shape(lambda: create(objective, optimizer, 0))
    text = jax.jit(make_step(objective, optimizer, seed=0)).lower(state, given).compile().as_text()
    costs, work = hlo.Program(text).costs(), hlo.work(text)
    assert sum(c.flops for c in costs) == work.flops and sum(c.bytes for c in costs) == pytest.approx(work.bytes)
    by_name = {part.name: part for part in parts(costs, CHIP)}
    assert {"attention", "mlp", "norms", "token table", "loss", "optimizer"} <= set(by_name)
    passes = {pass_of(c) for c in costs if c.flops}
    assert passes == {"forward", "backward"} | (set() if (remat, micro_batches) == ("none", 1) else {"again"})


def test_a_nameless_instruction_counts_as_what_it_reads():
    text = """HloModule m

ENTRY %main (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0), metadata={op_name="state.params['mlp']"}
  %copy.1 = f32[8]{0} copy(%p)
  ROOT %copy.2 = f32[8]{0} copy(%copy.1)
}
"""
    first, second = hlo.Program(text).costs()
    assert (first.scope, second.scope) == ("state.params['mlp']",) * 2 and part_of(second) == "mlp"
    assert first.bytes == second.bytes == 64


def test_a_nameless_instruction_that_reads_nothing_named_counts_as_the_loop_it_stands_in():
    text = """HloModule m

%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]) parameter(0)
  %n = s32[] get-tuple-element(%t), index=0
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %moved = f32[8]{0} copy(%x)
  ROOT %out = (s32[], f32[8]) tuple(%n, %moved)
}

%check (t: (s32[], f32[8])) -> pred[] {
  %u = (s32[], f32[8]) parameter(0)
  %m = s32[] get-tuple-element(%u), index=0
  %three = s32[] constant(3)
  ROOT %less = pred[] compare(%m, %three), direction=LT
}

ENTRY %main (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %p = (s32[], f32[8]) parameter(0)
  ROOT %loop = (s32[], f32[8]) while(%p), condition=%check, body=%body, metadata={op_name="jit(f)/jvp(E)/stack/while"}
}
"""
    copied = next(c for c in hlo.Program(text).costs() if c.opcode == "copy")
    assert (copied.scope, copied.bytes) == ("jit(f)/jvp(E)/stack/while", 3 * 64)


def test_of_an_array_that_a_fusion_within_a_fusion_takes_a_slice_of_the_slice_is_read():
    text = """HloModule m

%inner (p: f32[24,8], i: s32[]) -> f32[1,8] {
  %p = f32[24,8]{1,0} parameter(0)
  %i = s32[] parameter(1)
  %zero = s32[] constant(0)
  ROOT %taken = f32[1,8]{1,0} dynamic-slice(%p, %i, %zero), dynamic_slice_sizes={1,8}
}

%outer (a: s32[], b: f32[24,8]) -> f32[1,8] {
  %b = f32[24,8]{1,0} parameter(1)
  %a = s32[] parameter(0)
  %same = f32[24,8]{1,0} bitcast(%b)
  %nested = f32[1,8]{1,0} fusion(%same, %a), kind=kLoop, calls=%inner
  ROOT %twice = f32[1,8]{1,0} add(%nested, %nested)
}

ENTRY %main (x: f32[24,8], n: s32[]) -> f32[1,8] {
  %x = f32[24,8]{1,0} parameter(0)
  %n = s32[] parameter(1)
  ROOT %out = f32[1,8]{1,0} fusion(%n, %x), kind=kLoop, calls=%outer
}
"""
    assert hlo.work(text).bytes == 4 + 2 * 8 * 4


def test_a_fusion_counts_as_its_largest_product():
    text = """HloModule m

%fused (x: f32[64,32], w: f32[32,16], v: f32[16,2]) -> f32[64,2] {
  %x = f32[64,32]{1,0} parameter(0)
  %w = f32[32,16]{1,0} parameter(1)
  %v = f32[16,2]{1,0} parameter(2)
  %large = f32[64,16]{1,0} dot(%x, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/mlp/dot"}
  ROOT %small = f32[64,2]{1,0} dot(%large, %v), lhs_contracting_dims={1}, rhs_contracting_dims={0}, metadata={op_name="jit(f)/attention/dot"}
}

ENTRY %main (a: f32[64,32], b: f32[32,16], c: f32[16,2]) -> f32[64,2] {
  %a = f32[64,32]{1,0} parameter(0)
  %b = f32[32,16]{1,0} parameter(1)
  %c = f32[16,2]{1,0} parameter(2)
  ROOT %out = f32[64,2]{1,0} fusion(%a, %b, %c), kind=kOutput, calls=%fused, metadata={op_name="jit(f)/attention_norm/mul"}
}
"""  # noqa: E501
    (found,) = hlo.Program(text).costs()
    assert part_of(found) == "mlp" and found.flops == 2 * 64 * 32 * 16 + 2 * 64 * 16 * 2


def test_an_exchange_takes_as_long_as_its_bytes_on_the_links():
    (part,) = parts([cost("", "all-gather", bytes=1e9, exchanged=5e9)], CHIP)
    assert (part.name, part.bound) == (EXCHANGE, 5.0)
