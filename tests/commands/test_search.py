"""`embed search`: a corpus that cannot be searched is one line, before a model is opened."""

import json
import types

import numpy as np
import pytest

from embed.commands.main import main
from embed.errors import UsageError
from embed.workflows import search


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"text": "a"}\n{"txt": "b"}\n', "c.jsonl:2: no field 'text'"),
        ('{"text": "a", "title": 3}\n', "c.jsonl:1: field 'title' is int, expected a text"),
        ('{"text": null}\n', "c.jsonl:1: field 'text' is missing or null"),
        ("", "c.jsonl: no texts in it"),
        ('{"image": "nowhere.png"}\n', "nowhere.png is not there; correct the path, or remove the line"),
        ('{"image": 3}\n', "c.jsonl:1: field 'image' is int, expected a text"),
    ],
)
def test_a_bad_corpus_is_named(tmp_path, capsys, content, message):
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(SystemExit) as ended:
        main(["search", "none", "red", f"--corpus={tmp_path / 'c.jsonl'}"])
    assert ended.value.code == 65
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_images_are_found_by_texts_and_by_images(tmp_path, monkeypatch):
    """By a stand-in model that sees the name in a text, and the number in an image's name."""
    names = {"red": 0, "green": 1, "blue": 2}
    for name in names:
        (tmp_path / f"{name}.png").write_bytes(b"")
    rows = [{"id": name, "image": f"{name}.png"} for name in names] + [{"id": "words", "text": "green things"}]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def encode(items, prompt, dims):
        return np.array([np.eye(3)[_number(item, names)] for item in items], np.float32)

    model = types.SimpleNamespace(folder="m", takes_images=True, encode=encode, check_dims=lambda dims: None)
    monkeypatch.setattr(search.inference, "open_model", lambda path: model)
    queries = ["blue", str(tmp_path / "green.png")]
    results = search.run("m", queries, tmp_path / "c.jsonl", top=2)
    assert [[r.id for r in ranked] for ranked in results] == [["blue", "red"], ["green", "words"]]
    assert results[1][1].row["text"] == "green things"
    (beside,) = search.run("m", ["[MASK_0] at night"], tmp_path / "c.jsonl", images=[tmp_path / "red.png"], top=1)
    assert beside[0].id == "red"
    (both,) = search.run("m", [str(tmp_path / "blue.png")], tmp_path / "c.jsonl", images=[tmp_path / "red.png"], top=1)
    assert both[0].id == "blue"  # its own image is the first
    texts_only = types.SimpleNamespace(**{**vars(model), "takes_images": False})
    monkeypatch.setattr(search.inference, "open_model", lambda path: texts_only)
    with pytest.raises(UsageError, match="c.jsonl:1: has an image, and m embeds texts only; take a model of both"):
        search.run("m", ["a"], tmp_path / "c.jsonl")
    (tmp_path / "t.jsonl").write_text('{"text": "green things"}\n')
    with pytest.raises(UsageError, match="the query has an image, and m embeds texts only; take a model of both"):
        search.run("m", ["a"], tmp_path / "t.jsonl", images=[tmp_path / "red.png"])


def _number(item, names) -> int:
    text = item if isinstance(item, str) else str(item.images[0]) if item.images else item.text
    return next(number for name, number in names.items() if name in text.rpartition("/")[2])
