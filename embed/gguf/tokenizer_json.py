"""A tokenizer.json for llama.cpp, which reads none: WordPiece, unigram, BPE of bytes, and BPE of SentencePiece's pieces.

llama.cpp has few rules, by name. A tokenizer with any other rule is refused, because its token ids would be others. What
only prepares a text, such as Unicode's normal form, is a note. Source: src/llama-vocab.cpp and conversion/ of llama.cpp.
"""

import base64
import dataclasses
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from embed import documents
from embed.data.tokenizers import HuggingFace
from embed.gguf.vocabulary import (
    BYTE,
    BYTES_NOTE,
    CONTROL,
    NFC_NOTE,
    NORMAL,
    SPACE,
    STRIP_NOTE,
    UNKNOWN,
    UNUSED,
    USER_DEFINED,
    Vocabulary,
    refusal,
    without_bytes,
)

# How a BPE of bytes cuts a text into words (None: the rule of GPT-2) -> llama.cpp's name of that.
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORD_RULES = {None: "gpt-2", QWEN_WORDS: "qwen2"}
_ACCENTS_NOTE = (
    "llama.cpp makes other tokens of Korean and of scripts with vowel signs, such as Devanagari, than the trained model's "
    "tokenizer, and the vectors of such texts differ"
)
Step = dict[str, Any]


class _Problem(Exception):
    """Why llama.cpp cannot repeat a tokenizer."""


def read(tokenizer: HuggingFace) -> Vocabulary:
    """Returns the vocabulary of a tokenizer.json; a DataError for one whose token ids llama.cpp would not give."""
    spec = documents.parse_json(tokenizer.content(), tokenizer.path)
    try:
        return _vocabulary(spec, tokenizer)
    except _Problem as e:
        raise refusal(tokenizer.path, str(e)) from None


def _vocabulary(spec: Step, tokenizer: HuggingFace) -> Vocabulary:
    kinds = {"WordPiece": _word_piece, "Unigram": _unigram, "BPE": _bpe}
    model = spec["model"]
    if model.get("type") not in kinds:
        raise _Problem(f"is a model of type {model.get('type')!r}")
    normalizer = _flat(spec.get("normalizer"), "normalizers")
    cleaning = [step for step in normalizer if step["type"] in _CLEANING]
    steps = [step for step in normalizer if step not in cleaning]
    words = _flat(spec.get("pre_tokenizer"), "pretokenizers")
    tokens, types = _tokens(spec, model)
    begin, end = _around(tokenizer)
    common = {"tokens": tokens, "types": types, "begin": begin, "end": end}
    vocabulary = Vocabulary(**{**common, **kinds[model["type"]](model, steps, words, tokens, types)})
    if model["type"] == "WordPiece":  # llama.cpp ends these texts with the separator, and knows no other way
        if begin is None or end is None:
            raise _Problem("puts no token before or behind a text")
        vocabulary = dataclasses.replace(vocabulary, options={**vocabulary.options, "seperator_token_id": end})
    return _with_cleaning(vocabulary, cleaning)


# What a normalizer may do that the user of a GGUF can do as well -> the advice, and whether a text needs none.
_CLEANING = {
    "NFC": (NFC_NOTE, lambda text: unicodedata.is_normalized("NFC", text)),
    "Strip": (STRIP_NOTE, lambda text: text == text.strip()),
}


def _with_cleaning(vocabulary: Vocabulary, cleaning: Sequence[Step]) -> Vocabulary:
    """Returns the vocabulary with what its normalizer does first as notes."""
    rules = [_CLEANING[step["type"]] for step in cleaning]
    is_clean = lambda text: all(is_done(text) for _, is_done in rules)  # noqa: E731
    return dataclasses.replace(
        vocabulary,
        notes=(*vocabulary.notes, *(note for note, _ in rules)),
        is_repeated=lambda text, ids: is_clean(text) and vocabulary.is_repeated(text, ids),
    )


def _flat(part: Step | None, plural: str) -> list[Step]:
    """Returns the steps of a normalizer or pre-tokenizer, nested or not."""
    if part is None:
        return []
    if part["type"] != "Sequence":
        return [part]
    return [step for inner in part[plural] for step in _flat(inner, plural)]


def _tokens(spec: Step, model: Step) -> tuple[list[str], list[int]]:
    """Returns the text and the type of every token id; an id that no token has is an unused one."""
    added = {token["id"]: token for token in spec.get("added_tokens") or ()}
    vocab = model["vocab"]
    words = enumerate(word for word, _ in vocab) if isinstance(vocab, list) else ((i, w) for w, i in vocab.items())
    by_id = dict(words) | {i: token["content"] for i, token in added.items()}
    unknown = by_id.get(model["unk_id"]) if model.get("unk_id") is not None else model.get("unk_token")
    for token in added.values():
        if not token["special"] and (token["lstrip"] or token["rstrip"] or token["single_word"]):
            raise _Problem(f"finds the added token {token['content']!r} by the white space around it")

    def kind(i: int) -> int:
        if i not in by_id:
            return UNUSED
        if by_id[i] == unknown:
            return UNKNOWN
        if i in added:
            return CONTROL if added[i]["special"] else USER_DEFINED
        return BYTE if model.get("byte_fallback") and _is_byte(by_id[i]) else NORMAL

    ids = range(max(by_id) + 1)
    return [by_id.get(i, f"[PAD{i}]") for i in ids], [kind(i) for i in ids]


def _is_byte(token: str) -> bool:
    return len(token) == 6 and token.startswith("<0x") and token.endswith(">")


def _around(tokenizer: HuggingFace) -> tuple[int | None, int | None]:
    """Returns the special tokens that are put before and behind a text."""
    import tokenizers

    opened = tokenizers.Tokenizer.from_str(tokenizer.content().decode("utf-8"))
    opened.no_truncation()
    opened.no_padding()
    count = len(opened.encode("a", add_special_tokens=False).ids)
    whole = opened.encode("a")
    start = whole.special_tokens_mask.index(0) if 0 in whole.special_tokens_mask else 0
    begin, end = whole.ids[:start], whole.ids[start + count :]
    if len(begin) > 1 or len(end) > 1:
        raise _Problem(f"puts {len(begin)} tokens before a text and {len(end)} behind it")
    return (begin or [None])[0], (end or [None])[0]


def _refuse(steps: Sequence[Step], what: str) -> None:
    """Raises _Problem for steps that are left over, `what` they do to texts."""
    if steps:
        raise _Problem(f"{what} texts by {steps[0]['type']}")


def _check(part: Step, what: str, **expected: Any) -> None:
    """Raises _Problem unless the entries of a part are the expected ones; several are given as a tuple."""
    for name, values in expected.items():
        allowed = values if isinstance(values, tuple) else (values,)
        if part.get(name) not in allowed:
            raise _Problem(f"has {what} with {name} = {part.get(name)!r}")


# WordPiece


def _word_piece(model: Step, steps, words, tokens: list[str], types: list[int]) -> Step:
    if [step["type"] for step in steps] != ["BertNormalizer"] or [w["type"] for w in words] != ["BertPreTokenizer"]:
        raise _Problem("is a WordPiece model without BERT's normalizer and pre-tokenizer")
    (normalizer,) = steps
    _check(normalizer, "BERT's normalizer", clean_text=True, handle_chinese_chars=True)
    _check(model, "WordPiece", continuing_subword_prefix="##")
    if USER_DEFINED in types:
        raise _Problem(f"has the added token {tokens[types.index(USER_DEFINED)]!r}")
    lowercase = normalizer["lowercase"]
    accents = normalizer.get("strip_accents")
    marked = [
        token if kind in (CONTROL, UNKNOWN, UNUSED) else token[2:] if token.startswith("##") else SPACE + token
        for token, kind in zip(tokens, types)
    ]
    options = {
        "normalizer.lowercase": lowercase,
        "normalizer.strip_accents": lowercase if accents is None else accents,
        "unknown_token_id": tokens.index(model["unk_token"]),
    }
    differing = {"notes": (_ACCENTS_NOTE,), "is_repeated": _strips_alike} if options["normalizer.strip_accents"] else {}
    return {"kind": "bert", "tokens": marked, "options": options, **differing}


def _strips_alike(text: str, ids: Sequence[int]) -> bool:
    """Returns whether llama.cpp strips the same accents: it takes a character's first part alone, and drops marks of all kinds."""
    category, parts = unicodedata.category, unicodedata.normalize("NFD", text)
    firsts = (unicodedata.normalize("NFD", character)[0] for character in text)
    return [c for c in parts if category(c) != "Mn"] == [c for c in firsts if category(c)[0] != "M"]


# Unigram


def _unigram(model: Step, steps, words, tokens: list[str], types: list[int]) -> Step:
    maps = [step for step in steps if step["type"] == "Precompiled"]
    joins = [step for step in steps if step["type"] == "Replace" and step["pattern"] == {"Regex": " {2,}"}]
    _refuse([step for step in steps if step not in maps and step not in joins], "changes")
    splits = [word for word in words if word["type"] == "WhitespaceSplit"]
    spaces = [word for word in words if word["type"] == "Metaspace"]
    _refuse([word for word in words if word not in splits and word not in spaces], "cuts")
    # Without a split at white space, what is at the ends of a text would be kept, and llama.cpp removes it.
    if len(spaces) != 1 or len(maps) != 1 or not splits:
        raise _Problem("is a unigram model that does not mark words as SentencePiece does")
    _check(spaces[0], "Metaspace", replacement=SPACE, prepend_scheme=("always", None), add_prefix_space=(True, None))
    if USER_DEFINED in types:
        raise _Problem(f"has the added token {tokens[types.index(USER_DEFINED)]!r}")
    scores = [score for _, score in model["vocab"]]
    options = {
        "add_space_prefix": True,
        "remove_extra_whitespaces": True,
        "unknown_token_id": model["unk_id"],
        "precompiled_charsmap": base64.b64decode(maps[0]["precompiled_charsmap"]),
    }
    differing = {"notes": (BYTES_NOTE,), "is_repeated": without_bytes(types)} if model.get("byte_fallback") else {}
    filled = scores + [0.0] * (len(tokens) - len(scores))
    return {"kind": "t5", "scores": filled, "options": options, **differing}


# BPE


def _bpe(model: Step, steps, words, tokens: list[str], types: list[int]) -> Step:
    _check(model, "BPE", continuing_subword_prefix=(None, ""), end_of_word_suffix=(None, ""), dropout=(None, 0.0))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    if not merges:
        raise _Problem("is a BPE model without merges")
    if words and words[-1]["type"] == "ByteLevel":
        return _bytes(model, steps, words, merges)
    return _pieces(model, steps, words, merges, tokens, types)


def _bytes(model: Step, steps, words, merges: list[str]) -> Step:
    _refuse(steps, "changes")
    *cuts, last = words
    _check(last, "ByteLevel", add_prefix_space=False, use_regex=not cuts)
    _check(model, "BPE of bytes", ignore_merges=(False, None), byte_fallback=(False, None))
    if len(cuts) > 1 or any(cut["type"] != "Split" or cut["invert"] or cut["behavior"] != "Isolated" for cut in cuts):
        raise _Problem("cuts texts into words in more than one way")
    pattern = cuts[0]["pattern"].get("Regex") if cuts else None
    if pattern not in _WORD_RULES:
        raise _Problem(f"cuts texts into words by {pattern!r:.60}")
    return {"kind": "gpt2", "rule": _WORD_RULES[pattern], "merges": merges}


def _pieces(model: Step, steps, words, merges: list[str], tokens: list[str], types: list[int]) -> Step:
    """Returns what a BPE of SentencePiece's is: llama.cpp merges by the scores of tokens, which are made of the merges."""
    marks = [step for step in steps if step["type"] == "Replace" and step["pattern"] == {"String": " "}]
    _refuse([step for step in steps if step not in marks], "changes")
    # Where every space is marked, there is none left to cut at.
    _refuse([w for w in words if w["type"] != "Split" or w["pattern"] != {"String": " "}], "cuts")
    if len(marks) != 1 or marks[0]["content"] != SPACE or not model.get("byte_fallback"):
        raise _Problem("is a BPE model neither of bytes nor of SentencePiece")
    if types.count(BYTE) != 256:
        raise _Problem(f"has {types.count(BYTE)} tokens for the 256 bytes")
    return {
        "kind": "llama",
        "scores": _scores(merges, tokens, types),
        "options": {"add_space_prefix": False},
    }


def _scores(merges: list[str], tokens: list[str], types: list[int]) -> list[float]:
    """Returns scores by which the best pair of tokens is the pair that is merged first.

    llama.cpp merges any two neighbours that make a token. So every way to make a token must be a merge, and all of them must
    come together; SentencePiece's own models, made into merges, are so.
    """
    ranks: dict[str, list[int]] = {}
    pairs = {tuple(merge.split(" ")) for merge in merges}
    for rank, merge in enumerate(merges):
        ranks.setdefault(merge.replace(" ", ""), []).append(rank)
    ordered = sorted(ranks, key=lambda token: ranks[token][0])
    if any(ranks[a][-1] > ranks[b][0] for a, b in zip(ordered, ordered[1:])):
        raise _Problem("merges in an order that is none of tokens")
    normal = {token for token, kind in zip(tokens, types) if kind == NORMAL}
    for token in normal:
        for i in range(1, len(token)):
            pair = (token[:i], token[i:])
            if pair not in pairs and pair[0] in normal and pair[1] in normal:
                raise _Problem(f"does not merge {pair[0]!r} and {pair[1]!r}")
    place: Mapping[str, int] = {token: i for i, token in enumerate(ordered)}
    return [-float(place[token] + 1) if token in place else 0.0 for token in tokens]
