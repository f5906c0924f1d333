"""Sealed JSON and the entries of files: what differs from what was written is named in one line."""

import hashlib
import json

import pytest

from embed import digests
from embed.errors import DataError


def test_what_was_sealed_is_read(tmp_path):
    written = digests.write_sealed(tmp_path / "a.json", {"n": 3, "name": "ü\u2028"})
    assert (
        digests.read_sealed(tmp_path / "a.json") == written == {"n": 3, "name": "ü\u2028", "digest": written["digest"]}
    )
    content = json.dumps({"n": 3, "name": "ü\u2028"}, sort_keys=True, ensure_ascii=False).encode()
    assert written["digest"] == hashlib.sha256(content).hexdigest()
    assert digests.write_sealed(tmp_path / "a.json", written) == written  # an old digest is no part of what is sealed


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"n": 4, "digest": "%s"}', "does not match its own digest, so it is damaged; run it again"),
        ('{"n": 3.0, "digest": "%s"}', "does not match its own digest"),
        ('{"n": 3, "more": 1, "digest": "%s"}', "does not match its own digest"),
        ('{"n": 3}', "holds no digest, so it cannot be verified; run it again"),
        ("[]", "expected"),
        ("{", "not valid JSON"),
    ],
)
def test_what_the_digest_does_not_cover_is_refused(tmp_path, content, message):
    digest = digests.sealed({"n": 3})["digest"]
    (tmp_path / "a.json").write_text(content % digest if "%s" in content else content)
    with pytest.raises(DataError, match=message) as caught:
        digests.read_sealed(tmp_path / "a.json", advice="run it again")
    assert "a.json" in str(caught.value)


def test_files_are_compared_with_their_entries(tmp_path):
    path = tmp_path / "values"
    path.write_bytes(b"abc")
    entries = digests.entries_of(tmp_path, ["values"])
    assert entries == {"values": {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}}
    digests.check_files(tmp_path, entries)
    for content, message in ((b"abd", "is damaged: its sha256 differs"), (b"abcd", "has 4 bytes instead of 3")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"values {message}; fetch it"):
            digests.check_files(tmp_path, entries, "fetch it")
    path.unlink()
    assert digests.problem_of(path, entries["values"]) == f"{path} is missing"
    assert "cannot be read" in digests.problem_of(tmp_path / ("x" * 300), entries["values"])
