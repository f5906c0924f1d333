"""The tokenizers of llama.cpp after src/llama-vocab.cpp, from a file's metadata alone: slow, and enough for a test.

Special tokens written in a text are not looked for, but symbols of the user are.
"""

import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import tokenizers
from tokenizers import normalizers, pre_tokenizers

_SPACE = "\u2581"


class Llama:
    """encode(text) -> token ids."""

    def __init__(self, metadata: Mapping[str, Any]):
        self.entries = {key.removeprefix("tokenizer.ggml."): value for key, value in metadata.items()}
        self.ids = {token: i for i, token in enumerate(self.entries["tokens"])}
        self.types = self.entries["token_type"]

    def encode(self, text: str) -> list[int]:
        kinds: dict[str, Callable[[str], list[int]]] = {
            "bert": self._word_pieces, "t5": self._unigram, "llama": self._merged, "gpt2": self._bytes
        }  # fmt: skip
        entries, kind = self.entries, self.entries["model"]
        if kind == "bert":
            return [entries["bos_token_id"], *self._word_pieces(text), entries["seperator_token_id"]]
        ids = [i for part in self._parts(text) for i in (kinds[kind](part) if isinstance(part, str) else [part])]
        begin = [entries["bos_token_id"]] if entries["add_bos_token"] else []
        return begin + ids + ([entries["eos_token_id"]] if entries["add_eos_token"] else [])

    def _parts(self, text: str) -> list[str | int]:
        """Returns the text cut at the symbols of the user."""
        symbols = sorted((t for t, i in self.ids.items() if self.types[i] == 4), key=len, reverse=True)
        if not symbols:
            return [text]
        cut = re.split(f"({'|'.join(map(re.escape, symbols))})", text)
        return [self.ids[part] if part in symbols else part for part in cut if part]

    def _word_pieces(self, text: str) -> list[int]:
        if self.entries["normalizer.strip_accents"]:
            text = "".join(unicodedata.normalize("NFD", c)[0] for c in text)
            text = "".join(c for c in text if unicodedata.category(c)[0] != "M")
        if self.entries["normalizer.lowercase"]:
            text = text.lower()
        text = "".join(" " if c.isspace() else c for c in text)
        text = "".join(c for c in text if c == " " or unicodedata.category(c)[0] != "C")
        marks = lambda c: unicodedata.category(c)[0] == "P" or (ord(c) < 127 and unicodedata.category(c)[0] == "S")  # noqa: E731
        chinese = lambda c: "CJK UNIFIED" in unicodedata.name(c, "") or "CJK COMPAT" in unicodedata.name(c, "")  # noqa: E731
        words = "".join(f" {c} " if marks(c) or chinese(c) else c for c in text).split()
        return [i for word in words for i in self._longest(_SPACE + word)]

    def _longest(self, word: str) -> list[int]:
        ids, start = [], 0
        while start < len(word):
            end = next((e for e in range(len(word), start, -1) if word[start:e] in self.ids), None)
            if end is None:
                return [self.entries["unknown_token_id"]]
            ids.append(self.ids[word[start:end]])
            start = end
        return ids

    def _unigram(self, text: str) -> list[int]:
        if "precompiled_charsmap" in self.entries:
            text = normalizers.Precompiled(bytes(self.entries["precompiled_charsmap"])).normalize_str(text)
        assert self.entries["add_space_prefix"]
        if self.entries["remove_extra_whitespaces"]:
            text = re.sub(" +", " ", text).strip(" ")
        text = (" " + text).replace(" ", _SPACE)
        scores = self.entries["scores"]
        normal = {token: i for token, i in self.ids.items() if self.types[i] in (1, 4, 5)}
        unknown = min(s for s, kind in zip(scores, self.types) if kind == 1) - 10.0
        longest = max(map(len, normal))
        best: list[tuple[float, int, int]] = [(0.0, 0, -1)] + [(-1e300, 0, -1)] * len(text)
        for start in range(len(text)):
            ends = range(start + 1, min(len(text), start + longest) + 1)
            options = [(e, normal[text[start:e]]) for e in ends if text[start:e] in normal]
            if start + 1 not in [e for e, _ in options]:
                options.append((start + 1, -1))
            for end, token in options:
                score = best[start][0] + (unknown if token < 0 else scores[token])
                if score > best[end][0]:
                    best[end] = (score, start, token)
        return self._backwards(best)

    def _backwards(self, best) -> list[int]:
        ids, end = [], len(best) - 1
        while end > 0:
            _, start, token = best[end]
            unknown = self.entries["unknown_token_id"]
            if token >= 0 or not ids or ids[-1] != unknown:
                ids.append(unknown if token < 0 else token)
            end = start
        return ids[::-1]

    def _merged(self, text: str) -> list[int]:
        symbols = list((" " * self.entries["add_space_prefix"] + text).replace(" ", _SPACE))
        scores = self.entries["scores"]
        while True:
            pairs = [
                (scores[self.ids[a + b]], -i) for i, (a, b) in enumerate(zip(symbols, symbols[1:])) if a + b in self.ids
            ]
            if not pairs:
                break
            i = -max(pairs)[1]
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        name = lambda byte: self.ids[f"<0x{byte:02X}>"]  # noqa: E731
        return [i for s in symbols for i in ([self.ids[s]] if s in self.ids else [name(byte) for byte in s.encode()])]

    def _bytes(self, text: str) -> list[int]:
        ranks = {tuple(merge.split(" ")): i for i, merge in enumerate(self.entries["merges"])}
        ids: list[int] = []
        for word, _ in _words(self.entries["pre"]).pre_tokenize_str(text):
            symbols = list(word)
            while pairs := [(ranks[p], i) for i, p in enumerate(zip(symbols, symbols[1:])) if p in ranks]:
                i = min(pairs)[1]
                symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
            ids += [self.ids[symbol] for symbol in symbols]
        return ids


def _words(rule: str):
    """Returns how llama.cpp's rule of this name cuts texts, as src/llama-vocab.cpp writes it."""
    rules = {
        "gpt-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
        "qwen2": r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    }
    split = pre_tokenizers.Split(tokenizers.Regex(rules[rule]), "isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
