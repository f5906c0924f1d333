"""Small folders with the tokenizer classes that the families really use, trained here; and what may be changed in them."""

import json
import pathlib

import sentencepiece
import tokenizers
from strange_texts import CORPUS
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
GEMMA_SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]


def _train(made: tokenizers.Tokenizer, trainer) -> tokenizers.Tokenizer:
    made.train_from_iterator(CORPUS, trainer)
    return made


def bert() -> tuple[tokenizers.Tokenizer, dict]:
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    cased = ["F", "##o", "C", "##a", "Q", "B", "\u00e9", "##\u00e9"]
    _train(made, trainers.WordPieceTrainer(vocab_size=500, special_tokens=BERT_SPECIAL))
    spec = json.loads(made.to_str())
    for word in cased:
        spec["model"]["vocab"].setdefault(word, len(spec["model"]["vocab"]))
    made = tokenizers.Tokenizer.from_str(json.dumps(spec))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512}
    return made, {**config, **{f"{role}_token": token for role, token in roles.items()}}


def _charsmap(folder: pathlib.Path) -> bytes:
    import sentencepiece.sentencepiece_model_pb2 as pb2

    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_prefix=str(folder / "rules"), vocab_size=300, minloglevel=2
    )
    proto = pb2.ModelProto.FromString((folder / "rules.model").read_bytes())
    return proto.normalizer_spec.precompiled_charsmap


def xlm_roberta(folder: pathlib.Path) -> tuple[tokenizers.Tokenizer, dict]:
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.Precompiled(_charsmap(folder))
    words = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    made.pre_tokenizer = pre_tokenizers.Sequence(words)
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    _train(made, trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>"))
    made.add_special_tokens([AddedToken("<mask>", lstrip=True, special=True)])
    made.post_processor = processors.TemplateProcessing(
        single=["<s>", "$A", "</s>"],
        pair=["<s>", "$A", "</s>", "</s>", "$B", "</s>"],
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    roles = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "<unk>", "pad": "<pad>"}
    config = {"tokenizer_class": "XLMRobertaTokenizer", "model_max_length": 512}
    return made, {**config, **{f"{role}_token": token for role, token in roles.items()}, "mask_token": "<mask>"}


def gemma() -> tuple[tokenizers.Tokenizer, dict]:
    made = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "\u2581")
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    _train(made, trainers.BpeTrainer(vocab_size=900, special_tokens=[*GEMMA_SPECIAL, *bytes_]))
    spec = json.loads(made.to_str())
    spec["added_tokens"] = [t for t in spec["added_tokens"] if t["content"] not in bytes_]
    made = tokenizers.Tokenizer.from_str(json.dumps(spec))
    made.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", pair="<bos> $A <eos> <bos> $B <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    config = {"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": True, "padding_side": "left"}
    roles = {"pad": "<pad>", "eos": "<eos>", "bos": "<bos>", "unk": "<unk>", "mask": "<mask>"}
    return made, {**config, "model_max_length": 2048, **{f"{role}_token": token for role, token in roles.items()}}


_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def qwen2() -> tuple[tokenizers.Tokenizer, dict]:
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(made, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet))
    made.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    end = made.token_to_id("<|endoftext|>")
    made.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="$A <|endoftext|>", pair="$A <|endoftext|> $B:1", special_tokens=[("<|endoftext|>", end)]
            ),
        ]
    )
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    return made, {**config, "model_max_length": 131072, "unk_token": None, "bos_token": None, "add_prefix_space": False}


def modernbert() -> tuple[tokenizers.Tokenizer, dict]:
    made = tokenizers.Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(made, trainers.BpeTrainer(vocab_size=500, special_tokens=BERT_SPECIAL, initial_alphabet=alphabet))
    made.add_tokens([AddedToken(" " * n, normalized=True) for n in (2, 3, 4)])
    made.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    roles = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192}
    return made, {**config, **{f"{role}_token": token for role, token in roles.items()}}


TYPES = {
    "bert": "bert",
    "xlm-roberta": "xlm-roberta",
    "gemma3_text": "gemma",
    "t5gemma": "gemma",
    "modernbert": "modernbert",
    "qwen3": "qwen2",
}


def write_all(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Writes the tokenizer folder of every family and returns them by model_type."""
    makers = {"bert": bert, "gemma": gemma, "qwen2": qwen2, "modernbert": modernbert}
    made = {name: make() for name, make in makers.items()} | {"xlm-roberta": xlm_roberta(folder)}
    for model_type, name in TYPES.items():
        tokenizer, config = made[name]
        place = folder / model_type
        place.mkdir()
        tokenizer.save(str(place / "tokenizer.json"))
        (place / "tokenizer_config.json").write_text(json.dumps(config))
        (place / "config.json").write_text(json.dumps({"model_type": model_type}))
    return {model_type: folder / model_type for model_type in TYPES}
