"""What transformers makes of a tokenizer.json: some classes build it anew from the vocabulary and the folder's other files.

A repetition of transformers 5 (`TokenizersBackend`, `BertTokenizer`, `XLMRobertaTokenizer`, `GemmaTokenizer`,
`Qwen2Tokenizer`, `Tipsv2Tokenizer`) with the tokenizers package alone. Source: transformers 5.23, tokenization_utils_tokenizers.py.
"""

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from embed.errors import DataError
from embed.interop.known_entries import SPECIAL_TOKENS

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_METASPACE = "\u2581"
# Classes that use tokenizer.json as it is.
AS_IT_IS = ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer", "PythonBackend")


def _text(token) -> str:
    return token.content if isinstance(token, AddedToken) else token


def _bert(spec: dict, options: Mapping[str, Any], special: Mapping[str, Any]) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordPiece(spec["model"]["vocab"], unk_token=_text(special["unk_token"])))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=options.get("tokenize_chinese_chars", True),
        strip_accents=options.get("strip_accents"),
        lowercase=options.get("do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def _bert_ends(tokenizer: tokenizers.Tokenizer, special: Mapping[str, Any]) -> None:
    cls, sep = (_text(special[role]) for role in ("cls_token", "sep_token"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, tokenizer.token_to_id(cls)), (sep, tokenizer.token_to_id(sep))],
    )


def _charsmap(spec: dict) -> bytes | None:
    """Returns the rules by which SentencePiece normalises, of a tokenizer.json that has them."""
    given = spec["normalizer"] or {}
    for step in given.get("normalizers", [given]):
        if step.get("type") == "Precompiled" and "precompiled_charsmap" in step:
            return base64.b64decode(step["precompiled_charsmap"])
    return None


def _xlm_roberta(spec: dict, options: Mapping[str, Any], special: Mapping[str, Any]) -> tokenizers.Tokenizer:
    vocab = [tuple(item) for item in spec["model"]["vocab"]]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocab=vocab, unk_id=3, byte_fallback=False))
    charsmap = _charsmap(spec)
    if charsmap is not None:
        tokenizer.normalizer = normalizers.Precompiled(charsmap)
    scheme = "always" if options.get("add_prefix_space", True) else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement=_METASPACE, prepend_scheme=scheme),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=_METASPACE, prepend_scheme=scheme)
    return tokenizer


def _xlm_roberta_ends(tokenizer: tokenizers.Tokenizer, special: Mapping[str, Any]) -> None:
    bos, eos = (_text(special[role]) for role in ("bos_token", "eos_token"))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[(bos, tokenizer.token_to_id(bos)), (eos, tokenizer.token_to_id(eos))],
    )


def _merges(spec: dict) -> list[tuple[str, str]]:
    return [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in spec["model"]["merges"]]


def _gemma(spec: dict, options: Mapping[str, Any], special: Mapping[str, Any]) -> tokenizers.Tokenizer:
    del options
    model = models.BPE(
        spec["model"]["vocab"], _merges(spec), fuse_unk=True, unk_token=_text(special["unk_token"]), byte_fallback=True
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", _METASPACE)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace(_METASPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _qwen2(spec: dict, options: Mapping[str, Any], special: Mapping[str, Any]) -> tokenizers.Tokenizer:
    del special
    model = models.BPE(spec["model"]["vocab"], _merges(spec), continuing_subword_prefix="", end_of_word_suffix="")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    prefix = bool(options.get("add_prefix_space"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _tipsv2(spec: dict, options: Mapping[str, Any], special: Mapping[str, Any]) -> tokenizers.Tokenizer:
    del special
    tokenizer = tokenizers.Tokenizer(
        models.BPE(spec["model"]["vocab"], _merges(spec), fuse_unk=True, byte_fallback=True)
    )
    charsmap = _charsmap(spec)
    steps = [normalizers.Lowercase()] if options.get("do_lower_case", True) else []
    tokenizer.normalizer = normalizers.Sequence(
        steps + ([normalizers.Precompiled(charsmap)] if charsmap is not None else [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=_METASPACE, prepend_scheme="always")]
    )
    metaspace = decoders.Metaspace(replacement=_METASPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([metaspace, decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


# name -> (kind of model it builds, builder, its post-processor where that is not the file's, its special tokens)
_Builder = Callable[[dict, Mapping[str, Any], Mapping[str, Any]], tokenizers.Tokenizer]
_CLASSES: dict[str, tuple[str, _Builder, Callable | None, dict[str, str]]] = {
    "BertTokenizer": (
        "WordPiece",
        _bert,
        _bert_ends,
        {
            "unk_token": "[UNK]",
            "sep_token": "[SEP]",
            "pad_token": "[PAD]",
            "cls_token": "[CLS]",
            "mask_token": "[MASK]",
        },
    ),
    "XLMRobertaTokenizer": (
        "Unigram",
        _xlm_roberta,
        _xlm_roberta_ends,
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "sep_token": "</s>",
            "cls_token": "<s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
    ),
    "GemmaTokenizer": (
        "BPE",
        _gemma,
        None,
        {
            "unk_token": "<unk>",
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "mask_token": "<mask>",
        },
    ),
    "Tipsv2Tokenizer": ("BPE", _tipsv2, None, {"unk_token": "<unk>", "pad_token": "<pad>"}),
    "Qwen2Tokenizer": ("BPE", _qwen2, None, dict.fromkeys(("unk_token", "eos_token", "pad_token"), "<|endoftext|>")),
}
# The special tokens that a class cannot be built without.
_NEEDED = {
    "BertTokenizer": ("unk_token", "cls_token", "sep_token"),
    "XLMRobertaTokenizer": ("bos_token", "eos_token"),
    "GemmaTokenizer": ("unk_token",),
}
# The class of a folder that names none.
_OF_FAMILY = {
    "bert": "BertTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
    "gemma3": "GemmaTokenizer",
    "gemma3_text": "GemmaTokenizer",
    "embedding_gemma2": "TokenizersBackend",
    "embedding_gemma2_text": "TokenizersBackend",
    "t5gemma": "GemmaTokenizer",
    "qwen3": "Qwen2Tokenizer",
    "tipsv2": "Tipsv2Tokenizer",
}


def class_of(location, name: str | None, model_type: str) -> str:
    """Returns the tokenizer class that transformers opens: 'TokenizersBackend' where it takes tokenizer.json as it is.

    `name` is what the folder says, `location` the file that says it. A class we cannot repeat is a DataError.
    """
    if model_type not in _OF_FAMILY:  # ModernBERT, whatever its folder says
        return "TokenizersBackend"
    if name is None:
        return _OF_FAMILY[model_type]
    if name in AS_IT_IS:
        return "TokenizersBackend"
    if isinstance(name, str) and name.removesuffix("Fast") in _CLASSES:
        return name.removesuffix("Fast")
    known = ", ".join((*_CLASSES, *AS_IT_IS[:2]))
    raise DataError(
        f"{location}: tokenizer_class = {name!r} is not supported, only {known}; set it to PreTrainedTokenizerFast where "
        "tokenizer.json is complete"
    )


def build(location, name: str, spec: dict, options: Mapping[str, Any]) -> tuple[tokenizers.Tokenizer, dict[str, Any]]:
    """Returns the tokenizer of class `name` and its special tokens by role.

    `spec` is the tokenizer.json as tokenizers writes it, `options` the arguments that transformers gives the class. Raises
    DataError where the file at `location` holds another kind of model than the class builds.
    """
    if name == "TokenizersBackend":
        tokenizer, special = tokenizers.Tokenizer.from_str(json.dumps(spec)), _special({}, options)
    else:
        kind, builder, _, defaults = _CLASSES[name]
        if spec["model"]["type"] != kind:
            raise DataError(
                f"{location}: holds a {spec['model']['type']} model, but {name} builds a {kind} model of it; set "
                "tokenizer_class to PreTrainedTokenizerFast in tokenizer_config.json, where the file is right"
            )
        special = _special(defaults, options)
        for role in _NEEDED.get(name, ()):
            if role not in special:
                raise DataError(
                    f"{location}: tokenizer_config.json says that there is no {role}, which {name} needs; remove the entry, or set "
                    "tokenizer_class to PreTrainedTokenizerFast, where tokenizer.json is complete"
                )
        tokenizer = builder(spec, options, special)
        if spec["post_processor"] is not None:
            tokenizer.post_processor = _component(spec, "post_processor").post_processor
    _add_tokens(tokenizer, special, options)
    ends = _CLASSES[name][2] if name in _CLASSES else None
    if ends is not None:
        ends(tokenizer, special)
    if name == "Qwen2Tokenizer":
        everything = (*special.values(), *options.get("extra_special_tokens", ()))
        tokenizer.add_tokens([AddedToken(_text(token), special=True) for token in everything])
    return tokenizer, special


def _component(spec: dict, name: str) -> tokenizers.Tokenizer:
    """Returns a tokenizer with that component of the file, and none of its vocabulary."""
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "pre_tokenizer", "post_processor", "decoder"))
    model = {"type": "WordLevel", "vocab": {}, "unk_token": ""}
    return tokenizers.Tokenizer.from_str(
        json.dumps({**empty, "version": "1.0", "added_tokens": [], "model": model, name: spec[name]})
    )


def _special(defaults: Mapping[str, str], options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the special tokens by role, in the order of transformers: the folder's, or else the class's own."""
    given = {role: options[role] if role in options else defaults.get(role) for role in SPECIAL_TOKENS}
    given |= options.get("model_specific_special_tokens", {})
    return {role: token for role, token in given.items() if token is not None}


def _add_tokens(tokenizer: tokenizers.Tokenizer, special: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Adds the tokens that the folder's files declare beside the vocabulary, in the order of transformers."""
    tokens = [token for _, token in sorted(options["added_tokens_decoder"].items())]
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()} | {_text(t) for t in tokens}
    for token in (*special.values(), *options.get("extra_special_tokens", ())):
        if _text(token) not in known:
            tokens.append(token)
            known.add(_text(token))
    roles = {_text(token) for token in special.values()}
    for i, token in enumerate(tokens):
        if isinstance(token, str):
            tokens[i] = AddedToken(token, special=True)
        elif not token.special and token.content in roles:
            token.special = True
    tokenizer.add_tokens(tokens)
