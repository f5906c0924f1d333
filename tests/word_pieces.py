"""A folder with a WordPiece tokenizer of a few words: written, changed, read, and refused."""

import json

import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from embed.errors import DataError
from embed.interop import tokenizer_files

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "the",
    "The",
    "cafe",
    "caf\u00e9",
    "##s",
    "\u4e2d",
    "\u56fd",
    "\u4e2d\u56fd",
    "a",
    "##\u56fd",
]
TEXT = "The Caf\u00e9s \u4e2d\u56fd"


def save(folder) -> None:
    """Writes a WordPiece tokenizer of a few words, as BertTokenizer saves it."""
    made = tokenizers.Tokenizer(models.WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    made.add_special_tokens(WORDS[:5])
    made.save(str(folder / "tokenizer.json"))
    options(folder, tokenizer_class="BertTokenizer")


def options(folder, **values) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))


def change(folder, **parts) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | parts))


def read(folder, model_type: str = "bert", lower_case: bool = False, vocab_size: int = 20, **arguments):
    return tokenizer_files.read(
        folder, {"model_type": model_type}, vocab_size=vocab_size, arguments=arguments, lower_case=lower_case
    )


def ids(folder, text: str, length: int = 50, **more) -> list[int]:
    return read(folder, **more).tokenizer.encode_batch([text], length)[0][0].tolist()


def error(folder, model_type: str = "bert") -> str:
    with pytest.raises(DataError) as e:
        read(folder, model_type)
    assert "\n" not in str(e.value)
    return str(e.value)
