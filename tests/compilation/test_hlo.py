"""What compiled programs do, against counts made by hand: FLOPs through loops, traffic, collectives, TPU's way of writing."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from embed.compilation import hlo


def text_of(function, *shapes, **options) -> str:
    return jax.jit(function, **options).lower(*shapes).compile().as_text()


def array(*sizes, **options):
    return jax.ShapeDtypeStruct(sizes, jnp.float32, **options)


def test_a_product_counts_two_a_multiply_add():
    found = hlo.work(text_of(lambda a, b: a @ b, array(16, 32), array(32, 8)))
    assert found.flops == 2 * 16 * 32 * 8
    assert found.bytes == pytest.approx(4 * (16 * 32 + 32 * 8 + 16 * 8), rel=0.3)
    assert found.collectives == () and found.unknown_loops == 0


@pytest.mark.parametrize("turns", [1, 2, 7, 100])
def test_the_body_of_a_loop_counts_as_often_as_it_turns(turns):
    def run(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    found = hlo.work(text_of(run, array(8, 16), array(turns, 16, 16)))
    assert found.flops == turns * 2 * 8 * 16 * 16 and found.unknown_loops == 0
    # Of the weights each turn reads its own slice, not all of them.
    assert found.bytes < turns * 4 * (16 * 16 + 10 * 8 * 16) + 4 * turns * 16 * 16 + 10_000


def test_loops_in_loops_multiply():
    def run(x, weights):
        inner = lambda x, w: (x @ w, None)  # noqa: E731
        return jax.lax.scan(lambda x, ws: (jax.lax.scan(inner, x, ws)[0], None), x, weights)[0]

    found = hlo.work(text_of(run, array(8, 16), array(3, 5, 16, 16)))
    assert found.flops == 3 * 5 * 2 * 8 * 16 * 16


def test_a_loop_of_unknown_length_is_told():
    def run(x, y):
        return jax.lax.while_loop(lambda x: jnp.sum(x) < 5, lambda x: x @ y, x)

    found = hlo.work(text_of(run, array(16, 16), array(16, 16)))
    assert found.unknown_loops == 1 and found.flops == 2 * 16**3


@pytest.mark.parametrize("remat", [False, True])
def test_what_is_computed_again_counts_again(remat):
    """A gradient costs two products for each of the forward pass; recomputing the block adds its products once more."""

    def block(x, w):
        return jnp.tanh(jnp.tanh(x @ w) @ w)

    def loss(weights, x):
        step = jax.checkpoint(block, prevent_cse=False) if remat else block
        return jnp.sum(jax.lax.scan(lambda x, w: (step(x, w), None), x, weights)[0])

    found = hlo.work(text_of(jax.grad(loss), array(6, 16, 16), array(8, 16)))
    product = 2 * 8 * 16 * 16
    # All that is needed of the second product is its input: it need not be made again where its tanh is not kept.
    least, most = (6, 6) if not remat else (7, 8)
    assert 6 * least * product <= found.flops + 6 * product * 0.01 and found.flops <= 6 * most * product


@functools.cache
def mesh():
    if len(jax.devices()) < 4:
        pytest.skip("needs simulated devices")
    return Mesh(np.array(jax.devices()[:4]).reshape(2, 2), ("a", "b"), axis_types=(AxisType.Auto,) * 2)


def placed(*axes):
    return NamedSharding(mesh(), PartitionSpec(*axes))


def test_collectives_are_told_by_kind_with_the_bytes_of_a_device():
    given = array(8, 16, sharding=placed(("a", "b"))), array(16, 12, sharding=placed("b"))
    found = hlo.work(text_of(lambda a, b: a @ b, *given, out_shardings=placed(("a", "b"))))
    (gather,) = found.collectives
    assert (gather.kind, gather.count, gather.group) == ("all-gather", 1, 2) and gather.bytes == 4 * 16 * 12
    summed = hlo.work(text_of(lambda a: a.sum(0), array(8, 16, sharding=placed("a")), out_shardings=placed()))
    (reduce,) = summed.collectives
    assert (reduce.kind, reduce.group, reduce.bytes) == ("all-reduce", 2, 4 * 16)
    assert summed.exchanged == 64


def test_collectives_in_a_loop_count_as_often_as_it_turns():
    def run(x, weights):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

    given = array(8, 16, sharding=placed(("a", "b"))), array(5, 16, 16, sharding=placed(None, "b"))
    found = hlo.work(text_of(run, *given, out_shardings=placed(("a", "b"))))
    assert sum(c.bytes for c in found.collectives) in (5 * 4 * 16 * 16, 4 * 5 * 16 * 16)
    assert found.flops == 5 * 2 * 2 * 16 * 16  # each device has two rows


def test_what_a_tpu_program_says():
    found = hlo.work((pathlib.Path(__file__).parent / "tpu_step.hlo").read_text())
    # Heads are written as a spatial dimension, of whose four taps all but one fall on padding.
    assert found.flops == 2 * 48 * 64 * 4 * 16
    assert found.cycles == 1825
    gather, reduce = found.collectives
    # One exchange beside computation stands in two fusions.
    assert (gather.kind, gather.count, gather.bytes, gather.group) == ("all-gather", 1, 4 * 128 * 128, 4)
    assert (reduce.kind, reduce.count, reduce.bytes, reduce.group) == ("all-reduce", 1, 4 * 64 * 4, 4)


@pytest.mark.parametrize(
    ("window", "left", "right", "out", "labels", "taps"),
    [
        ("size=3", 10, 3, 8, "b0f_0io->b0f", 24),
        ("size=3 pad=1_1", 10, 3, 10, "b0f_0io->b0f", 28),
        ("size=3 stride=2", 11, 3, 5, "b0f_0io->b0f", 15),
        ("size=3 rhs_dilate=2", 10, 3, 6, "b0f_0io->b0f", 18),
        ("size=3 pad=2_2 lhs_dilate=2", 5, 3, 11, "b0f_0io->b0f", 15),
    ],
)
def test_only_taps_on_values_count(window, left, right, out, labels, taps):
    instruction = hlo._instruction(
        "c", f"f32[2,{out},7]{{2,1,0}} convolution(%x, %y), window={{{window}}}, dim_labels={labels}"
    )
    expected = 2 * 2 * 7 * 5 * taps
    assert hlo._convolution_flops(instruction, (2, left, 5), (right, 5, 7)) == expected


@pytest.mark.parametrize(
    ("type_text", "count"),
    [("bf16[2,3]{1,0}", 12), ("f32[]", 4), ("pred[8]", 8), ("s4[8]", 4), ("f8e4m3fn[8]", 8), ("u64[2]", 16)],
)
def test_bytes_of_a_shape(type_text, count):
    (shape,) = hlo._instruction("x", f"{type_text} add(%a, %b)").shapes
    assert shape.bytes == count


def program(*lines: str) -> hlo.Work:
    """The work of an entry with these instructions, and a condition of a loop of seven turns beside it."""
    condition = [
        "%turns (i.1: s32[]) -> pred[] {",
        "  %i.1 = s32[] parameter(0)",
        "  %seven = s32[] constant(7)",
        "  ROOT %less = pred[] compare(%i.1, %seven), direction=LT",
        "}",
        "%body (i.2: s32[]) -> s32[] {",
        "  %i.2 = s32[] parameter(0)",
        "  %m = f32[8,8]{1,0} constant({...})",
        "  %d = f32[8,8]{1,0} dot(%m, %m), lhs_contracting_dims={1}, rhs_contracting_dims={0}",
        "  ROOT %next = s32[] add(%i.2, %i.2)",
        "}",
    ]
    entry = ["ENTRY %main (x: f32[32,128]) -> f32[32,128] {", "  %x = f32[32,128]{1,0} parameter(0)"]
    return hlo.work("\n".join(["HloModule made", *condition, *entry, *(f"  {line}" for line in lines), "}"]))


def test_the_bound_of_a_loop_is_read_from_its_condition():
    found = program("%n = s32[] constant(0)", "%loop = s32[] while(%n), condition=%turns, body=%body")
    assert found.flops == 7 * 2 * 8**3 and found.unknown_loops == 0


def test_values_in_the_fast_memory_of_a_chip_are_no_traffic():
    near = program("%y = f32[32,128]{1,0:T(8,128)S(1)} negate(%x)")
    far = program("%y = f32[32,128]{1,0:T(8,128)} negate(%x)")
    assert (near.bytes, far.bytes) == (4 * 32 * 128, 2 * 4 * 32 * 128)


@pytest.mark.parametrize(("kernel", "products"), [("fwd_segmented_residuals", 2), ("dq_segmented", 3), ("dkv", 4)])
@pytest.mark.parametrize("blocks", [1, 4])
def test_the_products_in_a_kernel_of_attention(kernel, products, blocks):
    """Of two rows of heads, 512 queries in four rows of blocks, each of which sees one block or all four."""
    found = program(
        f"%table = s8[1,4,{blocks}]{{2,1,0}} constant({{...}})",
        "%q = bf16[2,8,512,64]{3,2,1,0} constant({...})",
        "%k = bf16[2,4,512,64]{3,2,1,0} constant({...})",
        f"%splash_mha_{kernel}.1 = (bf16[2,8,512,64]{{3,2,1,0}}) custom-call(%table, %table, %q, %k, %k), custom_call_target=t",
    )
    assert found.flops == found.kernel_flops == 2 * products * 2 * 8 * 512 * (128 * blocks) * 64


def test_of_branches_the_one_with_most_counts():
    def run(x, w, choice):
        return jax.lax.cond(choice, lambda: x @ w @ w, lambda: x @ w)

    found = hlo.work(text_of(run, array(8, 16), array(16, 16), jax.ShapeDtypeStruct((), bool)))
    assert found.flops == 2 * 2 * 8 * 16 * 16 and found.kernel_flops == 0


@pytest.mark.parametrize(
    ("line", "kind", "size"),
    [
        # A device has a quarter of the result, and gives of the whole operand.
        ("f32[8,128]{1,0} reduce-scatter(%x), replica_groups=[1,4]<=[4], dimensions={0}", "reduce-scatter", 32 * 128),
        # What is started gives (operand, result): the result counts.
        (
            "(f32[32,128]{1,0}, f32[128,128]{1,0}) all-gather-start(%x), replica_groups=[1,4]<=[4], dimensions={0}",
            "all-gather",
            128 * 128,
        ),
        ("f32[32,128]{1,0} all-to-all(%x), replica_groups={{0,1,2,3}}, dimensions={0}", "all-to-all", 32 * 128),
    ],
)
def test_the_bytes_of_exchanges(line, kind, size):
    (found,) = program(f"%e = {line}").collectives
    assert (found.kind, found.count, found.bytes, found.group) == (kind, 1, 4 * size, 4)
