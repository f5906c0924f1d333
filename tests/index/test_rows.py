"""The documents of a segment: each read by its number."""

import pytest

from embed import arrays, files
from embed.errors import DataError
from embed.index import rows
from embed.text import content_id

LINES = [("a", {"text": "é\u2028x"}), ("b", {"text": "", "n": 3}), ("c", {"text": "z" * 5000})]


def test_each_is_read_by_its_number(tmp_path):
    rows.write(tmp_path, LINES)
    written = rows.Rows(tmp_path)
    assert len(written) == 3
    assert [written[i] for i in (2, 0, 1)] == [{**LINES[i][1], "id": LINES[i][0]} for i in (2, 0, 1)]
    assert written.ids.tolist() == [int(content_id(i)) for i, _ in LINES]


def test_files_that_do_not_belong_together_are_refused(tmp_path):
    rows.write(tmp_path, LINES)
    files.write_atomic(tmp_path / rows.IDS, arrays.npy_bytes(rows.Rows(tmp_path).ids[:2]))
    with pytest.raises(DataError, match="does not have the documents"):
        rows.Rows(tmp_path)
