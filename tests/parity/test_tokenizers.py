"""Token ids equal transformers', for every entry of a folder that decides them, over strange texts."""

import json
import shutil

import pytest
import tokenizer_folders
import transformers
from strange_texts import strange_texts

from embed import documents
from embed.errors import DataError
from embed.interop import tokenizer_files
from embed.text import clean

TEXTS = [text for text in map(clean, strange_texts()) if text]
LENGTHS = (6, 17, 4000)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """The tokenizer folder of every family; a test changes a copy."""
    return tokenizer_folders.write_all(tmp_path_factory.mktemp("tokenizers"))


def edit(path, change) -> None:
    value = json.loads(path.read_text()) if path.is_file() else {}
    change(value)
    path.write_text(json.dumps(value))


def options(**values):
    """Returns the change that sets entries of tokenizer_config.json; a value `...` removes the entry."""

    def change(folder) -> None:
        def update(config) -> None:
            config.update(values)
            for name in [k for k, v in config.items() if v is ...]:
                del config[name]

        edit(folder / "tokenizer_config.json", update)

    return change


def in_file(change):
    """Returns the change of tokenizer.json."""
    return lambda folder: edit(folder / "tokenizer.json", change)


def special_map(**values):
    return lambda folder: (folder / "special_tokens_map.json").write_text(json.dumps(values))


def set_part(part, value):
    return in_file(lambda spec: spec.update({part: value}))


TRUNCATION = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 2}
PADDING = {
    "strategy": {"Fixed": 30},
    "direction": "Left",
    "pad_to_multiple_of": 8,
    "pad_id": 0,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}
WORD = {
    "content": "NEWWORD",
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "single_word": False,
    "special": False,
}


def declared(**changes):
    """Returns the change that lists every added token, and NEWWORD, in added_tokens_decoder as new versions do."""

    def change(folder) -> None:
        spec = json.loads((folder / "tokenizer.json").read_text())
        known = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in spec["added_tokens"]}
        vocab = spec["model"]["vocab"]
        size = 1 + max([len(vocab) - 1, *(t["id"] for t in spec["added_tokens"])])
        options(added_tokens_decoder={**known, str(size): {**WORD, **changes}})(folder)

    return change


def added_file(folder) -> None:
    """Lists NEWWORD in the added_tokens.json of old versions."""
    spec = json.loads((folder / "tokenizer.json").read_text())
    size = 1 + max([len(spec["model"]["vocab"]) - 1, *(t["id"] for t in spec["added_tokens"])])
    (folder / "added_tokens.json").write_text(json.dumps({"NEWWORD": size}))


EVERY = {
    "as it is": lambda folder: None,
    "truncation_side left": options(truncation_side="left"),
    "padding_side left": options(padding_side="left"),
    "padding_side right": options(padding_side="right"),
    "no class": options(tokenizer_class=...),
    "truncation in the file": set_part("truncation", TRUNCATION),
    "padding in the file": set_part("padding", {**PADDING, "direction": "Right"}),
    "added_tokens_decoder": declared(),
    "added_tokens_decoder, normalized": declared(normalized=True),
    "added_tokens_decoder, single_word": declared(single_word=True),
    "added_tokens_decoder, stripping": declared(lstrip=True, rstrip=True),
    "added_tokens_decoder, special": declared(special=True),
    "added_tokens.json": added_file,
    "additional_special_tokens": options(additional_special_tokens=["[extra]"]),
    "extra_special_tokens": options(extra_special_tokens=["[extra]"]),
    "extra_special_tokens by name": options(extra_special_tokens={"image_token": "[extra]"}),
    "a named token": options(image_token="[extra]"),
    "special_tokens_map.json": special_map(additional_special_tokens=["[extra]"]),
    "special_tokens_map.json, a token": special_map(mask_token={**WORD, "content": "[extra]", "lstrip": True}),
    "a special token beside the vocabulary": options(mask_token="[extra]"),
    "an AddedToken": options(mask_token={**WORD, "content": "[extra]", "lstrip": True, "__type": "AddedToken"}),
    "clean_up_tokenization_spaces": options(clean_up_tokenization_spaces=True),
    "add_bos_token false": options(add_bos_token=False),
    "add_eos_token true": options(add_eos_token=True),
    "no post-processor": set_part("post_processor", None),
    "no normalizer": set_part("normalizer", None),
    "another normalizer": set_part("normalizer", {"type": "Lowercase"}),
    "another pre_tokenizer": set_part("pre_tokenizer", {"type": "Whitespace"}),
    "max_len": options(model_max_length=..., max_len=33),
    "as PreTrainedTokenizerFast": options(tokenizer_class="PreTrainedTokenizerFast"),
    "do_lower_case false": options(do_lower_case=False),
    "do_lower_case true": options(do_lower_case=True),
    "strip_accents": options(strip_accents=True),
    "add_prefix_space": options(add_prefix_space=True),
}
CASES = [(family, name) for family in tokenizer_folders.TYPES for name in EVERY]
BERT = {
    "Fast": options(tokenizer_class="BertTokenizerFast"),
    "cased": options(do_lower_case=False),
    "cased, accents off": options(do_lower_case=False, strip_accents=True),
    "lower case, accents kept": options(strip_accents=False),
    "Chinese characters together": options(tokenize_chinese_chars=False),
    "no do_lower_case": options(do_lower_case=...),
    "no basic tokenizer": options(do_basic_tokenize=False, never_split=["the"]),
    "other ends": options(cls_token="[MASK]", sep_token="[UNK]"),
    "another unknown": options(unk_token="[MASK]"),
    "other ends in the file": set_part(
        "post_processor", {"type": "BertProcessing", "sep": ["[MASK]", 4], "cls": ["[UNK]", 1]}
    ),
    "long words": in_file(lambda spec: spec["model"].update(max_input_chars_per_word=20)),
    "another prefix": in_file(lambda spec: spec["model"].update(continuing_subword_prefix="@@")),
    "text not cleaned": in_file(lambda spec: spec["normalizer"].update(clean_text=False)),
}
XLM = {
    "no prefix space": options(add_prefix_space=False),
    "other ends": options(bos_token="<unk>", eos_token="<pad>"),
    "a prefix space at the start alone": in_file(
        lambda spec: spec["pre_tokenizer"]["pretokenizers"][1].update(prepend_scheme="first")
    ),
    "no charsmap": set_part("normalizer", {"type": "NFKC"}),
    "a sequence": in_file(
        lambda spec: spec.update(
            normalizer={"type": "Sequence", "normalizers": [spec["normalizer"], {"type": "Lowercase"}]}
        )
    ),
}
GEMMA = {
    "no byte fallback": in_file(lambda spec: spec["model"].update(byte_fallback=False)),
    "unknown apart": in_file(lambda spec: spec["model"].update(fuse_unk=False)),
    "no begin": in_file(lambda spec: spec["post_processor"].update(single=[{"Sequence": {"id": "A", "type_id": 0}}])),
}
QWEN = {
    "prefix space": options(add_prefix_space=True),
    "pad is another": options(pad_token="<|im_end|>"),
    "no NFC": set_part("normalizer", None),
}
CASES += [("bert", name) for name in BERT] + [("xlm-roberta", name) for name in XLM]
CASES += [("gemma3_text", name) for name in GEMMA] + [("qwen3", name) for name in QWEN]
CHANGES = {"bert": BERT, "xlm-roberta": XLM, "gemma3_text": GEMMA, "qwen3": QWEN}
# Folders that would need another answer than a tokenizer.json can give, or that have two.
REFUSED = {
    ("modernbert", "add_prefix_space"): "add_prefix_space = true, but tokenizer.json says false",
}


def theirs(folder, texts, length: int | None):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if length is None:
        return tokenizer(texts)["input_ids"]
    return tokenizer(texts, truncation="longest_first", max_length=length)["input_ids"]


def ours(folder):
    return tokenizer_files.read(folder, documents.read_json(folder / "config.json"), vocab_size=5000)


def assert_same(folder, lengths=LENGTHS, texts=TEXTS) -> None:
    found = ours(folder)
    whole = theirs(folder, texts, None)
    for length in lengths:
        expected = theirs(folder, texts, length)
        rows, cut = found.tokenizer.encode_batch(texts, length)
        for text, row, was_cut, wanted, full in zip(texts, rows, cut, expected, whole, strict=True):
            assert row.tolist() == wanted, text[:80]
            assert was_cut == (len(full) > length), text[:80]


@pytest.mark.parametrize(("family", "name"), CASES)
def test_every_entry_gives_the_tokens_of_transformers(family, name, folders, tmp_path):
    folder = shutil.copytree(folders[family], tmp_path / "folder")
    (EVERY | CHANGES.get(family, {}))[name](folder)
    try:
        ours(folder)
    except DataError as e:
        assert REFUSED.get((family, name), "nothing") in str(e), e
        return
    assert (family, name) not in REFUSED
    assert_same(folder)
