"""`embed curate` as a user runs it: queries, texts, filtered and picked pairs; killed and run again without asking twice."""

import contextlib
import dataclasses
import gzip
import io
import json
import os
import random
import re
import signal

import pytest
from language_model import Server, answer, broken, mute, number, send, texts_of
from PIL import Image

from embed.commands.main import main
from embed.documents import read_json
from embed.sources import ImageFiles, JsonLines

WORDS = ["red", "green", "river", "stone", "engine", "paper", "winter", "quick", "cloud", "small"]


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def folder(tmp_path):
    """A folder with passages and pairs."""
    passages = [" ".join(WORDS[number(i, k) % 10] for k in range(8)) + f" {i}" for i in range(40)]
    rows = [{"id": f"p{i}", "text": text} for i, text in enumerate(passages)]
    pairs = [
        {
            "query": passages[i],
            "positive": f"{passages[i].split()[0]} yes" if i % 4 else "another subject",
            "negative": [f"no {n}" for n in range(4)] + [f"{passages[i].split()[1]} true"],
            "lang": "en",
        }
        for i in range(20)
    ]
    for name, own in (("passages", rows), ("pairs", pairs)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in own))
    return tmp_path


@pytest.fixture
def curate(server, folder, run_embed):
    """curate(what, output, ...) runs the command against the server."""

    def run(what, output, *more, **environment):
        given = [f"--endpoint={server.url}", "--model=tiny", f"--output={output}", "--first_wait=0.01", *more]
        return run_embed(folder, "curate", what, *given, **{"EMBED_API_KEY": "secret", **environment})

    return run


@dataclasses.dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def curate_here(server, folder, monkeypatch):
    """The same in this process, which is faster."""

    def run(what, output, *more, **environment):
        given = [f"--endpoint={server.url}", "--model=tiny", f"--output={output}", "--first_wait=0.01", *more]
        monkeypatch.chdir(folder)
        for name, value in {"EMBED_API_KEY": "secret", **environment}.items():
            monkeypatch.setenv(name, value)
        with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.redirect_stdout(io.StringIO()) as output:
            with pytest.raises(SystemExit) as caught:
                main(["curate", what, *given])
        return Done(caught.value.code, output.getvalue(), errors.getvalue())

    return run


def rows_of(folder):
    with gzip.open(folder / "rows.jsonl.gz", "rt", encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def test_captions_of_images(curate_here, folder, server):
    (folder / "png").mkdir()
    rows = []
    for i in range(6):
        Image.new("RGB", (40 + i, 30), (40 * i, 0, 0)).save(folder / "png" / f"{i}.png")
        rows.append({"image": f"png/{i}.png", "id": i, **({"caption": f"alt {i}"} if i % 2 else {})})
    (folder / "png" / "5.png").write_bytes(b"no image")
    (folder / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = curate_here("captions", "out", "--input=images.jsonl")
    assert done.returncode == 0, done.stderr
    assert "left out   1: an image that cannot be read, the first: png/5.png: no image that Pillow reads" in done.stdout
    written = rows_of(folder / "out")
    assert [row["id"] for row in written] == [0, 1, 2, 3, 4] and written[0]["image"] == "../png/0.png"
    assert written[1]["synthetic_caption"].endswith("found with: alt 1") and written[0]["synthetic_caption"].endswith(
        ": none"
    )
    asked = server.received
    assert curate_here("captions", "out", "--input=images.jsonl").returncode == 0 and server.received == asked
    records = list(ImageFiles(JsonLines(str(folder / "out" / "rows.jsonl.gz"), {"image": "image"})).examples())
    assert len(records) == 5 and records[0][1]["image"] == (folder / "png" / "0.png").read_bytes()


def test_images_that_are_not_there_and_options_of_other_work_are_refused(curate_here, folder):
    (folder / "images.jsonl").write_text('{"image": "png/none.png"}\n')
    done = curate_here("captions", "out", "--input=images.jsonl")
    assert (
        done.returncode == 65
        and "images.jsonl:1: png/none.png: no such file; paths start at the folder of" in done.stderr
    )
    done = curate_here("captions", "out", "--input=images.jsonl", "--image_field=picture")
    assert done.returncode == 65 and "field 'picture' is NoneType, expected the path of an image" in done.stderr
    done = curate_here("queries", "out", "--input=passages.jsonl", "--image_field=picture")
    assert done.returncode == 64 and "--image_field goes with captions, not with queries" in done.stderr


@pytest.mark.slow
def test_queries_for_passages(curate, folder, server):
    done = curate("queries", "out", "--input=passages.jsonl", "--price=1,2")
    assert done.returncode == 0, done.stderr
    rows = rows_of(folder / "out")
    assert 15 < len(rows) < 40
    passages = {
        r["text"]: i for i, r in enumerate(map(json.loads, (folder / "passages.jsonl").read_text().splitlines()))
    }
    assert [passages[r["positive"]] for r in rows] == sorted(passages[r["positive"]] for r in rows)
    for row in rows:
        assert row["rating"] >= 4 and row["query"].startswith("about ")
        assert row["made"]["from"] == f"passages.jsonl:{passages[row['positive']] + 1}"
        assert row["made"]["model"] == "tiny" and set(row["made"]["prompts"]) == {"query", "rate_query"}
    summary = read_json(folder / "out" / "summary.json")
    assert summary["rejected"] == {"rated 2, below 4": 40 - len(rows)} and summary["complete"]
    assert summary["requests"] == server.received == 80
    assert "about 80 requests for 40 passages" in done.stdout and "at your price" in done.stdout
    assert f"left out   {40 - len(rows)}: rated 2, below 4" in done.stdout
    assert not any(word == "secret" for text in (done.stdout, done.stderr) for word in text.split())
    assert not [p for p in (folder / "out").iterdir() if b"Bearer" in p.read_bytes()]


@pytest.mark.slow
def test_training_reads_the_queries(curate, folder):
    from embed.sources.record_files import JsonLines

    assert curate("queries", "out", "--input=passages.jsonl", "--sample=10").returncode == 0
    source = JsonLines(str(folder / "out" / "rows.jsonl.gz"), {"query": "query", "target": "positive"})
    assert 0 < len(list(source.examples())) <= 10


def test_texts_of_labels_from_the_tails_of_lists(curate, folder):
    from embed.sources.labelled_texts import LabelledTexts

    given = ["--labels=good,bad,neither", "--kind=product reviews", "--count=30"]
    done = curate("texts", "out", *given)
    assert done.returncode == 0, done.stderr
    rows = rows_of(folder / "out")
    assert [r["label"] for r in rows] == ["good", "bad", "neither"] * 10
    used = {int(r["made"]["from"].split()[1]) for r in rows}
    assert min(used) >= 20 and len(used) > 5  # of 40 that were listed the last 20
    assert len({r["text"] for r in rows}) == 30
    assert len(list(LabelledTexts(str(folder / "out" / "rows.jsonl.gz")).examples())) == 30


def test_pairs_that_do_not_answer_and_negatives_that_do_are_dropped(curate, folder):
    done = curate("filter", "out", "--input=pairs.jsonl")
    assert done.returncode == 0, done.stderr
    rows = rows_of(folder / "out")
    kept = {r["query"] for r in rows}
    for i, pair in enumerate(map(json.loads, (folder / "pairs.jsonl").read_text().splitlines())):
        if i % 4:
            assert pair["query"] in kept  # a word in common: grade 3
    for row in rows:
        assert row["lang"] == "en" and row["judged"]["target"] >= 2
        assert not any(n.endswith("true") for n in row["negative"])
        grades = row["judged"]["negatives"]
        assert len(row["negative"]) == sum(g < 2 for g in grades) and len(grades) == 5


def test_the_lowest_of_the_neighbours_are_picked(curate, folder):
    done = curate("pick", "out", "--input=pairs.jsonl", "--keep=2")
    assert done.returncode == 0, done.stderr
    for row in rows_of(folder / "out"):
        assert 1 <= len(row["negative"]) <= 2 and row["judged"]["of"] == 5
        assert row["judged"]["negatives"] == sorted(row["judged"]["negatives"]) and max(row["judged"]["negatives"]) < 2


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_killed_run_asks_nothing_twice(curate, folder, server, concurrency):
    given = ["--input=passages.jsonl", f"--concurrency={concurrency}"]
    assert curate("queries", "whole", *given).returncode == 0
    server.answered.clear()
    (folder / "killed").mkdir()
    (folder / "killed" / "salt").write_bytes((folder / "whole" / "salt").read_bytes())
    done = curate("queries", "killed", *given, EMBED_FAIL_AT="curate.after_reply_31")
    assert done.returncode == -signal.SIGKILL
    assert not (folder / "killed" / "rows.jsonl.gz").exists()
    kept = [json.loads(line) for line in (folder / "killed" / "replies.jsonl").read_text().splitlines()]
    assert sum("reply" in row for row in kept) == 31 and sum("sent" in row for row in kept) < 31 + concurrency
    done = curate("queries", "killed", *given)
    assert done.returncode == 0, done.stderr
    assert "31 replies are here already and are not asked for again" in done.stdout
    # What was under way when the kill came is all that can be asked for twice, and bears the same key both times.
    twice = sum(n - 1 for n in server.answered.values())
    assert twice == 0 if concurrency == 1 else twice < concurrency
    assert len(server.answered) == 80
    assert (folder / "killed" / "rows.jsonl.gz").read_bytes() == (folder / "whole" / "rows.jsonl.gz").read_bytes()
    before = server.received
    done = curate("queries", "killed", *given)
    assert done.returncode == 0 and "asked 0 times, 80 replies were here" in done.stdout
    assert server.received == before


@pytest.mark.slow
def test_a_budget_ends_the_run_and_a_higher_one_goes_on(curate, folder, server):
    given = ["--input=passages.jsonl"]
    done = curate("queries", "out", *given, "--max_requests=33")
    assert done.returncode == 75
    assert "the budget of 33 requests is spent" in done.stderr and "run the same command" in done.stderr
    assert server.received == 33
    assert not read_json(folder / "out" / "summary.json")["complete"]
    assert 0 < len(rows_of(folder / "out")) < 20
    done = curate("queries", "out", *given, "--max_requests=80")
    assert done.returncode == 0, done.stderr
    assert server.received == 80 and set(server.answered.values()) == {1}
    assert read_json(folder / "out" / "summary.json")["complete"]


def test_prompts_can_be_edited(curate, folder, server, run_embed):
    assert run_embed(folder, "curate", "prompts", "--output=mine").returncode == 0
    path = folder / "mine" / "query.txt"
    path.write_text(path.read_text().replace("--- user\n", "--- user\nWrite like a pirate.\n"))
    done = curate("queries", "out", "--input=passages.jsonl", "--sample=3", "--prompts=mine")
    assert done.returncode == 0, done.stderr
    assert any("pirate" in b["messages"][1]["content"] for b in server.bodies)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--- user\n$passage", "needs a line '--- system'"),
        ("--- system\nx\n--- user\n$passage\n--- user\n$passage", "each once"),
        ("Write.\n--- system\nx\n--- user\n$passage", "has text before its first part"),
        ("--- system\nx\n--- user\nno name", r"query.txt: lacks \$passage"),
        ("--- system\nx\n--- user\n$passage $passages", r"nothing is called \$passages; did you mean 'passage'"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_named(curate_here, folder, text, message):
    (folder / "mine").mkdir()
    (folder / "mine" / "query.txt").write_text(text)
    done = curate_here("queries", "out", "--input=passages.jsonl", "--prompts=mine")
    assert done.returncode == 65 and re.search(message, done.stderr), done.stderr


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (["queries"], 64, "curate queries needs --input"),
        (["querys", "--input=passages.jsonl"], 64, "did you mean 'queries'"),
        (["texts", "--labels=one", "--kind=reviews"], 64, "two at least"),
        (["queries", "--input=passages.jsonl", "--price=1"], 64, "--price takes two numbers"),
        (["queries", "--input=none.jsonl"], 65, "none.jsonl: no such file"),
        (["queries", "--input=passages.jsonl", "--prompts=nowhere"], 65, "embed curate prompts --output=nowhere"),
        (["filter", "--input=passages.jsonl"], 65, "passages.jsonl:1: no field 'query'"),
        (["queries", "--input=passages.jsonl", "--model=huge"], 69, "has no model 'huge'"),
        (
            ["queries", "--input=passages.jsonl", "--endpoint=http://127.0.0.1:9/v1", "--attempts=2"],
            69,
            "gave no reply in 2 tries",
        ),
        (["queries", "--input=passages.jsonl", "--least=6"], 64, "--least: 6: expected an integer <= 5"),
        (["filter", "--input=pairs.jsonl", "--least=4"], 64, "the scale goes from 0 to 3"),
        (["pick", "--input=pairs.jsonl", "--sample=3"], 64, "--sample goes with queries and captions, not with pick"),
        (["queries", "--input=passages.jsonl", "--sample=-1"], 64, "--sample: -1: expected an integer >= 1"),
        (["queries", "--input=passages.jsonl", "--endpoint=http://127.0.0.1:port/v1"], 64, "not a base URL"),
        (["queries", "--input=passages.jsonl", "--endpoint=localhost"], 64, "not a base URL"),
        (["queries", "--input=passages.jsonl", "--endpoint=http://a:sk@host/v1"], 64, "without user, password"),
        (["queries", "--input=passages.jsonl", "--sample=41"], 64, "has 40 passages; leave out --sample"),
        (["queries", "--input=passages.jsonl", "--price=nan,1"], 64, "--price takes two numbers"),
        (["queries", "--input=passages.jsonl", "--price=-1,1"], 64, "--price takes two numbers"),
        (["queries", "--input=passages.jsonl", "--seed=-1"], 64, "--seed: -1: expected an integer >= 0"),
        (
            ["queries", "--input=passages.jsonl", "--concurrency=9999999"],
            64,
            "--concurrency: 9999999: expected an integer <= 1024",
        ),
        (
            ["queries", "--input=passages.jsonl", "--deadline=inf"],
            64,
            "--deadline: inf: expected a finite number",
        ),
        (["queries", "--input=passages.jsonl", "--first_wait=nan"], 64, "--first_wait: nan: expected a finite number"),
        (["queries", "--input=passages.jsonl", "--model=a\x1b[2J"], 64, "--model: holds control characters"),
        (["queries", "--input=passages.jsonl", "--output="], 64, "--output: an empty path"),
        (["queries", "--input=blank.jsonl"], 65, "blank.jsonl: holds no record"),
        (["filter", "--input=pairs.jsonl", "--query_field=positive"], 64, "name three fields"),
        (["texts", "--labels=a,b,a", "--kind=reviews"], 64, "names 'a' twice"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(curate_here, folder, given, code, message):
    (folder / "blank.jsonl").write_text("")
    done = curate_here(given[0], "out", *given[1:])
    assert done.returncode == code, done.stderr
    assert re.search(message, done.stderr), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (folder / "out" / "rows.jsonl.gz").exists()
    assert code == 69 or not (folder / "out").exists()


def test_a_wrong_key_is_told_without_the_key(curate, folder):
    done = curate("queries", "out", "--input=passages.jsonl", EMBED_API_KEY="not-the-key-at-all")
    assert done.returncode == 69 and "refuses the key" in done.stderr and "EMBED_API_KEY" in done.stderr
    assert "not-the-key" not in done.stderr + done.stdout


@pytest.mark.parametrize("key", ["secret\n", "  secret"])
def test_white_space_around_a_key_is_no_part_of_it(curate, folder, key):
    done = curate("queries", "out", "--input=passages.jsonl", "--sample=2", EMBED_API_KEY=key)
    assert done.returncode == 0, done.stderr


def test_a_key_that_cannot_be_one_is_told_without_it(curate, folder):
    done = curate("queries", "out", "--input=passages.jsonl", EMBED_API_KEY="sk-very\nsecret")
    assert done.returncode == 64 and "EMBED_API_KEY" in done.stderr and "very" not in done.stderr + done.stdout


def test_a_key_is_not_taken_for_the_name_of_its_variable(curate, folder):
    for name, message in [("sk-123-456", "not the key itself"), ("sk_123_456", "no environment variable of that name")]:
        done = curate("queries", "out", "--input=passages.jsonl", f"--key_variable={name}", "--debug")
        assert done.returncode == 64 and message in done.stderr
        assert name not in done.stderr + done.stdout
    assert not (folder / "out").exists()


def test_a_request_counts_when_a_kill_comes_between_it_and_its_reply(curate, folder, server):
    """The server kills the client before it answers; another client kills itself when a request is counted and not sent."""
    given = ["--input=passages.jsonl", "--concurrency=4", "--max_requests=10"]

    def kill(handler, body):
        pid = int((folder / "out" / ".lock").read_text().split()[1])
        os.kill(pid, signal.SIGKILL)
        return True

    server.faults = [lambda handler, body: False] * 5 + [kill]
    assert curate("queries", "out", *given).returncode == -signal.SIGKILL
    first = server.received
    assert 6 <= first <= 9
    sent = [json.loads(line) for line in (folder / "out" / "replies.jsonl").read_text().splitlines()]
    assert sum("sent" in row for row in sent) >= first
    number = sum("sent" in row for row in sent) + 1
    done = curate("queries", "out", *given, EMBED_FAIL_AT=f"curate.after_request_{number}")
    assert done.returncode == -signal.SIGKILL
    assert "requests were under way when a run was killed; they count as sent" in done.stdout
    done = curate("queries", "out", *given)
    assert done.returncode == 75 and "the budget of 10 requests is spent" in done.stderr
    assert server.received <= 9  # the one that was counted and not sent is the tenth
    summary = read_json(folder / "out" / "summary.json")
    assert summary["requests"] == 10 and summary["requests_interrupted"] >= 2 and summary["tokens_interrupted"] > 1000


@pytest.mark.slow
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_budget_that_failures_spend_is_the_endpoints_fault(curate_here, folder, server, concurrency):
    server.faults = [broken] * 1000
    given = [
        "--input=passages.jsonl",
        f"--concurrency={concurrency}",
        "--max_requests=10",
        "--attempts=64",
        "--first_wait=1e-4",
    ]
    for _ in range(2):
        done = curate_here("queries", "out", *given)
        assert done.returncode == 69 and len(done.stderr.strip().splitlines()) == 1
        assert "failed 10 of 10 requests, the last 10 in a row (status 500" in done.stderr and "oops" in done.stderr
        assert server.received == 10
    server.faults = []
    done = curate_here("queries", "out", *given[:2], "--max_requests=90")
    assert done.returncode == 0 and "failed     10 of 90 requests" in done.stdout
    assert server.received == 90


def test_now_and_then_a_failure_is_not_the_endpoints_fault(curate_here, folder, server):
    server.faults = [broken, lambda handler, body: False] * 20
    done = curate_here("queries", "out", "--input=passages.jsonl", "--concurrency=1", "--max_requests=10")
    assert done.returncode == 75
    assert "the budget of 10 requests is spent (5 requests failed, the last: status 500" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500])
def test_the_key_and_control_characters_are_found_nowhere(curate_here, folder, server, status):
    """Also not in the traceback of --debug: the errors of the HTTP library hold the headers."""
    key = "sk-/very+secret="
    server.key = key
    echo = {"error": f"bad {key} \x1b[31m", "choices": [{"message": {"content": f"it is {key} \x1b[31m"}}]}
    server.faults = [lambda handler, body: send(handler, status, echo) or True] * 99
    given = ["--input=passages.jsonl", "--debug", "--attempts=2", "--max_requests=60"]
    done = curate_here("queries", "out", *given, EMBED_API_KEY=key)
    assert done.returncode in (65, 69)
    kept = [path.read_bytes() for path in (folder / "out").iterdir()]
    texts = [done.stdout, done.stderr, *(data.decode(errors="replace") for data in kept)]
    assert not any(key in text or "very" in text for text in texts)
    assert "\x1b" not in done.stdout + done.stderr
    assert "Traceback" in done.stderr and "httpcore" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["replies.jsonl", "salt", "job.json", "rows.jsonl.gz", "summary.json"])
def test_every_damage_to_the_output_is_told_and_nothing_is_asked_anew(curate_here, folder, server, name):
    """Bytes are flipped, cut and removed in this process: what stands on the disk is the same for every run."""
    assert curate_here("queries", "out", "--input=passages.jsonl", "--sample=4").returncode == 0
    asked, path = server.received, folder / "out" / name
    whole, choose = path.read_bytes(), random.Random(name)
    rows = (folder / "out" / "rows.jsonl.gz").read_bytes()
    trials = [("cut", choose.randrange(len(whole))) for _ in range(5)] + [("gone", 0)]
    trials += [("flip", choose.randrange(len(whole))) for _ in range(20)] + [("flip", len(whole) - 1)]
    for kind, position in trials:
        path.write_bytes(whole)
        if kind == "gone":
            path.unlink()
        elif kind == "cut":
            path.write_bytes(whole[:position])
        else:
            path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        before = sorted(p.name for p in (folder / "out").iterdir())
        done = curate_here("queries", "out", "--input=passages.jsonl", "--sample=4")
        assert server.received == asked, (kind, position)
        if done.returncode == 0:
            assert (folder / "out" / "rows.jsonl.gz").read_bytes() == rows
        else:
            assert done.returncode == 65 and len(done.stderr.splitlines()) == 1, (kind, position, done.stderr)
            assert sorted(p.name for p in (folder / "out").iterdir()) == before


def test_rows_that_somebody_changed_are_not_written_over(curate_here, folder):
    given = ["--input=passages.jsonl", "--sample=6"]
    assert curate_here("queries", "out", *given, "--max_requests=6").returncode == 75
    path = folder / "out" / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"query": "my own", "positive": "row"}\n'))
    done = curate_here("queries", "out", *given)
    assert done.returncode == 65 and "rows.jsonl.gz: was changed since it was written; move it away" in done.stderr
    path.rename(folder / "mine.gz")
    assert curate_here("queries", "out", *given).returncode == 0


def test_the_output_of_an_earlier_version_is_gone_on_with(curate_here, folder, server):
    given = ["--input=passages.jsonl", "--sample=6"]
    assert curate_here("queries", "out", *given).returncode == 0
    rows, asked = rows_of(folder / "out"), server.received
    path = folder / "out" / "replies.jsonl"
    old = []
    for row in map(json.loads, path.read_text().splitlines()):
        if "reply" in row:
            old.append({"key": row["key"], "reply": {n: row["reply"][n] for n in ("text", "tokens_in", "tokens_out")}})
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    summary = read_json(folder / "out" / "summary.json")
    kept = ("what", "complete", "rows", "rejected", "model", "requests", "tokens_in", "tokens_out")
    (folder / "out" / "summary.json").write_text(json.dumps({name: summary[name] for name in kept}))
    done = curate_here("queries", "out", *given)
    assert done.returncode == 0 and "12 replies are here already" in done.stdout
    assert rows_of(folder / "out") == rows and server.received == asked


def test_a_refused_command_writes_nothing(curate_here, folder):
    (folder / "empty").mkdir()
    for more in (
        ["--input=none.jsonl"],
        ["--input=passages.jsonl", "--prompts=empty"],
        ["--input=passages.jsonl", "--price=x"],
    ):
        assert curate_here("queries", "out", *more).returncode in (64, 65)
        assert not (folder / "out").exists()


def test_another_job_needs_another_folder(curate, folder, server):
    assert curate("queries", "out", "--input=passages.jsonl").returncode == 0
    before = (folder / "out" / "rows.jsonl.gz").read_bytes()
    done = curate("queries", "out", "--input=passages.jsonl", "--seed=1", "--max_requests=90")
    assert done.returncode == 65 and "was begun with another seed" in done.stderr
    assert (folder / "out" / "rows.jsonl.gz").read_bytes() == before
    done = curate("filter", "out", "--input=out/rows.jsonl.gz")
    assert done.returncode == 64 and "would be written over" in done.stderr


def test_one_passage_that_the_server_refuses_does_not_end_the_job(curate, folder, server):
    def too_long(handler, body):
        long = "p7-mark" in body["messages"][1]["content"]
        if long:
            send(handler, 400, {"error": {"message": "maximum context length"}})
        return long

    rows = [json.loads(line) for line in (folder / "passages.jsonl").read_text().splitlines()]
    rows[7]["text"] += " p7-mark"
    (folder / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    server.faults = [too_long] * 200
    done = curate("queries", "out", "--input=passages.jsonl", "--concurrency=1")
    assert done.returncode == 0, done.stderr
    rejected = read_json(folder / "out" / "summary.json")["rejected"]
    assert rejected["query: refused by the server, status 400"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("odd", ["half an emoji \ud83d", None])
def test_replies_that_no_file_can_hold_are_left_out(folder, run_embed, odd):
    def reply(body):
        if "passage 3" in body["messages"][1]["content"]:
            return {"task": "search result", "query": odd} if odd else ""
        return answer(body)

    rows = [{"text": f"passage {i} on rivers"} for i in range(6)]
    (folder / "passages.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    strange = Server(reply)
    given = [f"--endpoint={strange.url}", "--model=tiny", "--input=passages.jsonl", "--output=out"]
    for _ in range(2):
        done = run_embed(folder, "curate", "queries", *given, EMBED_API_KEY="secret")
        assert done.returncode == 0, done.stderr
    rejected = read_json(folder / "out" / "summary.json")["rejected"]
    assert rejected["query: not UTF-8" if odd else "query: not JSON"] == 1
    strange.close()


def test_replies_of_no_use_count_against_the_budget(curate, folder, server):
    from language_model import not_json

    server.faults = [not_json] * 5
    done = curate("queries", "out", "--input=passages.jsonl", "--max_requests=20", "--concurrency=1")
    assert done.returncode == 75
    assert server.received == 20
    assert read_json(folder / "out" / "summary.json")["requests"] == 20


def test_titles_of_passages_come_along(curate, folder, server):
    rows = [{"text": "it rises in the alps", "title": "Rhine"}, {"text": "no title here"}]
    (folder / "titled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = curate("queries", "out", "--input=titled.jsonl", "--least=1")
    assert done.returncode == 0, done.stderr
    found = rows_of(folder / "out")
    assert found[0]["title"] == "Rhine" and found[0]["positive"] == "it rises in the alps" and "title" not in found[1]
    assert any("Rhine" in b["messages"][1]["content"] for b in server.bodies)


def test_picking_goes_by_grade_and_cosine_and_keeps_what_has_no_negatives(curate, folder):
    pair = {"query": "red river", "positive": "red yes", "negative": ["no 1", "no 2", "no 3"]}
    rows = [
        {**pair, "mined": {"scores": [0.9, 0.5, 0.7]}},
        {**pair, "mined": {"scores": [None, 0.5, 0.7]}},
        {**pair, "mined": None},
        {**pair, "negative": []},
        {**pair, "negative": ["red herring"]},
    ]
    (folder / "mined.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = curate("pick", "out", "--input=mined.jsonl")
    assert done.returncode == 0, done.stderr
    found = rows_of(folder / "out")
    assert [r.get("judged", {}).get("by") for r in found] == ["grade and cosine", "grade", "grade", None, "grade"]
    assert found[3]["negative"] == [] == found[4]["negative"]
    done = curate("filter", "filtered", "--input=mined.jsonl")
    assert done.returncode == 0, done.stderr
    first = rows_of(folder / "filtered")[0]
    assert len(first["mined"]["scores"]) == len(first["negative"])


def test_picking_by_grade_and_likelihood_takes_the_lowest_of_both(curate, folder, server):
    negatives = ["red river stone", "a cloud", "red cloud", "red river cloud"]
    grades = dict(zip(negatives, [1, 1, 0, 2]))
    server.reply = lambda body: {"grade": grades[texts_of(body["messages"][1]["content"])[1]]}
    row = {
        "query": "red river stone",
        "positive": "p",
        "negative": negatives,
        "mined": {"scores": [0.9, 0.1, 0.2, 0.3]},
    }
    (folder / "mined.jsonl").write_text(json.dumps(row) + "\n")
    done = curate("pick", "out", "--input=mined.jsonl", "--likelihood", "--keep=3")
    assert done.returncode == 0, done.stderr
    (found,) = rows_of(folder / "out")
    # log P(query | passage) by words: -1.5, -12, -8.5, -5; ranks by grade 2 2 4 1, by likelihood 1 4 3 2: the last answers
    wanted = {"red river stone": 1 / 62 + 1 / 61, "a cloud": 1 / 62 + 1 / 64, "red cloud": 1 / 64 + 1 / 63}
    assert found["negative"] == sorted(wanted, key=wanted.get)
    assert found["judged"]["by"] == "grade and likelihood" and set(found["judged"]["prompts"]) == {
        "grade",
        "query_likelihood",
    }
    assert dict(zip(found["negative"], found["judged"]["likelihoods"])) == {
        "red river stone": -1.5, "a cloud": -12.0, "red cloud": -8.5,
    }  # fmt: skip
    asked = server.received
    (folder / "out" / "rows.jsonl.gz").unlink()
    assert curate("pick", "out", "--input=mined.jsonl", "--likelihood", "--keep=3").returncode == 0
    assert server.received == asked == 8 and rows_of(folder / "out") == [found]
    assert found["mined"]["scores"] == [dict(zip(negatives, [0.9, 0.1, 0.2, 0.3]))[n] for n in found["negative"]]
    server.likely = mute
    done = curate("pick", "mute", "--input=mined.jsonl", "--likelihood")
    assert done.returncode == 69 and "tells no log-probabilities" in done.stderr and "vLLM" in done.stderr


def test_prompts_of_no_known_name_are_told(curate_here, folder):
    (folder / "mine").mkdir()
    (folder / "mine" / "queries.txt").write_text("--- system\nx\n--- user\n$passage")
    done = curate_here("queries", "out", "--input=passages.jsonl", "--prompts=mine")
    assert done.returncode == 65 and "did you mean 'query'" in done.stderr
    (folder / "mine" / "queries.txt").rename(folder / "mine" / "query.txt")
    (folder / "mine" / "query.txt").write_bytes(b"--- system\nfor\xeat\n--- user\n$passage")
    done = curate_here("queries", "out", "--input=passages.jsonl", "--prompts=mine")
    assert done.returncode == 65 and "query.txt: not valid UTF-8" in done.stderr
    (folder / "mine" / "query.txt").unlink()
    done = curate_here("queries", "out", "--input=passages.jsonl", "--prompts=mine")
    assert done.returncode == 65 and "holds no prompt (NAME.txt)" in done.stderr
    (folder / "mine" / "query.txt").mkdir()
    done = curate_here("queries", "out", "--input=passages.jsonl", "--prompts=mine")
    assert done.returncode == 65 and "query.txt: is no file; remove it" in done.stderr
