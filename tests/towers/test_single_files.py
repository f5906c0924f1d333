"""TIPS' files by themselves: fields from shapes, and vocabularies that do not fit."""

import numpy as np
import pytest
from image_towers import dialect_arrays, drawn, image_tower, scenic_arrays, text_arrays, text_tower
from tiny_models import made_up_texts

from embed.data import tokenizers
from embed.errors import DataError
from embed.towers import names, single_files, towers


@pytest.fixture(autouse=True)
def small_widths(monkeypatch):
    monkeypatch.setitem(towers._HEADS, 16, 2)


@pytest.mark.parametrize("gated", [False, True])
def test_the_image_size_is_that_of_the_positions(gated, tmp_path):
    tower = image_tower(mask_token=True, layer_scale=1.0, gated=gated, activation="silu" if gated else "gelu")
    path = tmp_path / "vision.npz"
    np.savez(path, **dialect_arrays(names.dialects(gated)["original"], drawn(tower)))
    opened = single_files.of_npz(path, path, None)
    assert opened.module == tower and opened.module.image_size == 12
    assert bool(opened.notes) != gated  # which GELU is said, where there is one


@pytest.mark.parametrize(
    ("name", "size", "is_said"), [("a_highres_b", 448, False), ("a_lowres_b", 12, False), ("vision", 12, True)]
)
def test_the_name_of_a_jax_file_says_the_resolution_that_its_positions_do_not(tmp_path, name, size, is_said):
    path = tmp_path / f"{name}.npz"
    np.savez(path, **scenic_arrays(drawn(image_tower())))
    opened = single_files.of_npz(path, path, None)
    assert opened.module.image_size == size and opened.module.encoder.position_grid == 3
    assert any("let the name hold highres" in note for note in opened.notes) == is_said


def test_a_vocabulary_larger_than_the_table_is_refused(tmp_path):
    np.savez(tmp_path / "vision.npz", **scenic_arrays(drawn(image_tower())))
    np.savez(tmp_path / "text.npz", **text_arrays(drawn(text_tower(290))))
    (tmp_path / "tokenizer.model").write_bytes(tokenizers.train_sentencepiece(made_up_texts(300), 300))
    with pytest.raises(DataError, match="tokenizer.model: has 300 tokens, the model's table 290; get TIPS' own"):
        single_files.of_npz(tmp_path, tmp_path / "vision.npz", tmp_path / "text.npz")
    np.savez(tmp_path / "text.npz", a=np.zeros(3))
    with pytest.raises(DataError, match="no tensors of TIPS' text tower are there"):
        single_files.of_npz(tmp_path, tmp_path / "vision.npz", tmp_path / "text.npz")
