"""Real text and real code without a download: (docstring summary -> function source) of the packages installed here.

Read with `ast`, never imported or run. Tests, vendored copies and generated files are left out; the order depends on package,
file and line alone; a summary or a body seen before is dropped. Whole packages are held out, some for reported scores and
others for choosing settings, so that nothing of a held-out package is trained on.
"""

import ast
import collections
import dataclasses
import hashlib
import multiprocessing
import pathlib
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Collection, Iterator, Mapping
from concurrent import futures
from typing import Any

from embed import files
from embed.errors import ConfigError, DataError
from embed.sources.lines import write_json_lines, write_tsv
from embed.sources.record_files import JsonLines
from embed.text import clean

VERSION = 2  # raised when a change here changes what is harvested
_SKIPPED = re.compile(
    r"(^|/)(tests?|testing|_?vendor(ed)?|third_party|extern(al)?s?|benchmarks?|examples?|site-packages|dist-packages|"
    r"lib2to3|idlelib|turtledemo|ensurepip|__pycache__)(/|$)|(^|/)(test_[^/]*|[^/]*_tests?|conftest|[^/]*_pb2(_grpc)?)\.py$"
)
_SECTION = re.compile(
    r"^(args|arguments|parameters|returns|raises|yields|examples?|notes?|see also|\.\.|:|>>>)", re.IGNORECASE
)


def summary(docstring: str) -> str:
    """Returns the first paragraph of a docstring as one line, or '' when it is no usable description."""
    lines = []
    for line in docstring.strip().splitlines():
        line = line.strip()
        if not line or (lines and _SECTION.match(line)):
            break
        lines.append(line)
    text = clean(re.sub(r"\s+", " ", " ".join(lines)))
    words = text.split()
    letters = sum(c.isalpha() for c in text)
    usable = 4 <= len(words) <= 48 and len(text) <= 320 and letters >= 0.6 * len(text) and not _SECTION.match(text)
    return text if usable else ""


def body_without_docstring(lines: list[str], node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Returns the dedented source of a function, decorators and docstring left out."""
    doc = node.body[0]
    kept = lines[node.lineno - 1 : doc.lineno - 1] + lines[doc.end_lineno : node.end_lineno]
    return clean(textwrap.dedent("\n".join(line.rstrip() for line in kept)))


def functions_of(path: pathlib.Path) -> Iterator[tuple[int, str, str]]:
    """Yields (line, summary, source) of every described function in a file; a file Python cannot parse gives none."""
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in foreign code are not our user's concern
            tree = ast.parse(text)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    lines = text.split("\n")
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or len(node.body) < 2:
            continue
        described = summary(ast.get_docstring(node, clean=False) or "")
        if not described or node.name.startswith("test"):
            continue
        source = body_without_docstring(lines, node)
        if 60 <= len(source) <= 6000 and source.count("\n") >= 2 and _is_text(described + source):
            yield node.lineno, described, source


def _is_text(text: str) -> bool:
    """Returns whether UTF-8 can hold the text; an escape in a docstring can make a lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def python_files(root: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files under `root` that are worth reading, sorted by relative path."""
    paths = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root).as_posix()
        if not _SKIPPED.search(relative) and not relative.startswith(("embed/", "test/")):
            paths.append((relative, path))
    return [path for _, path in sorted(paths)]


def _harvest_files(job: tuple[str, list[str]]) -> list[dict]:
    root, names = job
    rows = []
    for name in names:
        for line, described, source in sorted(functions_of(pathlib.Path(root) / name)):
            package = name.split("/")[0].removesuffix(".py")
            rows.append({"query": described, "target": source, "package": package, "file": name, "line": line})
    return rows


def harvest(roots: list[pathlib.Path] | None = None, workers: int = 2) -> list[dict]:
    """Returns all rows {query, target, package, file, line} under `roots` (default: standard library and site-packages)."""
    if roots is None:
        paths = sysconfig.get_paths()
        roots = sorted({pathlib.Path(paths[key]).resolve() for key in ("stdlib", "purelib", "platlib")})
    jobs = []
    for root in roots:
        names = [p.relative_to(root).as_posix() for p in python_files(root)]
        jobs += [(str(root), names[i : i + 200]) for i in range(0, len(names), 200)]
    # Not forked: a copy of a process in which JAX runs threads may deadlock.
    with futures.ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        rows = [row for part in pool.map(_harvest_files, jobs) for row in part]
    seen: set[bytes] = set()
    unique = []
    for row in rows:
        keys = [hashlib.sha256(f"{k}\0{row[k].lower()}".encode()).digest() for k in ("query", "target")]
        if not seen.intersection(keys):
            unique.append(row)
        seen.update(keys)
    return unique


def held_out_packages(
    rows: list[dict], num_functions: int, max_package_functions: int, excluded: Collection[str] = ()
) -> set[str]:
    """Returns packages, in the order of their names' hashes, that together hold at least `num_functions` functions.

    A package of more than `max_package_functions` functions is never chosen, so that no single one decides a score. Packages
    in `excluded` are passed over.
    """
    counts = collections.Counter(row["package"] for row in rows)
    chosen, total = set(), 0
    for package in sorted(counts, key=lambda p: hashlib.sha256(p.encode()).digest()):
        if total >= num_functions:
            break
        if counts[package] <= max_package_functions and package not in excluded:
            chosen.add(package)
            total += counts[package]
    return chosen


def evenly_spaced(rows: list[dict], count: int) -> list[dict]:
    """Returns at most `count` of the rows, evenly spaced, so that no end of the alphabet is cut off."""
    if len(rows) <= count:
        return rows
    return [rows[i * len(rows) // count] for i in range(count)]


@dataclasses.dataclass(frozen=True)
class PythonFunctions:
    """The harvest as a source, kept in `folder`: train.jsonl.gz and two retrieval sets with their suites.

    The packages of `dev/` (suite.json) are for scores that are reported, those of `validation/` (validation.json) for
    choosing checkpoints and settings. No package is in two of the three parts.

    A folder that is there is used as it is, so that a run can be resumed after packages were installed. Remove it to harvest
    again.
    """

    folder: str
    max_train_functions: int = 40_000
    held_out_functions: int = 3000
    held_out_queries: int = 1000
    validation_functions: int = 1000
    validation_queries: int = 500
    max_package_functions: int = 1200

    def __post_init__(self):
        for name, value in self._settings().items():
            if value < 1:
                raise ConfigError(f"PythonFunctions.{name} = {value}: at least 1")

    def _settings(self) -> dict[str, int]:
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "folder"}

    def ensure(self) -> None:
        """Harvests into `folder` unless it is there and whole."""
        folder = pathlib.Path(self.folder)
        if (folder / files.MANIFEST).is_file():
            self._check_settings(files.verify_manifest(folder))
        else:
            self._harvest(folder)

    def _check_settings(self, manifest: Mapping[str, Any]) -> None:
        """Raises DataError when the folder was harvested with other settings, which would have no effect."""
        expected = {"version": VERSION, **self._settings()}
        for name, value in expected.items():
            if manifest.get(name) != value:
                raise DataError(
                    f"{self.folder}: harvested with {name} = {manifest.get(name)}, now it is {value}; remove the folder to "
                    "harvest again, or name another one"
                )

    def _harvest(self, folder: pathlib.Path) -> None:
        rows = harvest()
        test = held_out_packages(rows, self.held_out_functions, self.max_package_functions)
        validation = held_out_packages(rows, self.validation_functions, self.max_package_functions, excluded=test)
        train = [row for row in rows if row["package"] not in test | validation]
        with files.new_folder(folder, overwrite=True) as temporary:
            write_json_lines(temporary / "train.jsonl.gz", evenly_spaced(train, self.max_train_functions))
            for name, suite, packages, num_queries in (
                ("dev", "held-out-packages", test, self.held_out_queries),
                ("validation", "validation-packages", validation, self.validation_queries),
            ):
                _write_retrieval(temporary / name, [row for row in rows if row["package"] in packages], num_queries)
                task = {"name": suite, "type": "retrieval", "path": name, "prompt": "code retrieval"}
                suite_file = "suite.json" if name == "dev" else f"{name}.json"
                files.write_json(temporary / suite_file, {"name": "python-functions", "tasks": [task]})
            files.write_manifest(
                temporary, kind="python-functions", version=VERSION, held_out=sorted(test), **self._settings()
            )

    def fingerprint(self) -> dict[str, str]:
        """Returns the digest of what was harvested."""
        self.ensure()
        return {"harvest": files.folder_digest(self.folder)}

    def examples(self):
        """Yields ("file:line", record) of the training part."""
        self.ensure()
        return JsonLines(path=str(pathlib.Path(self.folder) / "train.jsonl.gz")).examples()


def _write_retrieval(folder: pathlib.Path, rows: list[dict], num_queries: int) -> None:
    """Writes a retrieval set: the functions are the corpus, and the summaries of some of them are the queries."""
    folder.mkdir()
    corpus = [{"id": _id(r), "text": r["target"], "file": r["file"], "line": r["line"]} for r in rows]
    query_rows = evenly_spaced(rows, num_queries)
    write_json_lines(folder / "corpus.jsonl.gz", corpus)
    write_json_lines(folder / "queries.jsonl.gz", [{"id": f"q:{_id(r)}", "text": r["query"]} for r in query_rows])
    header = ["query-id", "corpus-id", "score"]
    write_tsv(folder / "qrels.tsv.gz", header, [[f"q:{_id(r)}", _id(r), 1] for r in query_rows])


def _id(row: dict) -> str:
    return f"{row['file']}:{row['line']}"
