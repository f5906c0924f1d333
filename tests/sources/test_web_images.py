"""Records whose images are URLs get the bytes of the files."""

import json

import pytest
from web_server import QUICK, picture, running

from embed.errors import DataError
from embed.sources import JsonLines, WebImages


@pytest.fixture
def server():
    with running() as server:
        yield server


def test_records_get_the_bytes_of_their_urls(server, tmp_path):
    rows = [{"query": "one", "pictures": [f"{server.url}/image-1", f"{server.url}/image-2"], "target": f"{server.url}/image-3"},
            {"query": "two", "pictures": [], "target": f"{server.url}/missing-1"}]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"query": "query", "query_images": "pictures", "target": "target"}

    def source(**more):
        inner = JsonLines(str(tmp_path / "rows.jsonl"), fields, **more)
        return WebImages(inner, str(tmp_path / "web"), QUICK, role=("query_images", "target"))

    with pytest.raises(DataError, match="was not fetched; run `embed prepare`"):
        list(source().examples())
    before = source().fingerprint()
    source().fetch(lambda line: None)
    assert source().fingerprint() != before
    with pytest.raises(DataError, match=r"rows.jsonl:2: http://127.*/missing-1: status 404; correct the URL"):
        list(source().examples())
    skipping = source(on_bad_record="skip", max_bad_share=0.6)
    ((_, record),) = skipping.examples()
    assert record["query_images"] == [picture(1), picture(2)] and record["target"] == picture(3)
    assert skipping.bad_records.skipped == 1
