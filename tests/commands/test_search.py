"""`embed search`: a corpus that cannot be searched is one line, before a model is opened."""

import pytest

from embed.commands.main import main


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"text": "a"}\n{"txt": "b"}\n', "c.jsonl:2: no field 'text'"),
        ('{"text": "a", "title": 3}\n', "c.jsonl:1: field 'title' is int, expected a text"),
        ('{"text": null}\n', "c.jsonl:1: field 'text' is missing or null"),
        ("", "c.jsonl: no texts in it"),
    ],
)
def test_a_bad_corpus_is_named(tmp_path, capsys, content, message):
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(SystemExit) as ended:
        main(["search", "none", "red", f"--corpus={tmp_path / 'c.jsonl'}"])
    assert ended.value.code == 65
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
