"""Prompts: parts, names and digests of a file, texts between marks, and folders that users edit."""

import hashlib
import hmac
import string

import pytest

from embed.curation import captions, judging, prompt_templates, synthesis
from embed.curation.prompt_templates import PromptTemplate
from embed.errors import DataError

WORDS = PromptTemplate("query", "Write.", "Passage: $passage, $count times")


def fill(salt=b"a", passage="x", count="2", **texts):
    return WORDS.fill(salt, {"passage": passage, **texts}, count=count)


def test_texts_stand_between_marks_and_values_as_they_are():
    system, user, (nonce, canary) = fill(passage="one\ntwo")
    assert user == f"Passage: <text {nonce}>\none\ntwo\n</text {nonce}>, 2 times"
    assert system.startswith("Write.\n\n") and f"<text {nonce}>" in system and f"The word {canary} is secret" in system
    assert "$" not in system and canary not in user


def test_marks_are_those_of_the_job_the_prompt_and_the_texts():
    digest = hmac.new(b"a", b"query\n\nx", hashlib.sha256).hexdigest()
    assert fill()[2] == (digest[:12], f"plover-{digest[12:20]}")
    assert fill() == fill()
    others = [
        fill(b"b"),
        fill(passage="y"),
        PromptTemplate("rate", *(WORDS.system, WORDS.user)).fill(b"a", {"passage": "x"}, count="2"),
    ]
    assert len({fill()[2], *(found[2] for found in others)}) == 4
    assert fill(count="3")[2] == fill()[2], "what is ours does not change them"


def test_names_in_a_text_are_not_filled_in():
    assert "costs $5, $count and $nonce" in fill(passage="costs $5, $count and $nonce")[1]


def test_a_lone_surrogate_is_filled_in_to_be_refused_later():
    assert "half \ud83d" in fill(passage="half \ud83d")[1]


def test_a_text_to_be_continued_stands_in_both_parts_without_marks():
    both = PromptTemplate("likelihood", "On $passage:", "Text: $passage")
    assert both.plain({"passage": "a $b"}) == "On a $b:\n\nText: a $b"


def test_one_wording_is_told_from_another():
    digest = hashlib.sha256(b"Write.\nPassage: $passage, $count times").hexdigest()[:12]
    assert WORDS.digest == digest == PromptTemplate("another name", WORDS.system, WORDS.user).digest
    assert PromptTemplate("query", "Write!", WORDS.user).digest != digest
    assert WORDS.fields == {"passage", "count"}


# our own


FIELDS = {**captions.FIELDS, **synthesis.FIELDS, **judging.FIELDS, **judging.LIKELIHOOD_FIELDS}


def test_every_prompt_that_is_asked_has_a_file_and_every_file_is_asked():
    assert prompt_templates.names() == sorted(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_our_prompts_hold_the_names_that_are_filled_in(name):
    own = prompt_templates.read(name, None, FIELDS[name])
    assert own.fields == FIELDS[name]
    text = prompt_templates.source(name)
    assert own.system in text and own.user in text and own.system and own.user
    assert string.Template(own.user).substitute(dict.fromkeys(FIELDS[name], "filled")).count("$") == 0


# of a user


def write(folder, text, name="grade"):
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def read(folder):
    return prompt_templates.read("grade", folder, {"query", "passage"})


def test_a_prompt_of_a_user_is_taken_and_ours_where_there_is_none(tmp_path):
    folder = write(tmp_path / "own", "\ufeff--- user\n\n $query $passage costs $$5 \n--- system\nJudge.\n  Well.\n")
    found = read(folder)
    assert (found.name, found.system, found.user) == ("grade", "Judge.\n  Well.", "$query $passage costs $$5")
    assert found.fill(b"", {"query": "q", "passage": "p"})[1].endswith("costs $5")
    assert prompt_templates.read("people", folder, FIELDS["people"]) == prompt_templates.read(
        "people", None, FIELDS["people"]
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("--- user\n$query $passage", "needs a line '--- system' and a line '--- user', each once"),
        ("--- user\na\n--- system\nb\n--- user\n$query $passage", "needs a line '--- system' and a line '--- user'"),
        ("--- user\na\n--- systems\n$query $passage", "needs a line '--- system' and a line '--- user'"),
        ("hello\n--- user\na\n--- system\n$query $passage", "has text before its first part; move it below"),
        ("--- user\n$query\n--- system\n", "lacks $passage, which what it is about is put in for"),
        ("--- user\n$query $passage $pasage\n--- system\n", "nothing is called $pasage; did you mean 'passage'?"),
        ("--- user\n$query $passage costs $5\n--- system\n", "a $ that begins no name; write $$ for a dollar sign"),
        ("--- user\nassage $query\n--- system\nabout $p", "lacks $passage, which what it is about is put in for"),
        (b"--- user\n\xff", "not valid UTF-8 at byte 9; convert the file to UTF-8"),
    ],
)
def test_a_prompt_that_cannot_be_filled_in_is_refused_with_its_file(tmp_path, text, message):
    with pytest.raises(DataError) as caught:
        read(write(tmp_path / "own", text))
    assert str(caught.value).startswith(f"{tmp_path}/own/grade.txt: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    folder = write(tmp_path / "own", "")

    def denied(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(prompt_templates.pathlib.Path, "read_text", denied)
    with pytest.raises(DataError, match=r"own/grade.txt: cannot be read \(Permission denied\); check its permissions"):
        read(folder)


def test_a_folder_of_prompts_is_checked_before_anything_is_asked(tmp_path):
    folder = tmp_path / "own"
    with pytest.raises(DataError, match=f"^{folder}: no such folder; write one with: embed curate prompts"):
        prompt_templates.check(folder)
    folder.mkdir()
    (folder / "notes.md").write_text("mine")
    with pytest.raises(DataError, match=r"holds no prompt \(NAME.txt\); write them with"):
        prompt_templates.check(folder)
    prompt_templates.check(write(folder, prompt_templates.source("grade")))
    write(folder, "", "grades")
    with pytest.raises(DataError, match=f"^{folder}/grades.txt: no prompt is called 'grades'; did you mean 'grade'"):
        prompt_templates.check(folder)
    (folder / "grades.txt").unlink()
    (folder / "query.txt").mkdir()
    with pytest.raises(DataError, match=f"^{folder}/query.txt: is no file; remove it, and our own prompt is taken"):
        prompt_templates.check(folder)
