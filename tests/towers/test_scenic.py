"""TIPS' names of its JAX code: fields from shapes, parameters there and back, and what is missing or left over."""

import numpy as np
import pytest
from image_towers import drawn, image_tower, scenic_arrays, scenic_text_arrays, text_tower

from embed.errors import DataError
from embed.towers import scenic, stored


@pytest.fixture
def opened(tmp_path):
    def open_arrays(arrays):
        np.savez(tmp_path / "t.npz", **arrays)
        return stored.of_npz(tmp_path / "t.npz")

    return open_arrays


@pytest.mark.parametrize("gated", [False, True])
def test_image_towers_come_back(gated, opened):
    tower = image_tower(gated=gated, activation="silu" if gated else "gelu_tanh")
    params = drawn(tower)
    arrays = scenic_arrays(params, gated)
    assert scenic.is_vision(list(arrays)) and not scenic.is_text(list(arrays))
    reader = opened(arrays)
    fields = scenic.vision_fields(reader)
    assert fields == {name: getattr(tower.encoder, name) for name in fields}
    again = scenic.vision_params(reader, tower.encoder)
    assert again.keys() == params.keys()
    for path, array in again.items():
        np.testing.assert_array_equal(array, params[path])


def test_text_towers_come_back(opened):
    tower = text_tower()
    params = drawn(tower)
    arrays = scenic_text_arrays(params) | {"temperature_contrastive": np.float32(0.01)}
    assert scenic.is_text(list(arrays)) and not scenic.is_vision(list(arrays))
    reader = opened(arrays)
    fields = scenic.text_fields(reader)
    assert fields == {name: getattr(tower.encoder, name) for name in fields}
    again = scenic.text_params(reader, tower.encoder)
    for path, array in params.items():
        np.testing.assert_array_equal(again[path], array)


def test_names_and_shapes_are_those_of_the_published_files():
    """Source: the public code's parameters, spec image A.9."""
    arrays = scenic_arrays(drawn(image_tower()))
    block = "encoder/transformer/encoderblock_1"
    shapes = {
        "encoder/ToTokenSequence_0/embedding/kernel": (4, 4, 3, 16),
        "encoder/ToTokenSequence_0/posembed_input": (1, 3, 3, 16),
        "encoder/ToTokenSequence_0/cls": (1, 2, 16),
        f"{block}/LayerNorm_1/scale": (16,),
        f"{block}/MultiHeadDotProductAttention_0/query/kernel": (16, 2, 8),
        f"{block}/MultiHeadDotProductAttention_0/query/bias": (2, 8),
        f"{block}/MultiHeadDotProductAttention_0/out/kernel": (2, 8, 16),
        f"{block}/MlpBlock_0/Dense_0/kernel": (16, 24),
        f"{block}/MlpBlock_0/Dense_1/bias": (16,),
        "encoder/encoder_norm/bias": (16,),
    }
    assert {name: arrays[name].shape for name in shapes} == shapes
    assert scenic_text_arrays(drawn(text_tower()))["token_emb/emb_var"].shape == (60, 16)


def test_arrays_that_are_missing_or_left_over_are_listed(opened):
    tower = image_tower()
    arrays = scenic_arrays(drawn(tower))
    arrays["encoder/other"] = arrays.pop("encoder/encoder_norm/bias")
    with pytest.raises(
        DataError, match="t.npz: .*missing encoder/encoder_norm/bias; unknown encoder/other; download it again"
    ):
        scenic.vision_params(opened(arrays), tower.encoder)
