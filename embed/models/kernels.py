"""The product of attention in three ways with one result: XLA's on any device, the splash kernel on TPU, cuDNN's on GPU.

Each is made for a stack's `Reaches` and gives `prepare(segment_ids)`, which is done once for all layers, and
`attend(q, k, v, prepared, is_local)`. Queries are [B L H K], keys and values [B L G K], where G divides H; each group of H/G
heads shares a key. A token sees those of its own text within reach. What comes out at padding is of no meaning, but finite.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from embed.errors import ConfigError, did_you_mean
from embed.models.layers import product
from embed.sharding import per_shard, platform, split

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)  # finite: a row that sees nothing stays finite, forward and backward
_LANES = 128  # the width of a TPU's vectors, which blocks of the splash kernel are multiples of
_CUDNN_DIM, _HOPPER_DIM = 128, 256  # the largest head that cuDNN's kernel takes, before Hopper and from it on


@dataclasses.dataclass(frozen=True)
class Reach:
    """How far one kind of layer sees, in tokens to each side (None: to the end), and the base of its rotary positions.

    Positions have `rope_axes` numbers each: one in a text, and two in a picture.
    """

    left: int | None = None
    right: int | None = None
    rope_base: float | None = None
    rope_scale: float = 1.0
    rope_axes: int = 1

    def covers(self, length: int) -> bool:
        """Returns whether a text of `length` tokens is seen as if there were no limit."""
        return all(side is None or side >= length - 1 for side in (self.left, self.right))

    def keys(self, length: int) -> float:
        """Returns how many keys the average query of a text of `length` tokens sees, up to the ends' effect."""
        left, right = (length / 2 if side is None else min(side, length / 2) for side in (self.left, self.right))
        return min(length, left + right + 1)


@dataclasses.dataclass(frozen=True)
class Xla:
    """softmax(q k^T * scale + bias) v as products and sums that every compiler knows.

    Heads come before positions so that each product is a plain matrix product, and the softmax is divided out after the
    product with v: 1.6 times faster on CPU than the textbook order. `local` is None where no layer is; `softcap` c bends the
    logits to c * tanh(logits / c) (Gemma 2).
    """

    full: Reach
    local: Reach | None
    scale: float
    dtype: jnp.dtype
    softcap: float | None = None

    def prepare(self, segment_ids: Array) -> tuple[Array | None, Array]:
        """Returns the biases of local and of other layers; None for the former where both see the same."""
        local, length = self.local, segment_ids.shape[1]
        # A text no longer than the reach is seen whole by local layers too. An exported length is not known yet.
        known = isinstance(length, int)
        if local is not None and known and all(r.covers(length) for r in (local, self.full)):
            local = None
        return tuple(None if r is None else attention_bias(segment_ids, r.left, r.right) for r in (local, self.full))

    def attend(self, q: Array, k: Array, v: Array, prepared, is_local) -> Float[Array, "B L H K"]:
        local, full = prepared
        bias = full if local is None else jnp.where(is_local, local, full)
        batch, length, heads, size = q.shape
        groups = k.shape[2]
        # [B, L, H, K] -> [B, G, H/G, L, K]
        q = q.reshape(batch, length, groups, heads // groups, size).transpose(0, 2, 3, 1, 4)
        k, v = (x.transpose(0, 2, 1, 3) for x in (k, v))
        logits = product("BGRQK,BGSK->BGRQS", q, k, self.dtype) * self.scale
        if self.softcap is not None:
            logits = self.softcap * jnp.tanh(logits / self.softcap)
        logits = logits + bias
        weights = jnp.exp(logits - jnp.max(logits, -1, keepdims=True))
        out = product("BGRQS,BGSK->BGRQK", weights, v, self.dtype) / jnp.sum(weights, -1, keepdims=True)
        # [B, G, H/G, L, K] -> [B, L, H, K]
        return out.transpose(0, 3, 1, 2, 4).reshape(batch, length, heads, size).astype(self.dtype)


@dataclasses.dataclass(frozen=True)
class Splash(Xla):
    """The TPU kernel: logits stay in the chip's fast memory, and blocks out of reach are left out.

    On another device than a TPU it is run by Pallas' interpreter, which is slow and for tests.
    """

    def prepare(self, segment_ids: Array) -> Int[Array, "B L"]:
        return segment_ids.astype(jnp.int32)

    def attend(self, q: Array, k: Array, v: Array, prepared, is_local) -> Float[Array, "B L H K"]:
        length = q.shape[1]
        padding = -length % _LANES
        q = (q.astype(jnp.float32) * self.scale).astype(self.dtype)
        q, k, v = (x.astype(self.dtype).transpose(0, 2, 1, 3) for x in (q, k, v))
        if padding:
            q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0))) for x in (q, k, v))
            prepared = jnp.pad(prepared, ((0, 0), (0, padding)))  # of no text
        if self.local is None or all(r.covers(length) for r in (self.local, self.full)):
            out = self._run(self.full, q, k, v, prepared)
        else:
            run = [functools.partial(self._run, reach) for reach in (self.full, self.local)]
            out = jax.lax.cond(is_local, run[1], run[0], q, k, v, prepared)
        return out[:, :, :length].transpose(0, 2, 1, 3)

    def _run(self, reach: Reach, q: Array, k: Array, v: Array, segment_ids: Array) -> Float[Array, "B H L K"]:
        """Runs the kernel on every device for its own texts and heads."""
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash

        def attend(q, k, v, segment_ids):
            return jax.vmap(self._kernel(reach, q.shape[1], q.shape[2]))(
                q, k, v, splash.SegmentIds(segment_ids, segment_ids)
            )

        heads, keys = (n.shape[1] for n in (q, k))
        if keys > 1 and split("kv_heads", keys) != split("heads", heads):
            k, v = (jnp.repeat(x, heads // keys, axis=1) for x in (k, v))  # every device has the keys of its heads
        axes = {n: ("batch", "heads" if n == heads else "kv_heads", None, None) for n in (heads, k.shape[1])}
        specs = (axes[heads], axes[k.shape[1]], axes[k.shape[1]], ("batch", None))
        return per_shard(attend, specs)(q, k, v, segment_ids)

    def _kernel(self, reach: Reach, heads: int, length: int) -> Callable:
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
        from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

        sides = (reach.left, reach.right)
        whole = reach.covers(length)
        mask = masks.FullMask((length, length)) if whole else masks.LocalMask((length, length), sides, 0)
        block = next(n for n in (512, 384, 256, _LANES) if length % n == 0)
        sizes = splash.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_kv_dkv_compute=block,
            block_q_dq=block,
            block_kv_dq=block,
        )
        return splash.make_splash_mha(
            masks.MultiHeadMask([mask] * heads),
            block_sizes=sizes,
            attn_logits_soft_cap=self.softcap,
            head_shards=1,
            q_seq_shards=1,
            interpret=platform() != "tpu",
        )


@dataclasses.dataclass(frozen=True)
class Cudnn(Xla):
    """cuDNN's flash attention on a GPU, in bfloat16. Who sees whom is a mask, which the kernel takes as a bias."""

    implementation: str = "cudnn"

    def prepare(self, segment_ids: Array) -> tuple[Array | None, Array]:
        return tuple(None if bias is None else bias[:, 0] == 0 for bias in super().prepare(segment_ids))

    def attend(self, q: Array, k: Array, v: Array, prepared, is_local) -> Float[Array, "B L H K"]:
        local, full = prepared
        mask = full if local is None else jnp.where(is_local, local, full)
        q, k, v = (x.astype(self.dtype) for x in (q, k, v))
        return jax.nn.dot_product_attention(
            q, k, v, mask=mask, scale=self.scale, implementation=self.implementation
        ).astype(self.dtype)

    def check(self, head_dim: int) -> str | None:
        """Returns why cuDNN does not take this attention; None where it does."""
        largest = _HOPPER_DIM if _is_hopper() else _CUDNN_DIM
        if self.dtype != jnp.bfloat16:
            return f"it computes in bfloat16, not {self.dtype.name}"
        if self.softcap is not None:
            return "it does not cap logits"
        if head_dim % 8 or head_dim > largest:
            return f"a head has {head_dim} numbers; it takes multiples of 8 up to {largest}"
        return None


KERNELS = {"xla": Xla, "splash": Splash, "cudnn": Cudnn}


def choose(name: str, head_dim: int, length, full: Reach, local: Reach | None, scale, dtype, softcap=None) -> Xla:
    """Returns the kernel called `name`, or for 'auto' the platform's own where it takes texts of `length` tokens.

    One that is named and cannot be is a ConfigError. Short texts are left to XLA: a kernel's blocks would be padding.
    """
    if name not in ("auto", *KERNELS):
        raise ConfigError(f"attention {name!r}{did_you_mean(name, ('auto', *KERNELS))}")
    arguments = (full, local, scale, dtype, softcap)
    known = isinstance(length, int)
    if name == "splash" and not known:
        raise ConfigError("attention 'splash' needs a length that is known; take 'xla' for a program of any length")
    if name == "auto":
        device = platform()
        if device == "tpu" and known and length % _LANES == 0:
            return Splash(*arguments)
        if device == "gpu" and known and length % 2 == 0 and Cudnn(*arguments).check(head_dim) is None:
            return Cudnn(*arguments)
        return Xla(*arguments)
    if name == "cudnn":
        if platform() != "gpu":
            raise ConfigError(f"attention 'cudnn' needs a GPU, this is {platform()}; take 'auto'")
        if (why := Cudnn(*arguments).check(head_dim)) is not None:
            raise ConfigError(f"attention 'cudnn': {why}; take 'auto' or 'xla'")
    return KERNELS[name](*arguments)


def _is_hopper() -> bool:
    """Returns whether the GPU is of compute capability 9 or later."""
    capability = getattr(jax.local_devices()[0], "compute_capability", "0.0")
    return float(capability) >= 9.0


def attention_bias(
    segment_ids: Int[Array, "B L"] | Bool[Array, "B L"], left: int | None = None, right: int | None = None
) -> Float[Array, "B 1 1 L L"]:
    """Returns 0 where a query may see a key and MASKED elsewhere: real keys of its own text, from `left` positions before
    the query to `right` after it; None sets no limit. `segment_ids` is a mask of the real tokens of one text a row, or the
    number of each token's text, 0 for padding."""
    if segment_ids.dtype == bool:
        visible = segment_ids[:, None, :]
    else:
        visible = (segment_ids[:, None, :] == segment_ids[:, :, None]) & (segment_ids > 0)[:, None, :]
    length = segment_ids.shape[1]
    if left is not None or right is not None:
        positions = jnp.arange(length)
        ahead = positions[None, :] - positions[:, None]
        if left is not None:
            visible = visible & (ahead >= -left)[None]
        if right is not None:
            visible = visible & (ahead <= right)[None]
    visible = jnp.broadcast_to(visible, (segment_ids.shape[0], length, length))
    return jnp.where(visible, 0.0, MASKED)[:, None, None].astype(jnp.float32)


def cross_attention_bias(segment_ids: Array, context_segment_ids: Array) -> Float[Array, "B 1 1 L C"]:
    """Returns 0 where a query of a decoder may see a key of the encoder and MASKED elsewhere: real keys of its own text.

    Both are masks of the real tokens of one text a row, or the numbers of each token's text, 0 for padding.
    """
    if context_segment_ids.dtype == bool:
        visible = jnp.broadcast_to(context_segment_ids[:, None, :], (*segment_ids.shape, context_segment_ids.shape[1]))
    else:
        visible = (context_segment_ids[:, None, :] == segment_ids[:, :, None]) & (context_segment_ids > 0)[:, None, :]
    return jnp.where(visible, 0.0, MASKED)[:, None, None].astype(jnp.float32)
