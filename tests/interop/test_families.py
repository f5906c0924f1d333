"""Which family reads a folder, and which writes an encoder."""

import types

import pytest
from foreign_folders import edit, error

from embed.errors import DataError
from embed.interop import families


def test_an_encoder_of_no_family_is_refused():
    with pytest.raises(DataError, match="SimpleNamespace: transformers has no architecture .* --format=stablehlo"):
        families.of_encoder(types.SimpleNamespace())


def test_an_unknown_architecture_lists_the_known(theirs, refused):
    edit(theirs / "config.json", lambda c: c.update(model_type="nomic_bert"))
    edit(theirs / "config.json", lambda c: c.update(model_type="zamba"))
    err = refused(theirs)
    assert "config.json: unknown architecture 'zamba'; known: " in err
    for known in ("bert", "xlm-roberta", "gemma3_text", "embedding_gemma2_text", "t5gemma", "modernbert", "qwen3"):
        assert known in err
    edit(theirs / "config.json", lambda c: c.update(model_type="modern-bert"))
    assert "did you mean 'modernbert'?" in error(theirs)
    edit(theirs / "config.json", lambda c: c.pop("model_type"))
    assert "unknown architecture None" in error(theirs)
    edit(theirs / "config.json", lambda c: c.update(model_type=[]))
    assert "unknown architecture []" in error(theirs)


def test_every_family_knows_its_own_name():
    for family in families.ALL:
        for name in (family.model_type, *family.other_types):
            assert families.of_config({"model_type": name}, "here") is family
