"""Bad input at the command line: one line, the right exit code, nothing half-written."""

import gzip
import json
import pathlib
import random
import shutil

import pytest

from embed.commands.main import main

GOOD = {"question": "how are you", "answer": "fine thank you"}


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """Runs `embed` in this process; returns (exit code, stdout, stderr)."""
    with pytest.raises(SystemExit) as e:
        main(list(arguments))
    out = capsys.readouterr()
    return e.value.code, out.out, out.err


def one_line(text: str) -> str:
    assert text.count("\n") == 1 and text.startswith("embed: "), text
    assert "Traceback" not in text
    return text


@pytest.fixture
def here(work, monkeypatch) -> pathlib.Path:
    monkeypatch.chdir(work)
    return work


ON_EIGHT = ("--gin.sharding.MeshShape.data=8",)
TRAIN = ("train", "--gin_file=tiny.gin", "--run_dir=run", "--gin.TRAIN_STEPS=2", *ON_EIGHT)

BAD_LINES = {
    "malformed": (b'{"question": "a", "answer"\n', "not valid JSON"),
    "missing": (b'{"question": "a", "anwser": "b"}\n', "no field 'answer'"),
    "bytes": (b'{"question": "a\xff", "answer": "b"}\n', "not valid UTF-8 at byte 15"),
    "empty": (b'{"question": "a", "answer": ""}\n', "'answer' is empty"),
    "blank": (b'{"question": " \\t ", "answer": "b"}\n', "'question' is empty"),
    "number": (b'{"question": 3, "answer": "b"}\n', "expected a text"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD_LINES)
def test_a_bad_record_names_file_and_line(kind, here, capsys):
    line, message = BAD_LINES[kind]
    good = (json.dumps(GOOD) + "\n").encode()
    (here / "second.jsonl").write_bytes(good * 4 + line + good)
    before = sorted(p.name for p in (here / "data").iterdir())
    code, _, err = call(capsys, "prepare", "--gin_file=tiny.gin")
    assert code == 65
    assert "second.jsonl:5" in one_line(err) and message in err
    assert sorted(p.name for p in (here / "data").iterdir() if p.name != ".lock") == [b for b in before if b != ".lock"]


@pytest.mark.slow
def test_a_cut_gzip_file(here, capsys):
    whole = gzip.compress("".join(json.dumps({**GOOD, "question": f"q {i}"}) + "\n" for i in range(500)).encode())
    (here / "second.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    path = "--gin.second/sources.JsonLines.path=second.jsonl.gz"
    code, _, err = call(capsys, "prepare", "--gin_file=tiny.gin", path)
    assert code == 65 and "second.jsonl.gz:" in one_line(err) and "cut or damaged" in err


@pytest.mark.long
@pytest.mark.slow
def test_a_text_of_ten_megabytes_is_truncated_and_counted(here, capsys):
    rows = [GOOD, {"question": "long", "answer": "word " * 2_000_000}, GOOD]
    (here / "second.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    code, out, _ = call(capsys, "prepare", "--gin_file=tiny.gin", "--gin.text_features.Lengths.target=100")
    assert code == 0 and "task 'second': 3 examples" in out
    assert "33.3% of target texts truncated" in out


@pytest.mark.slow
def test_an_empty_file(here, capsys):
    (here / "second.jsonl").write_text("")
    code, _, err = call(capsys, "prepare", "--gin_file=tiny.gin")
    assert code == 65 and "gave no examples" in one_line(err)


def test_an_empty_mixture(here, capsys):
    text = (here / "tiny.gin").read_text().replace("[@first/tasks.Task(), @second/tasks.Task()]", "[]")
    kept = [
        x
        for x in text.splitlines()
        if not x.startswith(("first/", "second/", "tasks.Mixture.rates", "from embed import sources"))
    ]
    (here / "tiny.gin").write_text("\n".join(kept) + "\n")
    code, _, err = call(capsys, "prepare", "--gin_file=tiny.gin")
    assert code == 78 and "has no tasks" in one_line(err)


def test_a_batch_the_mesh_does_not_divide(here, capsys):
    code, _, err = call(capsys, *TRAIN, "--gin.BATCH_SIZE=20")
    assert code == 78 and "nearest legal sizes: 16 and 24" in one_line(err)
    assert not (here / "run" / "checkpoints").exists()


def test_a_mesh_the_devices_do_not_fit(here, capsys):
    code, _, err = call(capsys, *TRAIN[:-1], "--gin.sharding.MeshShape.data=3")
    assert code == 78 and "does not fit 8 devices" in one_line(err) and "(8, 1, 1)" in err


@pytest.mark.slow
def test_negatives_asked_for_but_not_there(here, capsys):
    rows = [GOOD, {"question": "b", "answer": "c"}]
    for name in ("first", "second"):
        (here / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    code, _, err = call(capsys, *TRAIN)
    assert code == 65 and "first.jsonl:2: no record up to here, the last, has the field 'wrong'" in one_line(err)
    optional = "--gin.first/sources.JsonLines.optional=('negatives',)"
    code, _, err = call(capsys, *TRAIN, optional)
    assert code == 78 and "no task of mixture 'made_up' has negatives" in one_line(err)


def test_a_vocabulary_larger_than_the_table(here, capsys):
    code, _, err = call(capsys, *TRAIN, "--gin.gemma.Gemma.vocab_size=100")
    assert code == 78 and "vocab_size = 100" in one_line(err)


@pytest.mark.long
@pytest.mark.slow
def test_the_wrong_vocabulary_for_a_checkpoint(here, capsys):
    assert call(capsys, *TRAIN)[0] == 0
    from embed.data.tokenizers import train_sentencepiece

    choose = random.Random(1)
    texts = (" ".join("".join(choose.choices("abcdefgh", k=5)) for _ in range(8)) for _ in range(300))
    (here / "other.model").write_bytes(train_sentencepiece(texts, 300))
    other = "--gin.tokenizers.SentencePiece.path=other.model"
    code, _, err = call(capsys, *TRAIN, other)
    assert code == 65 and "the run began with vocabulary" in one_line(err)
    started = [a.replace("run_dir=run", "run_dir=new") for a in TRAIN]
    code, _, err = call(capsys, *started, other, "--gin.recipe.Recipe.init_from=run")
    assert code == 65 and "another vocabulary" in one_line(err)


@pytest.mark.long
@pytest.mark.slow
def test_training_may_start_from_a_checkpoint(here, capsys):
    assert call(capsys, *TRAIN)[0] == 0
    started = [a.replace("run_dir=run", "run_dir=new") for a in TRAIN]
    code, out, err = call(capsys, *started, "--gin.recipe.Recipe.init_from=run")
    assert code == 0, err
    lineage = json.loads((here / "new/checkpoints/2/model.json").read_text())["lineage"]
    from embed.files import folder_digest

    assert lineage["initial"] == folder_digest(here / "run/checkpoints/2")


def test_a_flipped_byte_in_a_model(trained, tmp_path, monkeypatch, capsys):
    here = shutil.copytree(trained, tmp_path / "work")
    monkeypatch.chdir(here)
    victim = max((here / "run/checkpoints/2/params/d").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(victim.read_bytes())
    data[100] ^= 4
    victim.write_bytes(data)
    (here / "corpus.jsonl").write_text('{"text": "a text"}\n')
    for command in (("search", "run", "query", "--corpus=corpus.jsonl"), ("average", "run", "--output=soup")):
        code, _, err = call(capsys, *command)
        assert code == 65 and "sha256 differs" in one_line(err)
    assert not (here / "soup").exists()


def test_an_existing_output_is_not_overwritten(here, capsys):
    (here / "soup").mkdir()
    (here / "soup" / "mine").write_text("keep")
    code, _, err = call(capsys, "average", "run", "--output=soup")
    assert code == 74 and "already exists" in one_line(err)
    assert (here / "soup" / "mine").read_text() == "keep"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trian",), "did you mean 'train'"),
        (("train", "--gin_file=tiny.gin"), "--run_dir"),
        (("search", "run", "x", "--corpus=c", "--gin.A=1"), "takes no gin bindings"),
        (("evaluate", "run", "--suite=s", "--output=o", "--baselines=bm52"), "did you mean 'bm25'"),
        (("average", "run", "run", "--output=o", "--weights=1,x"), "not numbers"),
    ],
)
def test_usage_errors(arguments, message, here, capsys):
    code, _, err = call(capsys, *arguments)
    assert code == 64 and message in one_line(err)


@pytest.mark.parametrize("model", ["nowhere", "."])
def test_a_model_that_is_none(model, here, capsys):
    (here / "corpus.jsonl").write_text('{"text": "a"}\n')
    code, _, err = call(capsys, "search", model, "x", "--corpus=corpus.jsonl")
    assert code == 65 and "not a run folder, checkpoint step or bundle" in one_line(err)


def test_debug_adds_the_traceback(here, capsys):
    code, _, err = call(capsys, "search", "nowhere", "x", "--corpus=none.jsonl", "--debug")
    assert code == 65 and "Traceback" in err


@pytest.mark.slow
def test_nan_loss_stops_and_saves_nothing_bad(here, capsys):
    wild = ("--gin.LEARNING_RATE=1e30", "--gin.optimizers.adamw.max_grad_norm=None", "--gin.loop.Schedule.log_every=1")
    code, _, err = call(capsys, *TRAIN[:3], "--gin.TRAIN_STEPS=12", *ON_EIGHT, *wild)
    assert code == 70 and "not finite" in one_line(err)
    from embed import arrays, checkpoints, files

    for step in files.committed_steps(here / "run/checkpoints"):
        checkpoints.check_finite(arrays.load_numpy(here / "run/checkpoints" / str(step)), "saved")
