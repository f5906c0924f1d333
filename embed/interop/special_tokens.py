"""The special and added tokens of a foreign folder, as transformers hands them to a tokenizer's class."""

import pathlib
from collections.abc import Mapping
from typing import Any

from tokenizers import AddedToken

from embed import documents
from embed.errors import DataError
from embed.interop import entries
from embed.interop.known_entries import SPECIAL_TOKENS, SPECIAL_TOKENS_MAP

_CONFIG, _FILE = "tokenizer_config.json", "tokenizer.json"


def class_arguments(folder: pathlib.Path, options: Mapping[str, Any], spec: dict) -> dict[str, Any]:
    """Returns the arguments that transformers gives the class: tokenizer_config.json with the older files beside it."""
    out = dict(options)
    if "additional_special_tokens" in out and not out.get("extra_special_tokens"):
        out["extra_special_tokens"] = out["additional_special_tokens"]
    out = {name: _token(folder / _CONFIG, name, value) for name, value in out.items()}
    added = _added_tokens(folder, out, spec)
    out["added_tokens_decoder"] = added
    by_text = {token.content: token for token in added.values()}
    for role in SPECIAL_TOKENS:
        if out.get(role) is not None:
            text = out[role].content if isinstance(out[role], AddedToken) else out[role]
            out[role] = by_text.get(text, out[role])
    extra = out.pop("extra_special_tokens", None) or []
    named = {
        k: v
        for k, v in out.items()
        if k.endswith("_token") and k not in SPECIAL_TOKENS and isinstance(v, str | AddedToken)
    }
    out["model_specific_special_tokens"] = named | (extra if isinstance(extra, dict) else {})
    out["extra_special_tokens"] = [] if isinstance(extra, dict) else extra
    return out


def _token(path: pathlib.Path, name: str, value: Any) -> Any:
    """Returns an entry with its tokens as AddedToken; a special token that is neither text nor token is a DataError."""
    if isinstance(value, dict) and value.get("__type") == "AddedToken":
        return _added(path, name, value)
    if name in ("extra_special_tokens", "additional_special_tokens") and isinstance(value, list | dict):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        read = {k: _item(path, name, v) for k, v in items}
        return read if isinstance(value, dict) else list(read.values())
    is_role = name in SPECIAL_TOKENS or name in ("extra_special_tokens", "additional_special_tokens")
    allowed = str | None if is_role else str | bool | None  # other flags, such as add_bos_token, end in _token too
    if (is_role or name.endswith("_token")) and not isinstance(value, allowed):
        raise DataError(f"{path}: {name} = {value!r:.100} is no token of transformers; save the tokenizer again")
    return value


def _item(path: pathlib.Path, name: str, value: Any) -> Any:
    """Returns one of several special tokens; one that is neither a text nor a token is a DataError."""
    if isinstance(value, dict):
        return _added(path, name, value)
    if not isinstance(value, str) or not value:
        raise DataError(
            f"{path}: {name} holds {value!r:.100}, which is no token of transformers; save the tokenizer again"
        )
    return value


def _added(path: pathlib.Path, name: str, fields: Mapping[str, Any], **changes) -> AddedToken:
    known = ("content", "single_word", "lstrip", "rstrip", "normalized", "special")
    given = {k: v for k, v in fields.items() if k in known} | changes
    content = given.pop("content", None)
    if not isinstance(content, str) or not content or not all(isinstance(v, bool) for v in given.values()):
        raise DataError(f"{path}: {name} holds a token that cannot be: {dict(fields)!r:.100}; save the tokenizer again")
    return AddedToken(content, **given)


def _is_id(text: str) -> bool:
    return text.isdecimal() and len(text) <= 10


def _added_tokens(folder: pathlib.Path, options: dict[str, Any], spec: dict) -> dict[int, AddedToken]:
    """Returns the tokens beside the vocabulary by id; `options` get the special tokens of an old special_tokens_map.json."""
    given = options.get("added_tokens_decoder")
    path = folder / _CONFIG
    if given is not None:
        if not isinstance(given, dict) or not all(_is_id(k) and isinstance(v, dict) for k, v in given.items()):
            raise DataError(f"{path}: added_tokens_decoder is not tokens by id; save the tokenizer again")
        return {int(k): _added(path, "added_tokens_decoder", v) for k, v in given.items()}
    _merge_special_tokens_map(folder, options)
    texts = [options.get(role) for role in SPECIAL_TOKENS]
    special = {
        t.content if isinstance(t, AddedToken) else t for t in (*texts, *(options.get("extra_special_tokens") or ()))
    }
    added = {}
    path = folder / "added_tokens.json"
    for text, number in (documents.read_json(path) if path.is_file() else {}).items():
        entries.whole_number(path, {text: number}, text, 0, 1 << 31)
        added[number] = AddedToken(text, normalized=text not in special, special=text in special)
    for token in spec["added_tokens"]:
        added[token["id"]] = _added(folder / _FILE, "added_tokens", token)
    return added


def _merge_special_tokens_map(folder: pathlib.Path, options: dict[str, Any]) -> None:
    path = folder / "special_tokens_map.json"
    for name, value in (documents.read_json(path) if path.is_file() else {}).items():
        if name not in SPECIAL_TOKENS_MAP and not name.endswith("_token"):
            raise DataError(f"{path}: does not know {name}; only special tokens can be in this file")
        if name == "additional_special_tokens":
            name = "extra_special_tokens"
        if isinstance(value, list):
            tokens = [
                _added(path, name, t, special=True) if isinstance(t, dict) else _item(path, name, t) for t in value
            ]
            listed = options.get(name) or []
            value = [*listed, *(t for t in tokens if t not in listed)]
        elif isinstance(value, dict):
            value = _added(path, name, value, special=True)
        elif value is not None:
            value = _item(path, name, value)
        options[name] = value
