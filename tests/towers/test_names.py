"""The names of towers: every dialect is known again and gives the parameters back; the shapes are those of the released files."""

import numpy as np
import pytest
from image_towers import below, dialect_arrays, drawn, image_tower

from embed.errors import DataError
from embed.towers import names

TIPS = {"mask_token": True, "layer_scale": 1.0}
DINO = {**TIPS, "num_class_tokens": 1, "class_position": True}


@pytest.mark.slow
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("fields", [TIPS, DINO, {**DINO, "num_registers": 3}], ids=["tips", "dinov2", "registers"])
def test_every_dialect_is_known_and_gives_the_parameters_back(fields, gated):
    tower = image_tower(**fields, gated=gated, activation="silu" if gated else "gelu")
    params = drawn(tower)
    for name, dialect in names.dialects(gated).items():
        arrays = {f"tower.{n}": x for n, x in dialect_arrays(dialect, params).items()}
        assert names.dialect_of(list(arrays), "tower.").name == name
        others = names.other_arrays(dialect, {n.removeprefix("tower."): x for n, x in arrays.items()}, tower.encoder)
        assert set(others) == set(names.OTHERS) & set(below(params))
        for path, array in others.items():
            np.testing.assert_array_equal(array, below(params)[path])


def test_shapes_are_those_of_the_published_files():
    """Source: the state dictionary of TIPS' PyTorch code, spec image A.9."""
    dialect = names.dialects(False)["original"]
    arrays = dialect_arrays(dialect, drawn(image_tower(**TIPS)))
    shapes = {name: x.shape for name, x in arrays.items() if ".1." not in name}
    assert shapes == {
        "cls_token": (1, 1, 16),
        "register_tokens": (1, 1, 16),
        "pos_embed": (1, 10, 16),
        "mask_token": (1, 16),
        "patch_embed.proj.weight": (16, 3, 4, 4),
        "patch_embed.proj.bias": (16,),
        "blocks.0.norm1.weight": (16,),
        "blocks.0.norm1.bias": (16,),
        "blocks.0.attn.qkv.weight": (48, 16),
        "blocks.0.attn.qkv.bias": (48,),
        "blocks.0.attn.proj.weight": (16, 16),
        "blocks.0.attn.proj.bias": (16,),
        "blocks.0.ls1.gamma": (16,),
        "blocks.0.ls2.gamma": (16,),
        "blocks.0.norm2.weight": (16,),
        "blocks.0.norm2.bias": (16,),
        "blocks.0.mlp.fc1.weight": (24, 16),
        "blocks.0.mlp.fc1.bias": (24,),
        "blocks.0.mlp.fc2.weight": (16, 24),
        "blocks.0.mlp.fc2.bias": (16,),
        "norm.weight": (16,),
        "norm.bias": (16,),
    }
    assert not arrays["pos_embed"][0, 0].any()  # no class token has a position


def test_a_position_of_tips_class_token_is_added_to_it():
    tower = image_tower(**TIPS)
    dialect, params = names.dialects(False)["original"], drawn(tower)
    arrays = dialect_arrays(dialect, params)
    arrays["pos_embed"] = arrays["pos_embed"].copy()
    arrays["pos_embed"][0, 0] = 2.0
    tokens = names.other_arrays(dialect, arrays, tower.encoder)["class_tokens"]
    np.testing.assert_array_equal(tokens, below(params)["class_tokens"] + np.array([[2.0], [0.0]], np.float32))


def test_other_tensors_are_refused():
    with pytest.raises(DataError, match="no tensors of a vision transformer of TIPS or Dinov2 are there"):
        names.dialect_of(["encoder.layer.0.attention.self.query.weight"])
    tower = image_tower(**TIPS)
    dialect = names.dialects(False)["original"]
    arrays = dialect_arrays(dialect, drawn(image_tower(**TIPS, position_grid=4)))
    with pytest.raises(DataError, match=r"pos_embed is \[1, 17, 16\], and 1 \+ 3 x 3 were expected"):
        names.other_arrays(dialect, arrays, tower.encoder)
