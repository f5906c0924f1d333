"""Bytes changed at random, given to the parsers of what comes from outside: values or errors of one line, nothing else."""

import io
import json
import pathlib
import random
import resource
from collections.abc import Callable

import numpy as np
from reports import Report

from embed import arrays, bundles, documents
from embed.data import records
from embed.errors import EmbedError

_MEMORY = 2 << 30  # bytes that a try may add to what the process has
_BURST = 2000  # tries of one parser before the next has its turn
_TOKENS = (*(bytes([c]) for c in b'{}[]",:\\\n\0\xff'), b"-1", b"1e999", b"9" * 30, b"null", b"NaN", b"\\ud800")


def changed(content: bytes, choose: random.Random) -> bytes:
    """Returns a content with one to four changes."""
    made = bytearray(content)
    for _ in range(choose.randint(1, 4)):
        at = choose.randrange(len(made) + 1)
        kind = choose.randrange(6)
        if kind == 0 and at < len(made):
            made[at] ^= 1 << choose.randrange(8)
        elif kind == 1:
            made[at : at + choose.randint(1, 9)] = b""
        elif kind == 2:
            made[at:at] = choose.choice(_TOKENS)
        elif kind == 3:
            made[at : at + 8] = choose.randbytes(8)
        elif kind == 4:
            made[at:] = b""
        else:
            start = choose.randrange(len(made) + 1)
            made[at:at] = made[start : start + choose.randint(1, 40)]
    return bytes(made)


def parsers(folder: pathlib.Path) -> dict[str, tuple[list[bytes], Callable[[bytes], object]]]:
    """Returns {name: (contents to begin with, parser of bytes)}."""
    from embed.interop import safetensors_writer, tensors
    from embed.serving import requests
    from embed.sources import lines, qrels

    def by_file(name: str, parse: Callable[[pathlib.Path], object]) -> Callable[[bytes], object]:
        path = folder / name

        def parser(content: bytes) -> object:
            path.write_bytes(content)
            return parse(path)

        return parser

    values = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b.bias": np.ones(2, np.float32)}
    shapes = {name: value.shape for name, value in values.items()}
    safetensors_writer.write(folder / "seed.safetensors", shapes, values.items(), "float32")
    buffer = io.BytesIO()
    np.savez(buffer, x=np.arange(4), y=np.ones((2, 2), np.float32))
    npy = arrays.npy_bytes(np.arange(6, dtype=np.int32).reshape(2, 3))
    fields = [records.Field("tokens", "int32", 1), records.Field("ids", "int64", 1)]
    example = {field.name: np.arange(5, dtype=field.dtype) for field in fields}
    description = {
        "format": 1, "architecture": {"type": "Embedder", "encoder": {"type": "Gemma", "width": 32}},
        "prompts": {"query": "{content}"}, "tokenizer": {"kind": "sentencepiece", "digest": "x"}, "lengths": {"query": 8},
        "lineage": {}, "matryoshka_dims": [64],
    }  # fmt: skip
    rows = "".join(
        json.dumps({"query": f"q {i} é", "target": [f"t {i}", "x"], "n": i / 3}) + "\n" for i in range(4)
    ).encode()
    judged = b"query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td9\t0\nq2\td3\t2\n"
    body = json.dumps({"input": ["a", "b é"], "model": "m", "encoding_format": "float", "dimensions": 64}).encode()

    def model_json(path: pathlib.Path) -> object:
        return bundles.read_model_json(path.parent)

    def judgements(path: pathlib.Path) -> object:
        return list(qrels.parse(lines.read_lines(str(path))))

    limits = requests.Limits("m", 64, frozenset({"query"}), "query")
    return {
        "safetensors": ([(folder / "seed.safetensors").read_bytes()], by_file("x.safetensors", tensors.stored_dtypes)),
        "npz": ([buffer.getvalue()], by_file("x.npz", arrays.read_npz)),
        "npy": ([npy], lambda content: arrays.parse_npy(content, "x.npy")),
        "jsonl": ([rows], by_file("x.jsonl", lambda p: list(lines.read_json_lines(str(p))))),
        "qrels": ([judged], by_file("qrels.tsv", judgements)),
        "model.json": ([documents.json_bytes(description)], by_file("model.json", model_json)),
        "records": ([records.pack(example, fields)], lambda content: records.unpack(content, fields)),
        "requests": ([body], lambda content: requests.parse(content, limits)),
    }


def tokenizers(folder: pathlib.Path) -> dict[str, tuple[list[bytes], Callable[[bytes], object]]]:
    """Returns the parser of tokenizer.json, which is slow."""
    from embed.data import tokenizers as ours

    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "red": 1, "river": 2}, "unk_token": "[UNK]"},
    }  # fmt: skip
    return {
        "tokenizer.json": ([json.dumps(content).encode()], lambda data: ours._parse_huggingface("tokenizer.json", data))
    }


def run(folder: pathlib.Path, tries: int, seed: int, report: Report) -> None:
    """Tries the parsers in turns; what is no error of ours is not survived."""
    from embed.serving.requests import BadRequest

    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmSize:"):
            limit = int(line.split()[1]) * 1024 + _MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    choose = random.Random(seed)
    known = {**parsers(folder), **tokenizers(folder)}
    while report.tried < tries:
        for name, (seeds, parse) in known.items():
            for _ in range(min(_BURST, tries - report.tried)):
                content = changed(choose.choice(seeds), choose)
                try:
                    parse(content)
                except (EmbedError, BadRequest) as e:
                    if "\n" in str(e):
                        report.fail(f"{name}: an error of several lines: {str(e)[:150]!r} of {content[:100]!r}")
                    else:
                        report.survive(f"{name} refused")
                except BaseException as e:
                    report.fail(f"{name}: raw {type(e).__name__}: {str(e)[:120]} of {content[:100]!r}")
                    if isinstance(e, KeyboardInterrupt):
                        raise
                else:
                    report.survive(f"{name} read")
