"""A vocabulary as GGUF's metadata: what the tokenizers of llama.cpp are told, whatever file the tokens come from."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from embed.errors import DataError

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)  # types of tokens, in SentencePiece's numbers
SPACE = "\u2581"
_UNUSED_SCORE = -10_000.0
NFC_NOTE = "bring texts to Unicode's NFC first; llama.cpp does not"
STRIP_NOTE = "remove white space at the ends of texts first; llama.cpp does not"
BYTES_NOTE = "characters that the vocabulary lacks are the unknown token in llama.cpp, and bytes in the trained model"
# The format's names of special tokens' roles, as it spells them.
_ROLES = {"[UNK]": "unknown", "<unk>": "unknown", "[SEP]": "seperator", "[MASK]": "mask", "<mask>": "mask"}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """What llama.cpp is told of a tokenizer.

    `kind` is its name of the algorithm and `rule` that of the way in which texts are cut into words. `begin` and `end` are the
    ids of the tokens put around a text. `options` are further entries. `notes` are for whoever uses the file.
    `is_repeated(text, ids)` tells whether llama.cpp makes the same token ids of a text.
    """

    kind: str
    tokens: Sequence[str]
    types: Sequence[int]
    begin: int | None
    end: int | None
    rule: str = "default"
    scores: Sequence[float] = ()
    merges: Sequence[str] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    is_repeated: Callable[[str, Sequence[int]], bool] = lambda text, ids: True


def metadata(vocabulary: Vocabulary, pad_id: int, size: int, location) -> dict[str, Any]:
    """Returns the entries of a vocabulary for a token table of `size` rows, each of which needs a token of its own.

    Raises DataError, which names `location`, when the tokens do not fit the table.
    """
    missing = size - len(vocabulary.tokens)
    if missing < 0:
        raise DataError(
            f"{location}: {len(vocabulary.tokens)} tokens, but the model has {size}; use the tokenizer that belongs to it"
        )
    tokens = [*vocabulary.tokens, *(f"[PAD{i}]" for i in range(len(vocabulary.tokens), size))]
    if len(set(tokens)) != size:
        raise refusal(location, "has two tokens of one text")
    entries = {
        "model": vocabulary.kind,
        "pre": vocabulary.rule,
        "tokens": tokens,
        "token_type": [*vocabulary.types, *[UNUSED] * missing],
        "padding_token_id": pad_id,
        "add_bos_token": vocabulary.begin is not None,
        "add_eos_token": vocabulary.end is not None,
        **{f"{role}_token_id": tokens.index(name) for name, role in _ROLES.items() if name in vocabulary.tokens},
        **vocabulary.options,
    }
    optional = {
        "bos_token_id": vocabulary.begin,
        "eos_token_id": vocabulary.end,
        "merges": list(vocabulary.merges) or None,
    }
    entries |= {key: value for key, value in optional.items() if value is not None}
    if vocabulary.scores:
        entries["scores"] = [*vocabulary.scores, *[_UNUSED_SCORE] * missing]
    return {f"tokenizer.ggml.{key}": value for key, value in entries.items()}


def without_bytes(types: Sequence[int]) -> Callable[[str, Sequence[int]], bool]:
    """Returns an `is_repeated` for the unigram models of llama.cpp, which have no bytes."""
    byte_ids = {i for i, kind in enumerate(types) if kind == BYTE}
    return lambda text, ids: byte_ids.isdisjoint(map(int, ids))


def refusal(location, why: str) -> DataError:
    """Returns the error for a tokenizer that llama.cpp cannot repeat."""
    return DataError(f"{location}: {why}, which llama.cpp's tokenizers cannot repeat; export with another --format")
