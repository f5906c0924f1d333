"""Real text and real code without a download: (docstring summary -> function source) of the packages installed here.

Read with `ast`, never imported or run. Tests, vendored copies and generated files are left out; the order depends on package,
file and line alone; a summary or a body seen before is dropped. Whole packages are held out for evaluation, so that nothing
of a held-out package is trained on.
"""

import ast
import dataclasses
import hashlib
import multiprocessing
import pathlib
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from concurrent import futures

from embed import files
from embed.data import sources
from embed.data.text import clean

VERSION = 1  # raised when a change here changes what is harvested
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
    found = []
    for path in root.rglob("*.py"):
        relative = path.relative_to(root).as_posix()
        if not _SKIPPED.search(relative) and not relative.startswith(("embed/", "test/")):
            found.append((relative, path))
    return [path for _, path in sorted(found)]


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


def held_out_packages(rows: list[dict], functions: int, largest: int) -> set[str]:
    """Returns packages, in the order of their names' hashes, that together hold at least `functions` functions.

    A package of more than `largest` functions stays in training, so that no single one makes the evaluation.
    """
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["package"]] = counts.get(row["package"], 0) + 1
    chosen, total = set(), 0
    for package in sorted(counts, key=lambda p: hashlib.sha256(p.encode()).digest()):
        if total >= functions:
            break
        if counts[package] <= largest:
            chosen.add(package)
            total += counts[package]
    return chosen


@dataclasses.dataclass(frozen=True)
class PythonFunctions:
    """The harvest as a source. `folder` keeps it: train.jsonl.gz, a held-out retrieval set and its suite.json.

    Once harvested it is not harvested again, so a run can be resumed after packages were installed; remove the folder to
    harvest anew.
    """

    folder: str
    most: int = 40_000
    held_out_functions: int = 3000
    held_out_largest: int = 1200
    held_out_queries: int = 1000

    def ensure(self) -> None:
        """Harvests into `folder` unless it is there and whole."""
        folder = pathlib.Path(self.folder)
        if (folder / files.MANIFEST).is_file():
            files.verify_manifest(folder)
            return
        rows = harvest()
        held_out = held_out_packages(rows, self.held_out_functions, self.held_out_largest)
        train = [row for row in rows if row["package"] not in held_out]
        # Evenly spaced, so that a cap does not cut off the packages late in the alphabet.
        keep = sorted({int(i * len(train) / self.most) for i in range(self.most)}) if len(train) > self.most else None
        train = train if keep is None else [train[i] for i in keep]
        with files.new_folder(folder, overwrite=True) as temporary:
            sources.write_json_lines(temporary / "train.jsonl.gz", train)
            self._write_retrieval(temporary / "dev", [row for row in rows if row["package"] in held_out])
            suite = {
                "name": "python-functions",
                "tasks": [
                    {"name": "held-out-packages", "type": "retrieval", "path": "dev", "prompt": "code retrieval"}
                ],
            }
            files.write_json(temporary / "suite.json", suite)
            files.write_manifest(temporary, kind="python-functions", version=VERSION, held_out=sorted(held_out))

    def _write_retrieval(self, folder: pathlib.Path, rows: list[dict]) -> None:
        folder.mkdir()
        ids = [f"{row['file']}:{row['line']}" for row in rows]
        corpus = [{"id": i, "text": r["target"], "file": r["file"], "line": r["line"]} for i, r in zip(ids, rows)]
        asked = sorted({int(i * len(rows) / self.held_out_queries) for i in range(self.held_out_queries)})
        asked = [i for i in asked if i < len(rows)]
        sources.write_json_lines(folder / "corpus.jsonl.gz", corpus)
        sources.write_json_lines(
            folder / "queries.jsonl.gz", [{"id": f"q:{ids[i]}", "text": rows[i]["query"]} for i in asked]
        )
        sources.write_tsv(
            folder / "qrels.tsv.gz", ["query-id", "corpus-id", "score"], [[f"q:{ids[i]}", ids[i], 1] for i in asked]
        )

    def fingerprint(self) -> dict[str, str]:
        """Returns the digest of what was harvested."""
        self.ensure()
        return {"harvest": files.folder_digest(self.folder)}

    def examples(self):
        """Yields ("file:line", record) of the training part."""
        self.ensure()
        return sources.JsonLines(path=str(pathlib.Path(self.folder) / "train.jsonl.gz")).examples()
