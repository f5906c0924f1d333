"""A SentencePiece vocabulary as a tokenizer.json of the same ids, for tools that know nothing else."""

import json
import re
from typing import Any

from embed import documents
from embed.data.tokenizers import SentencePiece
from embed.errors import DataError
from embed.text import DEFAULT_NORMALIZATION

_SPACE = "\u2581"
# What text.clean does, as steps of a tokenizer.json
_CLEAN: list[dict[str, Any]] = [{"type": "NFC"}, {"type": "Strip", "strip_left": True, "strip_right": True}]


def for_readers(content: bytes, max_length: int, truncation_side: str, text_normalization: str) -> dict[str, Any]:
    """Returns a tokenizer.json that gives the model's token ids to whoever reads it and nothing else.

    It cuts at `max_length` tokens and does not pad. Where the model normalises texts to NFC and strips them, so does the
    tokenizer: tools such as sentence-transformers hand it texts as they are.
    """
    tokenizer = documents.parse_json(content, "tokenizer.json")
    tokenizer["padding"] = None
    tokenizer["truncation"] = {
        "direction": truncation_side.capitalize(), "max_length": max_length, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    if text_normalization == DEFAULT_NORMALIZATION:
        normalizer = tokenizer.get("normalizer")
        own_steps = (
            normalizer["normalizers"]
            if normalizer and normalizer["type"] == "Sequence"
            else [normalizer]
            if normalizer
            else []
        )
        if own_steps[: len(_CLEAN)] != _CLEAN:
            tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [*_CLEAN, *own_steps]}
    return tokenizer


def token(spec: dict[str, Any], number: int) -> str:
    """Returns the text of a token id in a tokenizer.json."""
    for entry in spec.get("added_tokens", ()):
        if entry["id"] == number:
            return entry["content"]
    vocab = spec["model"]["vocab"]
    if isinstance(vocab, list):
        return vocab[number][0]
    return next(word for word, i in vocab.items() if i == number)


def from_sentencepiece(tokenizer: SentencePiece) -> bytes:
    """Returns the tokenizer.json of a unigram or BPE model with identity normalisation, bos and eos as configured."""
    import sentencepiece.sentencepiece_model_pb2 as pb2
    import tokenizers
    from tokenizers import decoders, normalizers, pre_tokenizers, processors

    proto = pb2.ModelProto.FromString(tokenizer.content())
    spec, kinds = proto.normalizer_spec, pb2.TrainerSpec
    if spec.name not in ("identity", "") or spec.precompiled_charsmap:
        raise DataError(
            f"{tokenizer.path}: normalises texts by its own rule {spec.name!r}, which a tokenizer.json cannot repeat; "
            "export with --format=stablehlo"
        )
    symbols = [p.piece for p in proto.pieces if p.type == _kind().USER_DEFINED]
    if proto.trainer_spec.model_type == kinds.UNIGRAM:
        model = tokenizers.models.Unigram(
            [(p.piece, p.score) for p in proto.pieces],
            unk_id=proto.trainer_spec.unk_id,
            byte_fallback=proto.trainer_spec.byte_fallback,
        )
    elif proto.trainer_spec.model_type == kinds.BPE:
        model = _bpe(proto, bool(symbols))
    else:
        raise DataError(f"{tokenizer.path}: neither a unigram nor a BPE model; export with --format=stablehlo")
    converted = tokenizers.Tokenizer(model)
    steps: list[Any] = [normalizers.Lowercase()] if tokenizer.lower_case else []
    if spec.remove_extra_whitespaces:
        steps += [normalizers.Replace(tokenizers.Regex(p), by) for p, by in ((" {2,}", " "), (r"\A | \z", ""))]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(_SPACE))
    steps.append(normalizers.Replace(" ", _SPACE))
    if spec.remove_extra_whitespaces:
        steps.append(normalizers.Replace(tokenizers.Regex(rf"{_SPACE}+\z"), ""))
    converted.normalizer = normalizers.Sequence(steps)
    splits = []
    if symbols:
        apart = "|".join(re.escape(s) for s in sorted(symbols, key=len, reverse=True))
        splits.append(pre_tokenizers.Split(tokenizers.Regex(apart), "isolated"))
    # '<s>' written in a text is not the special token: such a name is cut behind its first character.
    names = [p.piece for p in proto.pieces if not _can_be_text(p) and len(p.piece) > 1]
    begins = "|".join(f"{re.escape(n[0])}(?={re.escape(n[1:])})" for n in names)
    splits.append(pre_tokenizers.Split(tokenizers.Regex(begins), "merged_with_previous"))
    converted.pre_tokenizer = pre_tokenizers.Sequence(splits)
    converted.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _add_ends(converted, tokenizer, proto, processors)
    return json.dumps(json.loads(converted.to_str()), ensure_ascii=False).encode()


def _add_ends(converted, tokenizer: SentencePiece, proto, processors) -> None:
    ends = [
        (proto.pieces[i].piece, i) if adds else None
        for adds, i in (
            (tokenizer.add_bos, proto.trainer_spec.bos_id),
            (tokenizer.add_eos, proto.trainer_spec.eos_id),
        )
    ]
    pieces = [ends[0] and ends[0][0], "$A", ends[1] and ends[1][0]]
    if any(ends):
        converted.post_processor = processors.TemplateProcessing(
            single=" ".join(w for w in pieces if w), special_tokens=[e for e in ends if e]
        )


def _kind():
    import sentencepiece.sentencepiece_model_pb2 as pb2

    return pb2.ModelProto.SentencePiece


def _can_be_text(piece) -> bool:
    """Returns whether a text may be cut into this piece: '<s>' written in a text is not the special token."""
    return piece.type in (_kind().NORMAL, _kind().USER_DEFINED)


def _bpe(proto, symbols: bool):
    """Returns the BPE model whose merges are those the pieces' scores imply."""
    import tokenizers

    vocab = {p.piece: i for i, p in enumerate(proto.pieces)}
    score = {p.piece: p.score for p in proto.pieces if _can_be_text(p)}
    merges = []
    for word in score:
        pairs = [(word[:i], word[i:]) for i in range(1, len(word)) if word[:i] in score and word[i:] in score]
        merges += [(score[word], vocab[a], vocab[b], a, b) for a, b in pairs]
    merges.sort(key=lambda m: (-m[0], m[1], m[2]))
    return tokenizers.models.BPE(
        vocab,
        [(a, b) for *_, a, b in merges],
        unk_token=proto.pieces[proto.trainer_spec.unk_id].piece,
        fuse_unk=True,
        byte_fallback=proto.trainer_spec.byte_fallback,
        ignore_merges=symbols,
    )
