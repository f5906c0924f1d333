"""Files for tests of sources, and what reading them gives."""

import gzip
import json

import pytest

from embed import sources
from embed.errors import DataError

PAIR = {"query": "q", "target": "t"}


def write(path, content, packed=None):
    """Writes text or bytes, gzip by the suffix; returns the path as text."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if (path.suffix == ".gz" if packed is None else packed) else data)
    return str(path)


def json_lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def parquet_file(path, columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), str(path))
    return str(path)


def beir(folder, qrels="q\tc\ts\n1\td1\t1\n", queries=None, corpus=None):
    write(folder / "queries.jsonl", json_lines(*(queries or [{"_id": "1", "text": "why"}])))
    write(folder / "corpus.jsonl", json_lines(*(corpus or [{"_id": "d1", "text": "so", "title": "T"}])))
    write(folder / "qrels" / "train.tsv", qrels)
    return sources.BeirFolder(str(folder))


def records(source):
    return [record for _, record in source.examples()]


def refused(source, place, *said):
    """Checks that reading gives one line that starts with `place` and says what is expected; returns the line."""
    with pytest.raises(DataError) as caught:
        list(source.examples())
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(place), message
    for part in said:
        assert part in message, message
    return message
