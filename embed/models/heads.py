"""Projection heads of self-distillation: features of unit length, and the prototypes that they are assigned to.

Source: arXiv:2104.14294 s3.2: three layers, a narrow last one, unit length, and prototypes of unit length.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from embed.models.layers import Linear
from embed.ranges import Size
from embed.types import Params
from embed.vectors import normalize


class PrototypeHead(nn.Module):
    """Vectors [..., D] to features [..., F] of unit length; `prototypes` [F, C] are its parameter too."""

    num_prototypes: Size = 4096
    hidden: Size = 2048
    features: Size = 256

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... F"]:
        sizes = (x.shape[-1], self.hidden, self.hidden, self.features)
        for i, (size, next_size) in enumerate(zip(sizes, sizes[1:])):
            axes = ("width" if i == 0 else "hidden", "hidden" if i == 0 else "embedding")
            x = Linear("...D,DE->...E", (size, next_size), axes, bias=True, name=f"layer_{i}")(x)
            x = nn.gelu(x, approximate=False) if i < 2 else x
        init = nn.with_logical_partitioning(nn.initializers.normal(0.02), ("embedding", "vocab"))
        self.param("prototypes", init, (self.features, self.num_prototypes), jnp.float32)
        return normalize(x)


def prototypes(params: Params) -> Float[Array, "F C"]:
    """Returns the prototypes of a head's parameters, each of unit length."""
    return normalize(params["prototypes"].T).T


def init(head: PrototypeHead, key, width: int) -> Params:
    """Returns the first parameters of a head of vectors of this width."""
    return nn.unbox(head.init(key, jnp.zeros((1, width))))["params"]


def axes_of(head: PrototypeHead, width: int) -> Params:
    """Returns the logical axes of a head's parameters, of vectors of this width."""
    boxed = jax.eval_shape(lambda: head.init(jax.random.key(0), jnp.zeros((1, width))))["params"]
    return jax.tree.map(
        tuple, nn.get_partition_spec(boxed), is_leaf=lambda x: isinstance(x, jax.sharding.PartitionSpec)
    )
