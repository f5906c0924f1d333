"""`embed index` and `embed search INDEX` as a user runs them: made, killed, added to, searched; options that do not go together."""

import json
import shutil
import signal

import pytest

from embed.commands.main import main

WORDS = ["red", "green", "river", "stone", "engine", "paper", "winter", "quick"]


@pytest.fixture
def folder(trained, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(trained, folder)
    texts = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in WORDS]
    for name, part in (("many", texts[:400]), ("more", texts[400:])):
        rows = [{"id": f"{name}-{i}", "text": text} for i, text in enumerate(part)]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.mark.slow
def test_an_index_is_made_grows_and_answers(folder, run_embed):
    def run(*words, **environment):
        done = run_embed(folder, *words, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    make = ("index", "model", "--corpus=many.jsonl", "--output=index")
    killed = run_embed(folder, *make, EMBED_FAIL_AT="encode.before_commit_0")
    assert killed.returncode == -signal.SIGKILL
    refused = run_embed(folder, "search", "index", "red river")
    assert refused.returncode == 65 and "index: is not finished; run the command that makes it again" in refused.stderr
    assert "index: 400 documents" in run(*make)
    assert "512 documents" in run("index", "index", "--add=more.jsonl")
    (folder / "ids.txt").write_text("many-1\nmore-2\n")
    assert "510 documents" in run("index", "index", "--remove_file=ids.txt")
    assert "510 documents" in run("index", "index", "--approximate", "--connectivity=8")
    near = run("search", "index", "red river stone", "--top=3")
    exact = run("search", "index", "red river stone", "--top=3", "--exact")
    assert near == exact and near.count("\n") == 5 and "  1. " in near
    assert "510 documents" in run("index", "index")
    assert "510 documents" in run("index", "index", "--compact")
    assert run("search", "index", "red river stone", "--top=3") == exact
    # Damage between two searches is found.
    path = folder / "index" / "segment-00002" / "part-00000.npy"
    content = bytearray(path.read_bytes())
    content[-3] ^= 4
    path.write_bytes(content)
    refused = run_embed(folder, "search", "index", "red river")
    assert refused.returncode == 65 and "part-00000.npy is damaged: its sha256 differs" in refused.stderr


@pytest.mark.parametrize(
    "words, message",
    [
        (["index", "m", "--corpus=c"], "--corpus needs --output, the folder of the index"),
        (["index", "m", "--export=parquet"], "--export needs --output, the file or folder to write"),
        (["index", "m", "--output=o"], "--output goes with --corpus or --export; leave it out"),
        (["index", "m", "--add=c", "--dims=8"], "--dims goes with --corpus; leave it out"),
        (["index", "m", "--remove", "a", "--replace"], "--replace goes with --add; leave it out"),
        (["index", "m", "--connectivity=8"], "--connectivity goes with --approximate; leave it out"),
        (["index", "m", "--model=x"], "--model goes with --add or --queries; leave it out"),
        (["index", "m", "--add=c", "--remove", "a"], "not allowed with argument"),
        (["search", "m", "q", "--dims=8"], "--dims goes with --corpus, as the index decides it; leave it out"),
        (["search", "m", "q", "--corpus=c", "--exact"], "--exact goes with an index; leave it out"),
        (["search", "m", "q", "--corpus=c", "--model=x"], "--model goes with an index; leave it out"),
    ],
)
def test_options_that_do_not_go_together(capsys, words, message):
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 64 and message in error and error.count("\n") == 1


@pytest.mark.parametrize("words", [["index", "."], ["search", ".", "q"], ["index", ".", "--remove", "a"]])
def test_a_folder_without_an_index(capsys, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(words)
    error = capsys.readouterr().err
    assert ended.value.code == 65 and ".: holds no index; run: embed index" in error and error.count("\n") == 1
