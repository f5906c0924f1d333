"""Fields of towers from the shapes of arrays, and widths whose heads no file says."""

import numpy as np
import pytest
from image_towers import dialect_arrays, drawn, image_tower

from embed.errors import DataError
from embed.towers import names, stored, towers


@pytest.fixture
def opened(tmp_path):
    def open_arrays(arrays):
        np.savez(tmp_path / "t.npz", **arrays)
        return stored.of_npz(tmp_path / "t.npz")

    return open_arrays


@pytest.mark.parametrize("has_scale", [False, True])
def test_fields_come_from_shapes(has_scale, opened, monkeypatch):
    monkeypatch.setitem(towers._HEADS, 16, 2)
    tower = image_tower(mask_token=True, layer_scale=1.0 if has_scale else None, activation="gelu")
    dialect = names.dialects(False)["original"]
    arrays = dialect_arrays(dialect, drawn(tower))
    reader = opened(arrays)
    fields = towers.fields_of(reader, dialect, "", "tipsv2", "t.npz")
    assert fields == {name: getattr(tower.encoder, name) for name in fields}
    params = towers.image_params(reader, dialect, tower, "", ())
    for path, array in drawn(tower).items():
        np.testing.assert_array_equal(params[path], array)
    del arrays["register_tokens"]
    with pytest.raises(DataError, match="missing register_tokens"):
        towers.image_params(opened(arrays), dialect, tower, "", ())


def test_heads_are_those_of_the_published_widths():
    """Source: arXiv:2410.16512's models; So400m has heads of 72 numbers."""
    assert [towers.heads(width, "t") for width in (384, 768, 1024, 1152, 1536)] == [6, 12, 16, 16, 24]
    with pytest.raises(DataError, match="t: width 100 is none of a published tower"):
        towers.heads(100, "t")
