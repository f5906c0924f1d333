"""The harvest of a small made-up tree: what is taken, what is left out, and that no package is on both sides."""

import gzip
import json
import pathlib
import subprocess
import sys
import textwrap

import pytest

from embed import files
from embed.errors import ConfigError, DataError
from embed.sources import python_functions
from embed.sources.python_functions import PythonFunctions, functions_of, harvest, held_out_packages, summary

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def function(name, described, number=0):
    """Returns the source of a described function, and the same without its docstring."""
    head = f"def {name}(first, second):"
    body = [
        f"    total = first * {number} + second",
        "    for step in range(total):",
        "        total += step % 7",
        "    return total",
    ]
    return "\n".join([head, f'    """{described}"""', *body]) + "\n", "\n".join([head, *body])


def put(root, name, *parts):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(parts), encoding="utf-8")


class InProcess:
    """Stands for a pool of processes, whose start takes longer than what most tests have them do."""

    def __init__(self, workers, context):
        self.map = map

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture(autouse=True)
def use_processes(monkeypatch):
    """Harvests in this process, until the test calls this function."""
    with monkeypatch.context() as patched:
        patched.setattr(python_functions.futures, "ProcessPoolExecutor", InProcess)
        yield patched.undo


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "root"
    put(root, "alpha/__init__.py", function("one", "Return the first sum of things.", 1)[0])
    put(root, "alpha/b.py", function("two", "Return the second sum of things.", 2)[0])
    put(root, "beta/a.py", function("three", "Return the third sum of things.", 3)[0])
    put(root, "single.py", function("four", "Return the fourth sum of things.", 4)[0])
    return root


def names(rows):
    return [row["target"].split("(")[0].removeprefix("def ") for row in rows]


def test_rows_of_a_tree_by_hand(tree):
    rows = harvest([tree])
    assert rows == [
        {
            "query": f"Return the {nth} sum of things.",
            "target": function(name, "", i)[1],
            "package": p,
            "file": f,
            "line": 1,
        }
        for nth, name, i, p, f in [
            ("first", "one", 1, "alpha", "alpha/__init__.py"),
            ("second", "two", 2, "alpha", "alpha/b.py"),
            ("third", "three", 3, "beta", "beta/a.py"),
            ("fourth", "four", 4, "single", "single.py"),
        ]
    ]


def test_the_docstring_the_decorators_and_the_indentation_are_removed(tmp_path):
    put(
        tmp_path,
        "m.py",
        textwrap.dedent('''\
        import functools


        class Holder:
            @functools.lru_cache
            async def compute(
                self,
                first: int,
            ) -> int:
                # A comment before the docstring stays.
                r"""Compute the answer of the
                whole thing.

                Args:
                  first: this paragraph is not part of the summary.
                """
                answer = first + 1  # after it

                return answer
        '''),
    )
    assert list(functions_of(tmp_path / "m.py")) == [
        (
            6,
            "Compute the answer of the whole thing.",
            "async def compute(\n    self,\n    first: int,\n) -> int:\n    # A comment before the docstring stays.\n"
            "    answer = first + 1  # after it\n\n    return answer",
        )
    ]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Return the sum of two numbers.", "Return the sum of two numbers."),
        ("\n    Return the  sum\n    of two numbers.\n\n    More text here.", "Return the sum of two numbers."),
        ("Return the sum of two.\n    Args:\n      x: a number", "Return the sum of two."),
        ("Return the sum of two.\n    :param x: a number", "Return the sum of two."),
        ("Rende\u0301s the sum of two.", "Rend\u00e9s the sum of two."),
        ("Too few words.", ""),
        (":param x: the number to be added here", ""),
        (">>> add the numbers one two", ""),
        ("1 2 3 4 5 6 7 = 8 9", ""),
        ("word " * 49, ""),
        ("word " * 47 + "word.", "word " * 47 + "word."),
        ("a" * 100 + " " + "b" * 100 + " " + "c" * 100 + " " + "d" * 100, ""),
        ("", ""),
    ],
)
def test_summaries(docstring, expected):
    assert summary(docstring) == expected


def test_what_is_no_described_function_is_left_out(tmp_path):
    described = "Return the sum of many things."
    good, _ = function("good", described)
    put(
        tmp_path,
        "m.py",
        good,
        function("undescribed", "No.")[0],
        function("test_it", "Return the sum of all tests.")[0],
        'def short(x):\n    """Return the sum of short things."""\n    return x\n',
        'def only_docstring(x):\n    """Return the sum of no things."""\n',
        "def huge(x):\n"
        '    """Return the sum of huge things."""\n' + "".join(f"    x += {i}  # padding\n" for i in range(600)),
        'class Thing:\n    """Hold the sum of some things."""\n    value = 1\n    other = 2\n',
    )
    assert [row["query"] for row in harvest([tmp_path])] == [described]


@pytest.mark.parametrize(
    "name",
    [
        "p/tests/m.py", "p/test/m.py", "p/testing/m.py", "tests/m.py", "p/_vendor/q.py", "p/vendor/q.py",
        "p/vendored/q.py", "p/_vendored/q.py", "p/third_party/q.py", "p/extern/q.py",
        "p/externals/q.py", "p/examples/q.py",
        "p/benchmarks/q.py",
        "p/test_m.py", "p/m_test.py", "p/m_tests.py", "p/conftest.py", "p/m_pb2.py", "p/m_pb2_grpc.py", "lib2to3/m.py",
        "site-packages/p/m.py", "p/__pycache__/m.py", "embed/m.py", "test/m.py", "p/m.txt",
    ],
)  # fmt: skip
def test_tests_vendored_and_generated_files_are_left_out(tree, name):
    put(tree, name, function("five", "Return the fifth sum of things.", 5)[0])
    assert names(harvest([tree])) == ["one", "two", "three", "four"]


@pytest.mark.parametrize("name", ["p/contest/m.py", "p/latest.py", "p/testament/m.py", "p/vendors.py", "p/attest.py"])
def test_names_that_only_look_like_tests_are_kept(tree, name):
    put(tree, name, function("five", "Return the fifth sum of things.", 5)[0])
    assert names(harvest([tree])) == ["one", "two", "three", "five", "four"]


@pytest.mark.parametrize(
    "content",
    [
        b"def broken(:\n    pass\n",
        b"print 'python 2'\n",
        b"# -*- coding: latin-1 -*-\nx = '\xe9'\n",
        b"x = '\x00'\n",
        b"\xff\xfe",
        b"",
        b"x = " + b"(" * 5000 + b")" * 5000,
        b"x = " + b"-" * 100000 + b"1\n",
        b'def f(x):\n    """Return what stands \\ud800 in this place."""\n    y = x + 1 + 2 + 3 + 4 + 5\n'
        b"    z = y * 2 * 3 * 4\n    return z\n",
    ],
    ids=["syntax", "python 2", "latin-1", "nul", "utf-16", "empty", "parentheses", "recursion", "surrogate"],
)
def test_a_file_that_cannot_be_used_is_skipped(tree, content):
    (tree / "alpha" / "a.py").write_bytes(content)
    assert names(harvest([tree])) == ["one", "two", "three", "four"]


def test_foreign_warnings_are_not_ours(tree):
    put(
        tree,
        "alpha/a.py",
        'PATTERN = "\\d"\nSAME = 1 is 1\n',
        function("five", "Return the fifth sum of things.", 5)[0],
    )
    assert [described for _, described, _ in functions_of(tree / "alpha/a.py")] == ["Return the fifth sum of things."]


def test_a_summary_or_a_body_seen_before_is_dropped(tree):
    put(tree, "beta/b.py", function("five", "RETURN the First sum of things.", 5)[0])  # the summary of one
    put(tree, "beta/c.py", function("two", "Return another sum of things here.", 2)[0])  # the body of two
    put(tree, "beta/d.py", function("six", "Return another sum of things here.", 6)[0])  # the summary of a dropped one
    put(tree, "beta/e.py", function("seven", "Return the seventh sum of things.", 7)[0])
    assert names(harvest([tree])) == ["one", "two", "three", "seven", "four"]


def test_order_depends_on_the_tree_alone(tmp_path, tree, use_processes):
    for i in range(450):  # more than two jobs
        put(tree, f"many/m{i:03d}.py", function(f"f{i}", f"Return the sum called number {i} here.", 100 + i)[0])
    first = harvest([tree])
    assert len(first) == 454
    copy = tmp_path / "copy"
    for path in sorted(tree.rglob("*.py"), reverse=True):
        put(copy, path.relative_to(tree).as_posix(), path.read_text())
    use_processes()
    assert harvest([copy], workers=2) == first
    assert [(r["file"], r["line"]) for r in first] == sorted((r["file"], r["line"]) for r in first)


def test_two_roots_are_read_in_their_order(tmp_path, tree):
    other = tmp_path / "other"
    put(other, "aardvark.py", function("zero", "Return the zeroth sum of things.", 9)[0])
    put(other, "alpha/z.py", function("one", "Return the first sum of things.", 1)[0])
    assert names(harvest([tree, other])) == ["one", "two", "three", "four", "zero"]
    assert names(harvest([other, tree])) == ["zero", "one", "two", "three", "four"]


@pytest.mark.slow
def test_a_harvest_works_without_a_warning_beside_jax(tree):
    program = (
        "import pathlib\nimport jax\nfrom embed.sources.python_functions import harvest\n"
        "if __name__ == '__main__':\n    jax.numpy.ones(2).block_until_ready()\n"
        f"    print(len(harvest([pathlib.Path({str(tree)!r})])))\n"
    )
    (tree.parent / "program.py").write_text(program)
    ran = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", str(tree.parent / "program.py")],
        capture_output=True, text=True, timeout=600, env={"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert ran.stdout == "4\n", ran.stderr
    assert "Warning" not in ran.stderr


# The split.


def rows_of(counts):
    return [{"package": p, "file": f"{p}/m.py", "line": i, "query": f"Query {p} {i} of many.", "target": f"{p} {i}"}
            for p, n in counts.items() for i in range(n)]  # fmt: skip


def test_held_out_packages_hold_enough_and_none_is_large():
    rows = rows_of({f"p{i}": 5 + i for i in range(30)} | {"large": 500})
    chosen = held_out_packages(rows, 100, 20)
    sizes = {p: sum(r["package"] == p for r in rows) for p in chosen}
    assert max(sizes.values()) <= 20
    assert 100 <= sum(sizes.values()) < 100 + 20
    assert held_out_packages(rows[::-1], 100, 20) == chosen
    assert held_out_packages(rows, 0, 20) == set()
    assert held_out_packages(rows, 10_000, 1000) == {r["package"] for r in rows}


def test_a_package_stays_on_its_side_when_others_are_added():
    few = {f"p{i}": 10 for i in range(20)}
    chosen = held_out_packages(rows_of(few), 50, 20)
    more = held_out_packages(rows_of({**few, "new": 10}), 50, 20)
    assert len(chosen & more) >= 4


def read(path):
    with gzip.open(path, "rt", encoding="utf-8") as f:
        return (
            [json.loads(line) for line in f] if ".jsonl" in path.name else [line.rstrip("\n").split("\t") for line in f]
        )


@pytest.fixture
def harvested(monkeypatch):
    """Replaces the harvest by made-up rows; returns the list of its calls."""
    calls = []
    rows = rows_of({f"p{i}": 10 for i in range(20)})
    monkeypatch.setattr(python_functions, "harvest", lambda: calls.append(1) or list(rows))
    return calls


def made(tmp_path, **settings):
    return PythonFunctions(
        str(tmp_path / "functions"),
        **{
            "held_out_functions": 50,
            "held_out_queries": 7,
            "validation_functions": 30,
            "validation_queries": 4,
            "max_package_functions": 20,
            **settings,
        },
    )


def test_no_package_is_in_two_parts_of_the_folder(tmp_path, harvested):
    source = made(tmp_path)
    source.ensure()
    folder = tmp_path / "functions"
    manifest = files.verify_manifest(folder)
    parts = {
        "train": {row["package"] for row in read(folder / "train.jsonl.gz")},
        **{
            name: {row["file"].split("/")[0] for row in read(folder / name / "corpus.jsonl.gz")}
            for name in ("dev", "validation")
        },
    }
    assert parts["dev"] == set(manifest["held_out"])
    assert {name: len(packages) for name, packages in parts.items()} == {"train": 12, "dev": 5, "validation": 3}
    assert len(set.union(*parts.values())) == 20
    counts = [len(read(folder / name / "corpus.jsonl.gz")) for name in ("dev", "validation")]
    assert counts == [50, 30] and len(read(folder / "train.jsonl.gz")) == 120


def test_the_reported_packages_do_not_depend_on_the_validation_set(tmp_path, harvested):
    corpora = []
    for number in (10, 30, 60):
        made(tmp_path / str(number), validation_functions=number).ensure()
        corpora.append(read(tmp_path / str(number) / "functions" / "dev" / "corpus.jsonl.gz"))
    assert corpora[0] == corpora[1] == corpora[2]


@pytest.mark.parametrize(
    ("folder", "file", "task", "functions", "queries"),
    [
        ("dev", "suite.json", "held-out-packages", 50, 7),
        ("validation", "validation.json", "validation-packages", 30, 4),
    ],
)
def test_a_held_out_set_is_a_retrieval_set_with_a_suite(tmp_path, harvested, folder, file, task, functions, queries):
    made(tmp_path).ensure()
    path = tmp_path / "functions"
    corpus = {row["id"]: row["text"] for row in read(path / folder / "corpus.jsonl.gz")}
    asked = {row["id"]: row["text"] for row in read(path / folder / "queries.jsonl.gz")}
    header, *qrels = read(path / folder / "qrels.tsv.gz")
    assert header == ["query-id", "corpus-id", "score"]
    assert len(corpus) == functions and len(asked) == len(qrels) == queries
    for query, document, score in qrels:
        assert score == "1"
        assert asked[query] == f"Query {corpus[document]} of many."
    expected = {"name": task, "type": "retrieval", "path": folder, "prompt": "code retrieval"}
    assert json.loads((path / file).read_text()) == {"name": "python-functions", "tasks": [expected]}


@pytest.mark.parametrize(
    "changed", [{"held_out_functions": 60}, {"validation_queries": 5}, {"max_train_functions": 60}]
)
def test_a_folder_of_other_settings_is_refused_and_kept(tmp_path, harvested, changed):
    made(tmp_path).ensure()
    ((name, value),) = changed.items()
    with pytest.raises(DataError, match=rf"harvested with {name} = \d+, now it is {value}; remove the folder"):
        made(tmp_path, **changed).ensure()
    assert len(harvested) == 1
    made(tmp_path).ensure()


def test_a_folder_of_an_earlier_version_is_refused(tmp_path, harvested):
    folder = tmp_path / "functions"
    folder.mkdir()
    files.write_manifest(folder, kind="python-functions", version=1)
    with pytest.raises(DataError, match="harvested with version = 1, now it is 2; remove the folder"):
        made(tmp_path).ensure()


@pytest.mark.parametrize("name", ["held_out_functions", "validation_queries", "max_package_functions"])
def test_settings_have_a_range(tmp_path, name):
    with pytest.raises(ConfigError, match=rf"PythonFunctions.{name} = 0: at least 1"):
        made(tmp_path, **{name: 0})


def test_an_existing_folder_is_used_as_it_is(tmp_path, harvested):
    source = made(tmp_path)
    source.ensure()
    first, stamp = source.fingerprint(), (tmp_path / "functions" / "train.jsonl.gz").stat().st_mtime_ns
    made(tmp_path).ensure()
    examples = list(made(tmp_path).examples())
    assert len(harvested) == 1
    assert (tmp_path / "functions" / "train.jsonl.gz").stat().st_mtime_ns == stamp
    assert made(tmp_path).fingerprint() == first
    assert len(examples) == 120
    location, record = examples[0]
    train = read(tmp_path / "functions" / "train.jsonl.gz")
    assert location == f"{tmp_path}/functions/train.jsonl.gz:1"
    assert record == {"query": train[0]["query"], "target": train[0]["target"]}


def test_a_harvest_elsewhere_has_the_same_digest(tmp_path, harvested):
    assert made(tmp_path / "a").fingerprint() == made(tmp_path / "b").fingerprint()
    assert made(tmp_path / "c", held_out_functions=90).fingerprint() != made(tmp_path / "a").fingerprint()


def test_a_damaged_folder_is_refused(tmp_path, harvested):
    made(tmp_path).ensure()
    path = tmp_path / "functions" / "train.jsonl.gz"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match="train.jsonl.gz: its sha256 differs"):
        list(made(tmp_path).examples())


def test_a_cap_takes_rows_evenly_from_all_packages(tmp_path, harvested):
    made(tmp_path, max_train_functions=60).ensure()
    train = read(tmp_path / "functions" / "train.jsonl.gz")
    assert len(train) == 60 and len({row["query"] for row in train}) == 60
    counts = [sum(row["package"] == p for row in train) for p in {row["package"] for row in train}]
    assert counts == [5] * 12


def test_a_harvest_that_fails_leaves_no_folder(tmp_path, harvested, monkeypatch):
    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(python_functions, "_write_retrieval", fail)
    with pytest.raises(KeyboardInterrupt):
        made(tmp_path).ensure()
    assert list(tmp_path.iterdir()) == []
