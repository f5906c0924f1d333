"""Bad inputs made from what the commands themselves declare: their options, the parameters of gin, the fields of JSON files.

A case is a command line and a change of one file. The test of it is the same for all: one line and an exit code of ours, or
work well done; never a traceback, never silence about what cannot be.
"""

import argparse
import dataclasses
import importlib
import json
import pathlib
import random
import typing
from collections.abc import Callable, Iterator

from embed import config
from embed.commands.main import COMMANDS

# command -> a line that is right, in the folder of the test; OUT is a new output
LINES = {
    "prepare": ["--gin_file=tiny.gin"],
    "convert": ["exported", "OUT"],
    "train": ["--gin_file=tiny.gin", "--run_dir=OUT", "--gin.TRAIN_STEPS=1", "--gin.sharding.MeshShape.data=8"],
    "compile": ["--gin_file=tiny.gin", "--steps=encode"],
    "average": ["model", "model", "--output=OUT"],
    "evaluate": ["model", "--suite=suite.json", "--output=OUT", "--vectors=off"],
    "export": ["model", "OUT", "--format=stablehlo"],
    "verify": ["program"],
    "encode": ["model", "--input=texts.jsonl", "--output=OUT", "--format=npy"],
    "index": ["model", "--corpus=texts.jsonl", "--output=OUT"],
    "search": ["model", "red", "--corpus=texts.jsonl"],
    "curate": ["queries", "--output=OUT", "--endpoint=http://127.0.0.1:9/v1", "--model=m", "--input=texts.jsonl",
               "--attempts=1", "--first_wait=0.01"],
    "reproduce": ["--list"],
    "tune": ["--gin_file=tiny.gin", "--output=OUT"],
    "mine": ["model", "--pairs", "pairs.jsonl", "--output=OUT", "--ranks=1:5"],
}  # fmt: skip
# Options whose text is one of a few names, or has a form of its own, and what is none.
WORDS = {
    "format": ["jpeg", ""], "dtype": ["float16", "int4", ""], "method": ["mean", ""], "quantize": ["int3", ",", ""],
    "weights": ["a,b", "1,,2", "nan,1"], "alpha": ["x", "nan", "1e308"], "dims": ["0", "-1", "x", "1e9", "8,8.5"],
    "baselines": ["bm52", "random,"], "against": ["nobody", ""], "tasks": ["nothing", ","], "item": ["opt_state", "x"],
    "ranks": ["5:1", "0:3", "a:b", "1:2:3", ""], "ceiling": ["2", "x", "-1"], "order": ["best", ""], "labels": ["a", ","],
    "factors": ["0", "x", "-1", "nan", ""], "topology": ["v9x:2x2", "nowhere", ""], "mesh": ["1,2", "0,0,0", "a,b,c"],
    "steps": ["all", ""], "prompt": ["nobody", "=x", "query"], "matryoshka_dims": ["0", "x", "99999"], "price": ["1", "a,b"],
    "search": ["gird", "bayes", ""], "start": ["here", "recipe", ""],
    "endpoint": ["ftp://x", "http://", "127.0.0.1", ""], "query_prompt": ["nobody"], "target_prompt": ["nobody"],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    """`words` are the command line; `change` is applied to the folder before, where there is one. `is_bad` cases must fail."""

    name: str
    words: tuple[str, ...]
    change: Callable[[pathlib.Path], None] | None = None
    is_bad: bool = True


def parser_of(command: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    importlib.import_module(f"embed.commands.{command}").add_arguments(parser)
    return parser


def below_and_above(hint) -> list[str]:
    """Numbers out of a range, and texts that are none."""
    values = ["nan", "inf", "-inf", "x", "", "1e999", "0x10", "1_0_"]
    base, metas = hint, ()
    if typing.get_origin(hint) is typing.Annotated:
        base, *metas = typing.get_args(hint)
    for meta in metas:
        if meta.ge is not None:
            values.append(str(meta.ge - 1))
        if meta.gt is not None:
            values += [str(meta.gt), str(meta.gt - 1)]
        if meta.le is not None:
            values.append(str(meta.le + 1))
        if meta.lt is not None:
            values.append(str(meta.lt))
    return [*values, "1.5"] if base is int else values


def of_options() -> Iterator[Case]:
    """Every option of every command with values that it cannot have."""
    for command in COMMANDS:
        if command == "serve":  # which would serve for ever where it takes a value
            continue
        line = LINES[command]
        for action in parser_of(command)._actions:
            if not action.option_strings:
                continue
            option = action.option_strings[0]
            name = option.removeprefix("--")
            rest = [w for w in line if not w.startswith(f"{option}=")]
            if isinstance(action, argparse._StoreTrueAction | argparse._StoreConstAction):
                yield Case(f"{command} {option}=x", (command, *line, f"{option}=x"))
                continue
            hint = getattr(action.type, "hint", None)
            values = below_and_above(hint) if hint is not None else WORDS.get(name, [])
            if action.type is not None and getattr(action.type, "__name__", "") == "path":
                values = ["", "   ", "nowhere/at/all", "texts.jsonl/below/a/file", "x" * 300]
                if name in ("output", "run_dir"):
                    values = ["", "   ", "texts.jsonl/below/a/file", "x" * 300, "texts.jsonl"]
                if command == "reproduce":  # which only lists here
                    values = ["", "   "]
                if name == "vectors":
                    values = ["texts.jsonl/below"]
            for value in values:
                if option in line:  # options with a value of their own word, such as --pairs
                    place = line.index(option)
                    words = (command, *line[: place + 1], value, *line[place + 2 :])
                else:
                    words = (command, *rest, f"{option}={value}")
                yield Case(f"{command} {option}={value[:20]}", words)
        yield Case(f"{command} --unknown", (command, *line, "--unknown=1"))
        yield Case(f"{command} one word more", (command, *line, "more", "--and=more"))
        yield Case(f"{command} a gin binding", (command, *line, "--gin.nobody.Nothing.x=1"))


# What the recipe of the tests is built from, as gin names it.
BUILT = {
    "recipe.Recipe": "embed.workflows.recipe.Recipe", "loop.Schedule": "embed.training.loop.Schedule",
    "text_features.Lengths": "embed.data.text_features.Lengths", "contrastive.Contrastive": "embed.losses.contrastive.Contrastive",
    "matryoshka.Matryoshka": "embed.losses.matryoshka.Matryoshka", "optimizers.adamw": "embed.training.optimizers.adamw",
    "optimizers.schedule": "embed.training.optimizers.schedule", "gemma.Gemma": "embed.models.gemma.Gemma",
    "sharding.MeshShape": "embed.sharding.MeshShape", "tasks.Mixture": "embed.data.tasks.Mixture",
    "tokenizers.SentencePiece": "embed.data.tokenizers.SentencePiece",
}  # fmt: skip


def numbers_in(hint) -> list:
    """The numeric parts of a hint with their ranges."""
    options = (
        typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, __import__("types").UnionType) else (hint,)
    )
    found = []
    for option in options:
        base = typing.get_args(option)[0] if typing.get_origin(option) is typing.Annotated else option
        if base in (int, float):
            found.append(option)
    return found


def of_gin() -> Iterator[Case]:
    """Every number of a recipe with values out of its range, and every parameter with one of another type."""
    for selector, path in BUILT.items():
        module, _, name = path.rpartition(".")
        parameters = config._parameters(getattr(importlib.import_module(module), name))
        for parameter, hint in parameters.items():
            if parameter in ("parent", "name"):
                continue
            values = ["object()", "{", "[1", "@nobody.Nothing()", "%NOTHING"]
            for number in numbers_in(hint):
                metas = typing.get_args(number)[1:] if typing.get_origin(number) is typing.Annotated else ()
                for meta in metas:
                    values += [str(meta.ge - 1)] if meta.ge is not None else []
                    values += [str(meta.gt)] if meta.gt is not None else []
                    values += [str(meta.lt)] if meta.lt is not None else []
                values += ["1e400", "'x'", "[]", "{'a': 1}"] if hint is number else []
            for value in values:
                words = ("train", *LINES["train"], f"--gin.{selector}.{parameter}={value}")
                yield Case(f"gin {selector}.{parameter}={value}", words)
    for text in ("A=1\nTRAIN_STEPS=2", "=1", "TRAIN_STEPS", "include 'x'", "import os=1", "TRAIN_STEPS=" + "[" * 5000):
        yield Case(f"gin {text[:30]!r}", ("train", *LINES["train"], f"--gin.{text}"))


WRONG = [None, -1, 10**30, 1e308, "", "x", "\u202e\x1b[31m", [], {}, [None], {"a": {"a": 1}}, True]


def paths_of(value, path=()) -> Iterator[tuple]:
    """The path of every value inside a JSON value; of a list the first two items."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from paths_of(item, (*path, key))


def replaced(value, path: tuple, new) -> typing.Any:
    """The value with another at a path; `...` removes it."""
    copy = json.loads(json.dumps(value))
    node = copy
    for key in path[:-1]:
        node = node[key]
    if new is ...:
        del node[path[-1]]
    else:
        node[path[-1]] = new
    return copy


def of_json(folder: pathlib.Path, name: str, line, commit=lambda path: None, is_bad: bool = True) -> Iterator[Case]:
    """Every field of a JSON file with values of other types, removed, and the file itself damaged in many ways.

    `is_bad` False is for a file that the command makes again.
    """
    text = (folder / name).read_text(encoding="utf-8")
    value = json.loads(text)

    def writes(content: bytes):
        def change(work: pathlib.Path) -> None:
            (work / name).write_bytes(content)
            commit((work / name).parent)

        return change

    for path in paths_of(value):
        for new in (..., *WRONG):
            content = json.dumps(replaced(value, path, new)).encode()
            shown = "removed" if new is ... else json.dumps(new)[:20]
            yield Case(f"{name} {'.'.join(map(str, path))} {shown}", tuple(line), writes(content), is_bad=False)
    whole = {
        "empty": b"", "cut": text.encode()[: len(text) // 2], "null": b"null", "a number": b"7", "deep": b"[" * 50_000,
        "not UTF-8": text.encode().replace(b'"', b'"\xff', 1), "UTF-16": text.encode("utf-16"), "zeros": bytes(1000),
        "twice": b'{"a": 1, "a": 2}', "NaN": b'{"a": NaN}', "an array": b"[1, 2, 3]", "long digits": b"1" * 10_000,
    }  # fmt: skip
    for kind, content in whole.items():
        yield Case(f"{name} {kind}", tuple(line), writes(content), is_bad=is_bad)

    def as_folder(work: pathlib.Path) -> None:
        (work / name).unlink()
        (work / name).mkdir()

    yield Case(f"{name} is a folder", tuple(line), as_folder)


def drawn(cases: list[Case], count: int, seed: int) -> list[Case]:
    """Some of the cases, the same for a seed."""
    cases = sorted(cases, key=lambda case: case.name)
    return random.Random(seed).sample(cases, min(count, len(cases)))
