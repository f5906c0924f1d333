"""The tokenizer of a foreign folder: tokenizer.json with what the folder's other files say of it, as transformers reads them.

What transformers makes of the files becomes one tokenizer.json, which the bundle keeps. Notes say where that file differs
from the folder's own.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import tokenizers
from tokenizers import AddedToken

from embed import documents
from embed.data.tokenizers import HuggingFace
from embed.errors import DataError
from embed.interop import entries, special_tokens, tokenizer_classes
from embed.interop.entries import Entry
from embed.interop.known_entries import TOKENIZER_CONFIG

_CONFIG, _FILE = "tokenizer_config.json", "tokenizer.json"
# Larger numbers mean that nothing was said: transformers writes 1e30.
_UNLIMITED = 1_000_000_000


@dataclasses.dataclass(frozen=True)
class FolderTokenizer:
    """The tokenizer of a folder. `max_length` is the length that its files say, None when they do not."""

    tokenizer: HuggingFace
    max_length: int | None
    notes: tuple[str, ...]


def read(
    folder: pathlib.Path,
    config: Mapping[str, Any],
    *,
    vocab_size: int,
    arguments: Mapping[str, Any] | None = None,
    lower_case: bool = False,
) -> FolderTokenizer:
    """Returns the tokenizer of `folder` whose config.json is `config` and whose model has `vocab_size` token vectors.

    `arguments` replace entries of tokenizer_config.json (tokenizer_args of sentence_bert_config.json). With `lower_case`,
    texts are lower-cased before anything else, as sentence-transformers does for do_lower_case.
    """
    path = folder / _CONFIG
    options = documents.read_json(path) if path.is_file() else {}
    if (arguments or {}).get("tokenizer_file") is not None:
        raise DataError(
            f"{folder}: tokenizer_args.tokenizer_file = {arguments['tokenizer_file']!r} names another file than {_FILE}; put it "
            "into the folder as tokenizer.json and remove the entry"
        )
    options |= arguments or {}
    notes = entries.check(path, options, TOKENIZER_CONFIG | _named_tokens(options))
    notes += _check_values(path, options, config)
    length = _max_length(path, options)
    if not (folder / _FILE).is_file():
        raise DataError(f"{folder}: {_without_tokenizer_json(folder)}")
    name = tokenizer_classes.class_of(
        path if "tokenizer_class" in options else folder / "config.json",
        options.get("tokenizer_class") or config.get("tokenizer_class"),
        str(config.get("model_type")),
    )
    tokenizer, more = _tokenizer_json(folder, name, options, config, lower_case, vocab_size)
    notes += [*more, *_other_vocabularies(folder)]
    return FolderTokenizer(tokenizer, length, tuple(notes))


def _named_tokens(options: Mapping[str, Any]) -> dict[str, Entry]:
    """Returns the table of entries that name further special tokens: those that end in _token."""
    return {k: entries.HONOURED for k, v in options.items() if k.endswith("_token") and not isinstance(v, bool)}


def _check_values(path: pathlib.Path, options: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Refuses values that cannot be, and returns notes of what only matters in a batch or in a chat."""
    for name in ("truncation_side", "padding_side"):
        if options.get(name, "right") not in ("left", "right"):
            raise DataError(f"{path}: {name} = {options[name]!r} is neither left nor right; correct it")
    for name in ("do_lower_case", "tokenize_chinese_chars"):
        entries.flag(path, options, name, True)
    for name in ("strip_accents", "add_prefix_space", "add_bos_token", "add_eos_token"):
        if options.get(name) is not None:
            entries.flag(path, options, name, True)
    inputs = options.get("model_input_names", ["attention_mask"])
    if not isinstance(inputs, list) or "attention_mask" not in inputs:
        raise DataError(
            f"{path}: model_input_names = {inputs!r} has no attention_mask, so that padding would be part of a text; add it"
        )
    if options.get("padding_side") == "left" and config.get("model_type") == "bert":
        return [
            f"{path}: padding_side = 'left' moves the positions of shorter texts of a batch in sentence-transformers; "
            "here a text has the vector that it has alone"
        ]
    return []


def _max_length(path: pathlib.Path, options: Mapping[str, Any]) -> int | None:
    value = options.get("model_max_length", options.get("max_len"))
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool) and value >= _UNLIMITED):
        return None
    return entries.whole_number(path, {"model_max_length": value}, "model_max_length", 1, _UNLIMITED)


def _tokenizer_json(
    folder: pathlib.Path,
    name: str,
    options: Mapping[str, Any],
    config: Mapping[str, Any],
    lower_case: bool,
    vocab_size: int,
) -> tuple[HuggingFace, list[str]]:
    """Returns the tokenizer of class `name` and notes of what differs from tokenizer.json."""
    path = folder / _FILE
    content = path.read_bytes()
    documents.read_json(path)  # for its checks: what is there twice, and what is no JSON
    spec, truncation, padding = _canonical(path, content)
    if spec["model"].get("dropout"):
        raise DataError(f"{path}: model.dropout = {spec['model']['dropout']} draws tokens at random; set it to null")
    arguments = special_tokens.class_arguments(folder, options, spec)
    built_tokenizer, special = tokenizer_classes.build(path, name, spec, arguments)
    if lower_case:
        _lower_case(built_tokenizer)
    _check_ids(folder, built_tokenizer, arguments["added_tokens_decoder"])
    _check_type_ids(path, built_tokenizer, config)
    built = json.loads(built_tokenizer.to_str())
    notes = _differences(path, name, spec, built) + _add_ends_notes(folder, options, built_tokenizer, special)
    if name == "TokenizersBackend":
        _check_prefix_space(folder, options, spec)
    pad = special.get("pad_token", padding.get("pad_token"))
    pad = pad.content if isinstance(pad, AddedToken) else pad
    notes += _leave_out(path, built_tokenizer, built, vocab_size, pad)
    tokenizer = HuggingFace(
        path=str(path),
        pad_token=pad,
        truncation_side=options.get("truncation_side", str(truncation.get("direction", "right")).lower()),
        given=None if _same(spec, built) else json.dumps(built, ensure_ascii=False).encode(),
    )
    return tokenizer, notes


def _canonical(path: pathlib.Path, content: bytes) -> tuple[dict, dict, dict]:
    """Returns (tokenizer.json as this version of tokenizers writes it, its truncation, its padding), the first without both."""
    try:
        opened = tokenizers.Tokenizer.from_str(content.decode("utf-8"))
    except Exception as e:  # the library raises bare Exception for every kind of malformed file
        raise DataError(f"{path}: not a tokenizer.json ({str(e)[:120]}); save the tokenizer again") from e
    truncation, padding = opened.truncation or {}, opened.padding or {}
    opened.no_truncation()
    opened.no_padding()
    for token in documents.parse_json(content, str(path)).get("added_tokens") or []:
        if (
            opened.token_to_id(token["content"]) != token["id"]
        ):  # the library goes by the order alone, transformers by the ids
            raise DataError(
                f"{path}: added_tokens gives {token['content']!r} the id {token['id']}, and its place in the list the id "
                f"{opened.token_to_id(token['content'])}; save the tokenizer again"
            )
    return json.loads(opened.to_str()), truncation, padding


def _lower_case(tokenizer: tokenizers.Tokenizer) -> None:
    """Puts lower-casing before the normalizer, unless a step of it does just that."""
    from tokenizers import normalizers

    before = tokenizer.normalizer
    steps = list(before) if isinstance(before, normalizers.Sequence) else [] if before is None else [before]
    if not any(isinstance(step, normalizers.Lowercase) for step in steps):
        tokenizer.normalizer = normalizers.Sequence([normalizers.Lowercase(), *steps])


def _check_ids(folder: pathlib.Path, tokenizer: tokenizers.Tokenizer, added: Mapping[int, AddedToken]) -> None:
    """Refuses a folder whose files give a token two ids."""
    for number, token in added.items():
        if tokenizer.token_to_id(token.content) != number:
            raise DataError(
                f"{folder}: its files give the token {token.content!r} the id {number}, but in {_FILE} it is "
                f"{tokenizer.token_to_id(token.content)}; save the tokenizer again"
            )


_COMPONENTS = ("normalizer", "pre_tokenizer", "post_processor", "model", "added_tokens")


def _leave_out(
    path: pathlib.Path, tokenizer: tokenizers.Tokenizer, built: dict, vocab_size: int, pad: str | None
) -> list[str]:
    """Removes special tokens that the model has no vector for from `built`, and returns a note.

    Gemma 3's text models have '<image_soft_token>', which only the models with pictures have a vector for.
    """
    beyond = [t for t in built["added_tokens"] if t["id"] >= vocab_size]
    needed = {pad, *tokenizer.encode("").tokens}
    if not beyond or any(not t["special"] or t["content"] in needed for t in beyond):
        return []  # the check of the vocabulary's size refuses the folder
    built["added_tokens"] = [t for t in built["added_tokens"] if t["id"] < vocab_size]
    names = ", ".join(repr(t["content"]) for t in beyond[:3]) + (" ..." if len(beyond) > 3 else "")
    return [f"{path}: the model has no vector for {names}; such a name in a text is ordinary text here"]


def _same(spec: dict, built: dict) -> bool:
    return all(spec[part] == built[part] for part in _COMPONENTS)


def _differences(path: pathlib.Path, name: str, spec: dict, built: dict) -> list[str]:
    """Returns a note of what the class makes different from tokenizer.json."""
    changed = []
    for part in _COMPONENTS:
        before, now = spec[part], built[part]
        if before != now:
            both = isinstance(before, dict) and isinstance(now, dict) and before.get("type") == now.get("type")
            fields = [k for k in (*before, *now) if before.get(k) != now.get(k)] if both else []
            shown = [f"{k} {now.get(k)!r:.40}" for k in dict.fromkeys(fields) if k not in ("vocab", "merges")]
            changed.append(f"{part}{' (' + ', '.join(shown[:3]) + ')' if shown else ''}")
    if not changed:
        return []
    return [f"{path}: as transformers 5 builds a {name} of the folder, its {', '.join(changed)} is replaced"]


def _add_ends_notes(folder: pathlib.Path, options: Mapping[str, Any], tokenizer, special) -> list[str]:
    """Returns a note where add_bos_token or add_eos_token is not what the post-processor does."""
    ids = set(tokenizer.encode("").ids)
    wrong = []
    for entry, role in (("add_bos_token", "bos_token"), ("add_eos_token", "eos_token")):
        token = special.get(role)
        if options.get(entry) is not None and token is not None:
            text = token.content if isinstance(token, AddedToken) else token
            if options[entry] != (tokenizer.token_to_id(text) in ids):
                wrong.append(f"{entry} = {options[entry]}".lower())
    if not wrong:
        return []
    return [
        f"{folder / _CONFIG}: {' and '.join(wrong)} is not what the post-processor of {_FILE} does; the post-processor is "
        "used, as in transformers 5"
    ]


def _check_prefix_space(folder: pathlib.Path, options: Mapping[str, Any], spec: dict) -> None:
    """Refuses a prefix space that versions 4 and 5 of transformers decide differently."""
    in_spec = (spec["pre_tokenizer"] or {}).get("add_prefix_space")
    given = options.get("add_prefix_space")
    if None not in (in_spec, given) and in_spec != given:
        raise DataError(
            f"{folder / _CONFIG}: add_prefix_space = {str(given).lower()}, but {_FILE} says {str(in_spec).lower()}, and "
            "versions of transformers differ in which they take; make them equal"
        )


def _check_type_ids(path: pathlib.Path, tokenizer: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Refuses a post-processor that gives a text another token type than 0, where the model has types."""
    if config.get("model_type") in ("bert", "xlm-roberta") and any(tokenizer.encode("a").type_ids):
        raise DataError(f"{path}: its post-processor gives texts token types other than 0, which is not supported")


def _other_vocabularies(folder: pathlib.Path) -> list[str]:
    """Returns a note of each vocabulary beside tokenizer.json, which is not read, that has other tokens."""
    vocab: dict[str, int] | None = None
    notes = []
    for name in ("vocab.txt", "vocab.json", "tokenizer.model", "sentencepiece.bpe.model", "spiece.model"):
        path = folder / name
        if path.is_file():
            vocab = vocab or tokenizers.Tokenizer.from_file(str(folder / _FILE)).get_vocab()
            if not _agrees(path, vocab):
                notes.append(f"{path}: does not have the tokens of {_FILE}, which is used, as in transformers")
    return notes


def _agrees(path: pathlib.Path, vocab: Mapping[str, int]) -> bool:
    if path.suffix == ".txt":
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        return all(vocab.get(line.rstrip("\r")) == i for i, line in enumerate(lines) if line)
    if path.suffix == ".json":
        return all(vocab.get(text) == number for text, number in documents.read_json(path).items())
    import sentencepiece

    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
    except RuntimeError:
        return False
    numbers = [i for i in range(processor.get_piece_size()) if not (processor.is_control(i) or processor.is_unknown(i))]
    return all(processor.id_to_piece(i) in vocab for i in numbers)


def _without_tokenizer_json(folder: pathlib.Path) -> str:
    """Returns why a folder without tokenizer.json is not read, and what to do.

    What transformers makes of a SentencePiece model or a word list depends on its class: '<s>' written in a text becomes the
    special token, which SentencePiece itself never does.
    """
    names = ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "vocab.txt", "vocab.json")
    present = [name for name in names if (folder / name).is_file()]
    what = f"has {present[0]} without a tokenizer.json" if present else "has no tokenizer.json"
    return f"{what}; save it with a fast tokenizer: AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)"
