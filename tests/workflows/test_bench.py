"""Where claims are tried: what is the same is run once, and what decides a result is in its folder's name."""

import pytest

from embed.documents import read_json
from embed.errors import ConfigError, DataError
from embed.workflows.bench import Bench, digest, digest_given
from embed.workflows.claims import Claim, Comparison
from embed.workflows.command_lines import DONE, LOG

GIN = """from __gin__ import dynamic_registration
include 'own.gin'
RATE = 1.0  # a comment
"""
LINE = "train --gin_file={} --run_dir=$run/run --gin.SEED=$seed"
MAKE = """import pathlib, sys
folder = pathlib.Path(sys.argv[1])
if folder.name == "nothing":
    sys.exit("nothing can be made")
folder.mkdir(parents=True)
(folder / "it").write_text("made")
"""


@pytest.fixture
def gin_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.gin").write_text("from __gin__ import dynamic_registration\nOTHER = 1.0\n")
    (tmp_path / "a.gin").write_text(GIN)
    return tmp_path / "a.gin"


@pytest.fixture
def make(tmp_path, monkeypatch):
    """The script `make.py FOLDER`, which makes a folder with a file, `it`; it starts faster than `embed`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "make.py").write_text(MAKE)
    return tmp_path / "make.py"


def claim(**changes) -> Claim:
    given = {
        "title": "t",
        "paper": "p",
        "figure": "f",
        "prepared": {"words": ["curate prompts --output=$run/words"], "more": ["curate prompts --output=$run/$words"]},
        "arms": {"one": ["average $words/x --output=$model"], "two": ["average x --output=$model"]},
        "comparisons": [Comparison("one", "two")],
    }
    return Claim(**{**given, **changes})


def test_the_digest_is_of_words_and_gin_files_with_their_includes(gin_file):
    line = LINE.format(gin_file.name)
    first = digest([line], {})
    assert digest([line], {"unused": "x"}) == first
    assert digest([line.replace("SEED", "SED")], {}) != first
    gin_file.write_text(GIN.replace("# a comment", "# another"))
    assert digest([line], {}) == first
    own = gin_file.with_name("own.gin")
    own.write_text(own.read_text().replace("1.0", "2.0"))
    assert digest([line], {}) != first


def test_a_model_is_scored_at_the_sizes_and_precisions_of_the_claim(tmp_path):
    line = Bench(claim(dims=(4, 2), precisions=("float32", "binary"), tasks=("x",)), tmp_path, {}, {}, "c").scoring
    assert line.endswith(" --vectors=off --dims=4,2 --tasks=x --quantize=float32,binary")
    assert Bench(claim(), tmp_path, {}, {}, "c").scoring.endswith(" --vectors=off")


def test_what_an_arm_uses_decides_it_too(tmp_path):
    bench = Bench(claim(), tmp_path, {}, {}, "c")
    changed = claim(prepared={"words": ["curate prompts --output=$run/other"], "more": []})
    other = Bench(changed, tmp_path, {}, {}, "c")
    assert bench.made["words"] != other.made["words"] and bench.made["more"] != other.made["more"]
    assert bench.keys["one"] != other.keys["one"] and bench.keys["two"] == other.keys["two"]


def test_an_arm_may_name_an_arm_before_it(tmp_path, make):
    arms = {"first": ["python make.py $run/words"], "second": ["python make.py $first/$seed"]}
    given = {"arms": arms, "comparisons": [Comparison("first", "second")], "prepared": {}}
    bench = Bench(claim(**given), tmp_path, {}, {}, "c")
    bench._run("second", 7)
    assert (tmp_path / "arms" / bench.keys["first"] / "7" / "7" / "it").is_file()
    changed = {**arms, "first": ["python make.py $run/other"]}
    other = Bench(claim(**{**given, "arms": changed}), tmp_path, {}, {}, "c")
    assert other.keys["second"] != bench.keys["second"]
    with pytest.raises(ConfigError, match=r"\$second in 'python make.py"):
        claim(**{**given, "arms": {"first": ["python make.py $second"], "second": []}})


def test_a_line_may_be_a_script(tmp_path, make):
    made = ["python make.py $run/place"]
    bench = Bench(claim(prepared={"words": made}), tmp_path, {}, {}, "c")
    bench.prepare()
    assert (tmp_path / "prepared" / f"words-{bench.made['words']}" / "place" / "it").read_text() == "made"
    make.write_text("0")
    assert digest(made, {}) != bench.made["words"]
    with pytest.raises(DataError, match="none.py: no such script"):
        digest(["python none.py"], {})


def test_what_the_user_gives_decides_what_uses_it(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model").write_text("weights")
    same = digest_given({"source": str(tmp_path / "a")})
    assert same == digest_given({"source": str(tmp_path / "b")})  # the content, not the place
    (tmp_path / "b" / "model").write_text("WEIGHTS")
    other = digest_given({"source": str(tmp_path / "b")})
    arms = {"one": ["convert $source $model"], "two": ["average x --output=$model"]}
    first, second = (Bench(claim(arms=arms, prepared={}), tmp_path, {}, found, "c") for found in (same, other))
    assert first.keys["one"] != second.keys["one"] and first.keys["two"] == second.keys["two"]
    assert digest_given({"source": "org/name"}) == {"source": "org/name"}


def test_places_may_hold_blanks(tmp_path, make):
    bench = Bench(claim(prepared={"words": ["python make.py $run/words"]}), tmp_path / "a b", {}, {}, "c")
    bench.prepare()
    (folder,) = (tmp_path / "a b" / "prepared").iterdir()
    assert (folder / "words" / "it").is_file()


def test_what_is_prepared_is_prepared_once_for_all_claims(tmp_path, make, capsys):
    words = {"words": ["python make.py $run/words"]}
    Bench(claim(prepared=words), tmp_path, {}, {}, "first").prepare()
    assert "first: preparing words: python make.py" in capsys.readouterr().out
    again = Bench(claim(prepared=words, title="u"), tmp_path, {}, {}, "second")
    again.prepare()
    assert capsys.readouterr().out == ""
    (folder,) = (tmp_path / "prepared").iterdir()
    assert folder.name.startswith("words-") and (folder / "words" / "it").is_file()
    (done,) = read_json(folder / DONE)["lines"]
    assert done["seconds"] >= 0 and f"{folder}/words" in done["line"]


def test_a_line_that_fails_is_told_with_its_last_words_and_tried_again(tmp_path, make):
    wanted = claim(prepared={"words": ["python make.py $run/words", "python make.py $run/nothing"]})
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"c: preparing words: `python make.py .*nothing` ended with 1: nothing can be made"
        ):
            Bench(wanted, tmp_path, {}, {}, "c").prepare()
    (folder,) = (tmp_path / "prepared").iterdir()
    assert len(read_json(folder / DONE)["lines"]) == 1
    assert (folder / LOG).read_text().count("/words\n") == 1
