"""Records whose images are URLs get the bytes of the files."""

import dataclasses
import json

import pytest
from web_server import QUICK, picture, running

from embed.data import tasks
from embed.errors import DataError
from embed.sources import ImageFiles, JsonLines, WebImages


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
    other = dataclasses.replace(source(), fetching=dataclasses.replace(QUICK, contact="you@example.org"))
    assert tasks.describe(other) == tasks.describe(source())  # the token cache stays
    with pytest.raises(DataError, match=r"rows.jsonl:2: http://127.*/missing-1: status 404; correct the URL"):
        list(source().examples())
    skipping = source(on_bad_record="skip", max_bad_share=0.6)
    ((_, record),) = skipping.examples()
    assert record["query_images"] == [picture(1), picture(2)] and record["target"] == picture(3)
    assert skipping.bad_records.skipped == 1


def test_a_row_without_a_url_ends_nothing_where_bad_records_are_left_out(server, tmp_path):
    rows = [{"query": "a", "target": 3}, {"query": "b", "target": f"{server.url}/image-1"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {"query": "query", "target": "target"}

    def source(**more):
        return WebImages(
            JsonLines(str(tmp_path / "rows.jsonl"), fields, **more), str(tmp_path / "web"), QUICK, "target"
        )

    with pytest.raises(DataError, match=r"rows.jsonl:1: "):
        source().fetch(lambda line: None)
    skipping = source(on_bad_record="skip", max_bad_share=0.5)
    skipping.fetch(lambda line: None)
    assert [record["target"] for _, record in skipping.examples()] == [picture(1)]
    assert skipping.bad_records.skipped == 1


def test_a_source_around_it_fetches_too(server, tmp_path):
    (tmp_path / "local.png").write_bytes(picture(7))
    row = {"query": "a", "query_images": "local.png", "target": f"{server.url}/image-1"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    fields = {name: name for name in row}
    inner = WebImages(JsonLines(str(tmp_path / "rows.jsonl"), fields), str(tmp_path / "web"), QUICK, "target")
    source = ImageFiles(inner, role="query_images")
    source.fetch(lambda line: None)
    ((_, record),) = source.examples()
    assert (record["query_images"], record["target"]) == (picture(7), picture(1))
