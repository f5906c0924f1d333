"""A SentencePiece model for llama.cpp: its unigram models are 't5' there, its BPE models 'llama'."""

from embed.data.tokenizers import SentencePiece
from embed.gguf.vocabulary import BYTES_NOTE, NORMAL, USER_DEFINED, Vocabulary, refusal, without_bytes


def read(tokenizer: SentencePiece) -> Vocabulary:
    """Returns the vocabulary of a model; a DataError for one whose token ids llama.cpp would not give."""
    import sentencepiece.sentencepiece_model_pb2 as pb2

    proto = pb2.ModelProto.FromString(tokenizer.content())
    rules, trainer = proto.normalizer_spec, proto.trainer_spec
    is_unigram = trainer.model_type == pb2.TrainerSpec.UNIGRAM
    problem = _unigram_problem(proto) if is_unigram else _merging_problem(proto, pb2)
    problem = "lower-cases texts" if tokenizer.lower_case else problem
    if problem is not None:
        raise refusal(tokenizer.path, problem)
    types, scores = zip(*(_scored(piece, proto) if is_unigram else (piece.type, piece.score) for piece in proto.pieces))
    options = {
        "add_space_prefix": rules.add_dummy_prefix,
        "remove_extra_whitespaces": rules.remove_extra_whitespaces,
        "unknown_token_id": trainer.unk_id,
    }
    if rules.precompiled_charsmap:
        options["precompiled_charsmap"] = rules.precompiled_charsmap
    loses_bytes = is_unigram and trainer.byte_fallback
    return Vocabulary(
        kind="t5" if is_unigram else "llama",
        tokens=[piece.piece for piece in proto.pieces],
        types=types,
        scores=scores,
        begin=trainer.bos_id if tokenizer.add_bos else None,
        end=trainer.eos_id if tokenizer.add_eos else None,
        options=options,
        **({"notes": (BYTES_NOTE,), "is_repeated": without_bytes(types)} if loses_bytes else {}),
    )


def _unigram_problem(proto) -> str | None:
    rules = proto.normalizer_spec
    if proto.trainer_spec.treat_whitespace_as_suffix:
        return "puts white space behind words"
    if rules.remove_extra_whitespaces and not rules.add_dummy_prefix:
        return "removes white space but puts none before a text"
    return None


def _merging_problem(proto, pb2) -> str | None:
    rules, trainer = proto.normalizer_spec, proto.trainer_spec
    if trainer.model_type != pb2.TrainerSpec.BPE:
        return "is neither a unigram nor a BPE model"
    if rules.precompiled_charsmap or rules.remove_extra_whitespaces:
        return "is a BPE model that changes texts before it merges"
    if not trainer.byte_fallback:
        return "is a BPE model without bytes for unknown characters"
    if rules.add_dummy_prefix and any(piece.type == USER_DEFINED for piece in proto.pieces):
        return "is a BPE model with symbols of its user and white space before a text"
    return None


def _scored(piece, proto) -> tuple[int, float]:
    """Returns the type and score of a unigram model's piece.

    llama.cpp would put white space around the symbols of a user. As usual pieces, with the score that SentencePiece's search
    gives them, they are found where SentencePiece finds them.
    """
    if piece.type != USER_DEFINED:
        return piece.type, piece.score
    best = max(p.score for p in proto.pieces if p.type == NORMAL)
    return NORMAL, len(piece.piece.encode()) * best - 0.1
