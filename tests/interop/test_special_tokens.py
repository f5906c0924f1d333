"""Special and added tokens as transformers hands them to the class of a tokenizer."""

import pytest
from foreign_folders import edit, error


@pytest.mark.parametrize("value", ['{"pad_token": 3}', '{"additional_special_tokens": ["a", null]}'])
def test_special_tokens_that_are_none_are_refused(theirs, value):
    edit(theirs / "tokenizer_config.json", lambda c: c.pop("added_tokens_decoder", None))
    (theirs / "special_tokens_map.json").write_text(value)
    assert "which is no token of transformers" in error(theirs)
