"""Vocabularies without tensorflow: SentencePiece (.model) and Hugging Face tokenizer.json, as one small interface.

A tokenizer is declared by path and opened on first use, so that a recipe can name a vocabulary `prepare` has yet to train.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from embed.errors import ConfigError, DataError

# Texts of one call to a tokenizer, so that what it keeps of many long texts is bounded by the longest of them.
_CHARACTERS_PER_CALL = 4_000_000


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yields the texts in order, in lists of a bounded number of characters; a longer text is alone in its list."""
    batch: list[str] = []
    characters = 0
    for text in texts:
        if batch and characters + len(text) > _CHARACTERS_PER_CALL:
            yield batch
            batch, characters = [], 0
        batch.append(text)
        characters += len(text)
    if batch:
        yield batch


def _check_side(side: str, location: str) -> None:
    if side not in ("left", "right"):
        raise ConfigError(f"{location}: truncation_side is {side!r}; it is 'left' or 'right'")


def _read(path: str, kind: str) -> bytes:
    try:
        return pathlib.Path(path).read_bytes()
    except OSError as e:
        raise DataError(
            f"{path}: cannot read this {kind} ({e.strerror}); run `embed prepare` or correct the path"
        ) from e


def _check_room(max_length: int, num_special: int) -> None:
    if max_length <= num_special:
        raise ConfigError(
            f"max_length = {max_length} leaves no room for a text beside the {num_special} special tokens; raise it"
        )


@dataclasses.dataclass(frozen=True)
class NoTexts:
    """Stands for the tokenizer of a recipe whose features read no texts."""

    path = "no tokenizer"
    digest = "no texts"
    vocab_size = 1
    pad_id = 0

    def encode_batch(self, texts: Sequence[str], max_length: int) -> Any:
        """Raises ConfigError: there is nothing to encode texts with."""
        del texts, max_length
        raise ConfigError("the recipe has no tokenizer, and a feature reads texts; bind Recipe.tokenizer")


@dataclasses.dataclass(frozen=True)
class SentencePiece:
    """A SentencePiece vocabulary; ids of unknown, begin, end and padding come from the model file.

    A text that is too long loses tokens at its `truncation_side`. With `train_vocab_size`, `embed prepare` trains the file
    on the mixture's texts when it is not there yet; `train_sentinels` of its pieces are then '<unused0>', '<unused1>', ..., which
    stand for missing spans (`language_features.Denoised`). With `lower_case` texts are lower-cased first, as TIPS' are.
    """

    path: str
    add_bos: bool = True
    add_eos: bool = True
    train_vocab_size: int | None = None
    train_sentinels: int = 0
    truncation_side: str = "right"
    lower_case: bool = False

    @property
    def filename(self) -> str:
        return "tokenizer.model"

    def content(self) -> bytes:
        """Returns the bytes of the vocabulary file."""
        return _sentencepiece_bytes(self.path, _version(self.path))

    @property
    def digest(self) -> str:
        """The sha256 of the file together with which special tokens are added."""
        return hashlib.sha256(self.content() + json.dumps(self.options()).encode()).hexdigest()

    def options(self) -> dict[str, Any]:
        """Returns what, beside the file, decides the token ids; kept in model.json."""
        fields = {"kind": "sentencepiece", "add_bos": self.add_bos, "add_eos": self.add_eos}
        return fields | _side_option(self.truncation_side) | ({"lower_case": True} if self.lower_case else {})

    @property
    def vocab_size(self) -> int:
        return _sentencepiece(self.path).get_piece_size()

    @property
    def pad_id(self) -> int:
        return max(0, _sentencepiece(self.path).pad_id())

    @property
    def affixes(self) -> tuple[list[int], list[int]]:
        """The special tokens before a text and after it."""
        processor = _sentencepiece(self.path)
        return [processor.bos_id()] * self.add_bos, [processor.eos_id()] * self.add_eos

    def token_id(self, token: str) -> int | None:
        """Returns the id of a token; None where there is no such."""
        processor = _sentencepiece(self.path)
        number = processor.piece_to_id(token)
        return number if processor.id_to_piece(number) == token else None

    def token(self, number: int) -> str | None:
        """Returns the token of an id; None where there is no such."""
        processor = _sentencepiece(self.path)
        return processor.id_to_piece(number) if 0 <= number < processor.get_piece_size() else None

    def check_length(self, max_length: int) -> None:
        """Raises ConfigError for a length that leaves no room for a text."""
        _check_room(max_length, self.add_bos + self.add_eos)

    def encode_batch(self, texts: Sequence[str], max_length: int) -> tuple[list[np.ndarray], list[bool]]:
        """Returns int32 token ids of at most `max_length` (special tokens included) and which texts were cut."""
        _check_side(self.truncation_side, self.path)
        processor = _sentencepiece(self.path)
        self.check_length(max_length)
        room = max_length - self.add_bos - self.add_eos
        for name, adds, token in (
            ("bos", self.add_bos, processor.bos_id()),
            ("eos", self.add_eos, processor.eos_id()),
        ):
            if adds and token < 0:
                raise DataError(f"{self.path}: the vocabulary has no {name}; set SentencePiece.add_{name} = False")
        head = [processor.bos_id()] if self.add_bos else []
        tail = [processor.eos_id()] if self.add_eos else []
        kept = slice(-room, None) if self.truncation_side == "left" else slice(room)
        rows, cut = [], []
        for batch in _batches(texts):
            batch = [text.lower() for text in batch] if self.lower_case else batch
            for ids in processor.encode(batch, out_type=int):
                rows.append(np.array(head + ids[kept] + tail, np.int32))
                cut.append(len(ids) > room)
        return rows, cut

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`, special tokens left out."""
        return _sentencepiece(self.path).decode([int(i) for i in ids])


@functools.lru_cache(maxsize=8)
def _sentencepiece_bytes(path: str, version: tuple) -> bytes:
    return _read(path, "SentencePiece model")


def _version(path: str) -> tuple:
    """Returns what changes when a file is written anew, so that an opened vocabulary is never a stale one."""
    try:
        stat = pathlib.Path(path).stat()
    except OSError:
        return ()
    return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _sentencepiece(path: str):
    return _open_sentencepiece(path, _version(path))


@functools.lru_cache(maxsize=8)
def _open_sentencepiece(path: str, version: tuple):
    import sentencepiece

    wrong = f"{path}: not a SentencePiece model; give a .model file or use HuggingFace(path=tokenizer.json)"
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=_sentencepiece_bytes(path, version))
    except RuntimeError as e:
        raise DataError(wrong) from e
    if processor.get_piece_size() == 0:
        raise DataError(wrong)
    return processor


@dataclasses.dataclass(frozen=True)
class HuggingFace:
    """A Hugging Face tokenizer.json, without transformers. Special tokens are those its post-processor adds.

    A text that is too long loses tokens at its `truncation_side`. `given` is the content of the file when it is not that of
    `path`: a foreign folder's tokenizer with the settings of the folder's other files.
    """

    path: str
    pad_token: str | None = None
    truncation_side: str = "right"
    given: bytes | None = dataclasses.field(default=None, repr=False)

    @property
    def filename(self) -> str:
        return "tokenizer.json"

    def content(self) -> bytes:
        """Returns the bytes of the vocabulary file."""
        return _read(self.path, "tokenizer.json") if self.given is None else self.given

    @property
    def digest(self) -> str:
        """The sha256 of the file together with the options."""
        return hashlib.sha256(self.content() + json.dumps(self.options()).encode()).hexdigest()

    def options(self) -> dict[str, Any]:
        """Returns what, beside the file, decides the token ids; kept in model.json."""
        return {"kind": "huggingface", "pad_token": self.pad_token} | _side_option(self.truncation_side)

    def _open(self):
        """Returns the opened tokenizer and the lock that guards its truncation."""
        if self.given is None:
            return _open_huggingface(self.path, _version(self.path))
        return _parse_huggingface(self.path, self.given)

    @property
    def vocab_size(self) -> int:
        tokenizer = self._open()[0]
        return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def pad_id(self) -> int:
        tokenizer = self._open()[0]
        names = [self.pad_token] if self.pad_token else ["<pad>", "[PAD]", "<|endoftext|>"]
        ids = [i for i in map(tokenizer.token_to_id, names) if i is not None]
        if not ids:
            raise DataError(f"{self.path}: has none of the padding tokens {names}; set HuggingFace.pad_token")
        return ids[0]

    @property
    def affixes(self) -> tuple[list[int], list[int]]:
        """The special tokens before a text and after it."""
        encoded = self._open()[0].encode("a")
        is_text = [not special for special in encoded.special_tokens_mask]
        first = is_text.index(True) if any(is_text) else len(is_text)
        stop = len(is_text) - (is_text[::-1].index(True) if any(is_text) else 0)
        return encoded.ids[:first], encoded.ids[stop:]

    def token_id(self, token: str) -> int | None:
        """Returns the id of a token; None where there is no such."""
        return self._open()[0].token_to_id(token)

    def token(self, number: int) -> str | None:
        """Returns the token of an id; None where there is no such."""
        return self._open()[0].id_to_token(number) if number >= 0 else None

    def check_length(self, max_length: int) -> None:
        """Raises ConfigError for a length that leaves no room for a text."""
        _check_room(max_length, self._open()[0].num_special_tokens_to_add(False))

    def encode_batch(self, texts: Sequence[str], max_length: int) -> tuple[list[np.ndarray], list[bool]]:
        """Returns int32 token ids of at most `max_length` (special tokens included) and which texts were cut."""
        _check_side(self.truncation_side, self.path)
        tokenizer, lock = self._open()
        self.check_length(max_length)
        rows, cut = [], []
        for batch in _batches(texts):
            with lock:
                tokenizer.enable_truncation(max_length, direction=self.truncation_side)
                encoded = tokenizer.encode_batch_fast(batch)
            rows += [np.array(e.ids, np.int32) for e in encoded]
            cut += [bool(e.overflowing) for e in encoded]
        return rows, cut

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of `ids`, special tokens left out."""
        return self._open()[0].decode([int(i) for i in ids])


def _side_option(side: str) -> dict[str, str]:
    """Returns the option of a truncation side; none for the usual side, whose digests are older than the option."""
    return {} if side == "right" else {"truncation_side": side}


@functools.lru_cache(maxsize=8)
def _open_huggingface(path: str, version: tuple):
    return _parse(path, _read(path, "tokenizer.json"))


@functools.lru_cache(maxsize=2)
def _parse_huggingface(path: str, content: bytes):
    return _parse(path, content)


def _parse(path: str, content: bytes):
    import tokenizers

    try:
        tokenizer = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as e:  # the library raises bare Exception for every kind of malformed file
        raise DataError(f"{path}: not a tokenizer.json ({str(e)[:120]}); save the tokenizer again") from e
    tokenizer.no_padding()
    tokenizer.no_truncation()  # the lengths in the file must not decide ours
    return tokenizer, threading.Lock()


Tokenizer = SentencePiece | HuggingFace


def added_tokens(before: Tokenizer, after: Tokenizer) -> dict[int, list[int]] | None:
    """Returns {id of each token that `after` has more: ids of its pieces in `before`}; None where it is no such extension.

    An extension is a tokenizer.json with the same tokens under the same ids and more of them.
    """
    if not isinstance(before, HuggingFace) or not isinstance(after, HuggingFace):
        return None
    old, new = (t._open()[0].get_vocab(with_added_tokens=True) for t in (before, after))
    added = {token: number for token, number in new.items() if token not in old}
    if not added or {**old, **added} != new or min(added.values()) <= max(old.values()):
        return None
    tokenizer = before._open()[0]
    pieces = {number: tokenizer.encode(token, add_special_tokens=False).ids for token, number in added.items()}
    return pieces if all(pieces.values()) else None


_KINDS = {"sentencepiece": SentencePiece, "huggingface": HuggingFace}


def from_folder(folder, options: dict[str, Any]) -> Tokenizer:
    """Returns the tokenizer stored in a bundle, with the options of its model.json, after checking its digest there."""
    folder = pathlib.Path(folder)
    fields = {k: v for k, v in options.items() if k not in ("kind", "digest")}
    # A file may hold anything there, also what cannot be a key.
    kind = next((kind for name, kind in _KINDS.items() if name == options.get("kind")), None)
    if kind is None:
        raise DataError(
            f"{folder / 'model.json'}: unknown tokenizer kind {options.get('kind')!r}; known: {', '.join(_KINDS)}"
        )
    name = "tokenizer.model" if kind is SentencePiece else "tokenizer.json"
    tokenizer = kind(path=str(folder / name), **fields)
    if options.get("digest", tokenizer.digest) != tokenizer.digest:
        raise DataError(f"{folder}: the tokenizer is not the one the model was trained with; restore the folder")
    return tokenizer


def train_sentencepiece(texts: Iterable[str], vocab_size: int, symbols: Sequence[str] = ()) -> bytes:
    """Returns a SentencePiece unigram model trained on `texts`, with Gemma's special ids: pad 0, eos 1, bos 2, unk 3.

    Bytes are the fall-back, so no text is unknown. `symbols` are always pieces of their own.
    """
    import io

    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="unigram",
            pad_id=0,
            eos_id=1,
            bos_id=2,
            unk_id=3,
            byte_fallback=True,
            split_digits=True,
            user_defined_symbols=list(symbols),
            character_coverage=0.9995,
            max_sentence_length=16384,
            normalization_rule_name="identity",
            remove_extra_whitespaces=True,
            num_threads=2,
            num_sub_iterations=2,
            minloglevel=2,
        )
    except RuntimeError as e:
        raise DataError(
            f"a vocabulary of {vocab_size} pieces cannot be trained on these texts ({str(e)[-160:].strip()})"
        ) from e
    return model.getvalue()
