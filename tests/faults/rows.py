"""The rows of the fault table."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import pathlib
import pickle
import random
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile

import bad_inputs
import commands
import conftest
import corruption
import fuzz
import http_requests
import numpy as np
import pytest
from reports import Report, Row

from embed import arrays, bundles, files
from embed.errors import EmbedError

TESTS = pathlib.Path(__file__).resolve().parent.parent
TRAIN = ("train", "--gin_file=tiny.gin", "--run_dir=run")


def loaded(path: str):
    """Returns a module of the tests by its path."""
    import importlib.util

    spec = importlib.util.spec_from_file_location(path.replace("/", "_").removesuffix(".py"), TESTS / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipe(folder: pathlib.Path, forks: commands.Forks) -> pathlib.Path:
    """Writes the data and the caches of the tiny recipe."""
    folder.mkdir()
    conftest.write_data(folder)
    (folder / "tiny.gin").write_text(conftest.RECIPE)
    code, _, error = forks.run(folder, "prepare", "--gin_file=tiny.gin")
    assert code == 0, error
    return folder


def digests(folder: pathlib.Path, step: int = 12) -> dict[str, str]:
    """Returns the sha256 of every leaf of a checkpoint."""
    step_folder = folder / "run" / "checkpoints" / str(step)
    return {
        f"{item}/{path}": hashlib.sha256(array.read().result().tobytes()).hexdigest()
        for item in files.read_manifest(step_folder)["trees"]
        for path, array in arrays.open_arrays(step_folder, item).items()
    }


@contextlib.contextmanager
def tiny(work: pathlib.Path):
    """Yields the server of forks, the prepared folder, and the digests of a run that nothing disturbs."""
    forks = commands.Forks()
    try:
        prepared = recipe(work / "prepared", forks)
        whole = work / "whole"
        shutil.copytree(prepared, whole)
        code, _, error = forks.run(whole, *TRAIN)
        assert code == 0, error
        yield forks, prepared, digests(whole)
    finally:
        forks.end()


def kills(work: pathlib.Path, tries: int, seed: int) -> Report:
    """SIGKILL at random moments, again and again until the run ends; it must end with the same bits."""
    report, choose = Report(), random.Random(seed)
    with tiny(work) as (forks, prepared, wanted):
        while report.tried < tries:
            shutil.rmtree(work / "run", ignore_errors=True)
            shutil.copytree(prepared, work / "run")
            here, code = 0, -9
            while code != 0 and here < 25:
                moment = (choose.uniform(0.2, 3.5), signal.SIGKILL) if here < 24 else None
                code, _, error = forks.run(work / "run", *TRAIN, "--gin.CHECKPOINT_EVERY=1", kill=moment)
                if code not in (0, -9):
                    report.fail(f"exit code {code}: {error[-200:]}")
                    break
                here += code == -9
            same = code == 0 and digests(work / "run") == wanted
            for _ in range(here):
                report.survive("same bits") if same else report.fail(f"other bits after {here} kills")
    return report


def terminations(work: pathlib.Path, tries: int, seed: int) -> Report:
    """SIGTERM at random moments: exit code 75 with what was done saved, or the end; then the same bits."""
    report, choose = Report(), random.Random(seed)
    with tiny(work) as (forks, prepared, wanted):
        while report.tried < tries:
            shutil.rmtree(work / "run", ignore_errors=True)
            shutil.copytree(prepared, work / "run")
            here = 0
            while True:
                kill = (choose.uniform(0.2, 3.5), signal.SIGTERM) if here < 20 else None
                code, _, error = forks.run(work / "run", *TRAIN, kill=kill)
                if code == 0:
                    break
                here += 1
                if not commands.is_one_line(code, error) or code != 75:
                    report.fail(f"exit code {code}: {error[-200:]}")
                    break
            same = code == 0 and digests(work / "run") == wanted
            for _ in range(here if code == 0 else here - 1):
                report.survive("stopped with 75, same bits") if same else report.fail("other bits")
    return report


FAILPOINTS = (
    "checkpoint.after_device_to_host",
    "checkpoint.before_manifest",
    "checkpoint.after_manifest",
    "checkpoint.before_delete",
)


def saves(work: pathlib.Path, tries: int, seed: int) -> Report:
    """SIGKILL at the named points of saving."""
    report = Report()
    with tiny(work) as (forks, prepared, wanted):
        for number in range(tries):
            shutil.rmtree(work / "run", ignore_errors=True)
            shutil.copytree(prepared, work / "run")
            point = FAILPOINTS[(seed + number) % len(FAILPOINTS)]
            few = ("--gin.loop.Schedule.keep_last=1",) if point.endswith("delete") else ()
            code, _, error = forks.run(work / "run", *TRAIN, *few, EMBED_FAIL_AT=point)
            again, _, error = forks.run(work / "run", *TRAIN, *few)
            left = list((work / "run" / "run" / "checkpoints").glob("*tmp*"))
            if code == -9 and again == 0 and digests(work / "run") == wanted and not left:
                report.survive("same bits")
            else:
                report.fail(f"{point}: exit codes {code} and {again}: {error[-200:]}")
    return report


def disk(work: pathlib.Path, tries: int, seed: int) -> Report:
    """Files may have so many bytes at most, as on a full disk: exit code 74 and, with room again, the same bits."""
    report, choose = Report(), random.Random(seed)
    program = (
        "import resource, sys; n = int(sys.argv[1]); resource.setrlimit(resource.RLIMIT_FSIZE, (n, n)); import signal;"
    )
    program += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); from embed.commands.main import main; main(sys.argv[2:])"
    with tiny(work) as (forks, prepared, wanted), tempfile_cache() as cache:
        for _ in range(tries):
            shutil.rmtree(work / "run", ignore_errors=True)
            shutil.copytree(prepared, work / "run")
            limit = int(2 ** choose.uniform(6, 17))
            environment = {**os.environ, **cache, "GLIBC_TUNABLES": "", "PYTHONPATH": str(TESTS.parent)}
            done = subprocess.run(
                [sys.executable, "-c", program, str(limit), *TRAIN],
                cwd=work / "run",
                env=environment,
                capture_output=True,
                text=True,
            )
            steps = files.committed_steps(work / "run" / "run" / "checkpoints")
            again, _, error = forks.run(work / "run", *TRAIN)
            is_refused = done.returncode == 74 and commands.is_one_line(74, done.stderr)
            is_right = is_refused or (done.returncode == 0 and steps[-1:] == [12])
            if is_right and again == 0 and digests(work / "run") == wanted:
                report.survive("refused, then the same bits" if done.returncode else "no limit was met")
            else:
                report.fail(
                    f"{limit} bytes: exit codes {done.returncode} and {again}: {done.stderr[-200:]} {error[-100:]}"
                )
    return report


@contextlib.contextmanager
def tempfile_cache():
    """Yields the variables of a folder for compiled programs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        yield {"EMBED_COMPILATION_CACHE": folder}


PHASES = {
    "start": "hosts.joined",
    "compile": "train.before_compile",
    "step": "train.after_step_6",
    "barrier": "hosts.before_barrier_3",
    "save": "checkpoint.after_device_to_host",
    "restore": "checkpoint.before_restore",
}
FAULTS = [(phase, kind, rank) for phase in PHASES for kind in ("KILL", "STOP") for rank in (1, 0)]
NOTICED = 45.0  # seconds


def _is_stopped(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:  # it has ended
        return False


class Hosts:
    """Two hosts that train together: each command is a fork of a server of its own."""

    def __init__(self):
        self._servers = [commands.Forks(), commands.Forks()]

    def run(self, folder: pathlib.Path, faulty: int | None = None, point: str = ""):
        """Runs both to their end. Returns [(exit code, stderr, the second it ended at)]; the `faulty` one fails at `point`.

        A host that was stopped is killed when the other has ended.
        """
        common = {
            "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{conftest.free_port()}",
            "JAX_NUM_PROCESSES": "2",
            "JAX_PLATFORMS": "cpu",
        }
        ends: list = [None, None]

        def one(rank: int) -> None:
            own = {"JAX_PROCESS_ID": str(rank), **({"EMBED_FAIL_AT": point} if rank == faulty else {})}
            code, _, error = self._servers[rank].run(folder, *TRAIN, **common, **own)
            ends[rank] = (code, error, time.monotonic())

        threads = [threading.Thread(target=one, args=(rank,)) for rank in (0, 1)]
        for thread in threads:
            thread.start()
        stopped = None
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.05)
            pid = None if faulty is None else self._servers[faulty].pid
            if pid is None:
                continue
            if stopped is None and _is_stopped(pid):
                stopped = time.monotonic()
            if stopped is not None and (not threads[1 - faulty].is_alive() or time.monotonic() - stopped > 3 * NOTICED):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if stopped is not None:
            ends[faulty] = (*ends[faulty][:2], stopped)
        return ends

    def end(self) -> None:
        """Ends the servers."""
        for server in self._servers:
            server.end()


def two_hosts(work: pathlib.Path, tries: int, seed: int) -> Report:
    """One of two hosts is killed or stopped in a phase of a run: the other ends soon; both started again, the same bits."""
    report, hosts = Report(), Hosts()
    slowest = 0.0
    try:
        prepared = work / "prepared"
        forks = commands.Forks()
        recipe(prepared, forks)
        forks.end()
        for name in ("whole", "begun"):
            shutil.copytree(prepared, work / name)
        ends = hosts.run(work / "whole")
        assert [code for code, _, _ in ends] == [0, 0], ends
        wanted = digests(work / "whole")
        # A run with a checkpoint, for what fails when it goes on.
        hosts.run(work / "begun", 1, "train.after_step_6")
        assert files.committed_steps(work / "begun" / "run" / "checkpoints") == [4]
        for number in range(tries):
            phase, kind, rank = FAULTS[(seed + number) % len(FAULTS)]
            shutil.rmtree(work / "run", ignore_errors=True)
            shutil.copytree(work / "begun" if phase == "restore" else prepared, work / "run")
            ends = hosts.run(work / "run", rank, f"{PHASES[phase]}:{kind}")
            (victim, _, began), (code, error, ended) = ends[rank], ends[1 - rank]
            again = hosts.run(work / "run")
            slowest = max(slowest, ended - began)
            # JAX ends a process itself, within a second and without a line of ours, when the host that all met at is gone.
            by_jax = code == -signal.SIGABRT and rank == 0
            if (
                victim == -signal.SIGKILL
                and (by_jax or (code == 75 and commands.is_one_line(code, error)))
                and ended - began < NOTICED
                and [code for code, _, _ in again] == [0, 0]
                and digests(work / "run") == wanted
            ):
                report.survive(f"{'ended by JAX' if by_jax else 'said in a line'}, the same bits")
            else:
                report.fail(
                    f"{phase} {kind} of host {rank}: {victim}, {code} after {ended - began:.0f} s, then "
                    f"{[code for code, _, _ in again]}: {error[-300:]}"
                )
    finally:
        hosts.end()
    report.outcomes[f"slowest after {slowest:.0f} s"] = 1
    return report


def corruptions(work: pathlib.Path, tries: int, seed: int) -> Report:
    """One damage of one file of everything that commands write: an error, or the right values."""
    report = Report()
    with pytest.MonkeyPatch().context() as patch, tiny(work) as (forks, _, _):
        cases = corruption_cases(work, forks, patch)
        for number in range(tries):
            case = cases[number % len(cases)]
            try:
                report.survive(corruption.trial(case, work / "damaged", seed * 10**6 + number))
            except AssertionError as e:
                report.fail(str(e))
    return report


def corruption_cases(work: pathlib.Path, forks: commands.Forks, patch) -> list[corruption.Case]:
    """Returns the cases: what is written, and how it is read."""
    (work / "made").mkdir()
    made = loaded("inference/test_corruption.py")
    cases = made.encode_cases(work / "made") + made.mine_cases(work / "made", patch)
    whole = work / "whole"
    for words in (
        ("average", "run", "--last=2", "--output=model"),
        ("average", "run", "--last=1", "--output=other"),
        ("export", "model", "packed", "--format=bundle", "--quantization=int8_blocks"),
        ("index", "model", "--corpus=corpus.jsonl", "--output=index"),
    ):
        if words[0] == "index":
            rows = [{"id": str(i), "text": f"red river {i}"} for i in range(40)]
            (whole / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        code, _, error = forks.run(whole, *words)
        assert code == 0, error

    def listed(folder: pathlib.Path, names) -> dict[str, bytes]:
        return {name: (folder / name).read_bytes() for name in names}

    def bundle(folder: pathlib.Path):
        values = arrays.load_numpy(folder)
        manifest = files.verify_manifest(folder)
        return bundles.read_model_json(folder), listed(folder, manifest["files"]), str(values)

    def step(folder: pathlib.Path):
        manifest = files.verify_manifest(folder)
        return listed(folder, manifest["files"]), str(arrays.load_numpy(folder, "opt_state"))

    def cache(folder: pathlib.Path):
        from embed.data.cache import Cache

        opened = Cache(folder, files.verify_manifest(folder))
        rows = opened.read(range(len(opened)))
        return [{name: value.tolist() for name, value in row.items()} for row in rows]

    def index(folder: pathlib.Path):
        from embed.index.store import open_index

        opened = open_index(folder)
        nearest = opened.search(np.ones((1, 256), np.float32) / 16, 5)
        return str(nearest), [opened.row(number) for _, number in nearest[0]]

    caches = sorted(p.parent for p in (whole / "data").glob("*/MANIFEST.json"))
    checkpoints = whole / "run" / "checkpoints"
    wanted = {
        "bundle": (whole / "model", bundle, whole / "other"),
        "packed bundle": (whole / "packed", bundle, whole / "other"),
        "checkpoint": (checkpoints / "12", step, checkpoints / "8"),
        "token cache": (caches[0], cache, caches[1]),
        "index": (whole / "index", index, whole / "model"),
    }
    cases += [
        corruption.Case(name, folder, folder, None, read, other) for name, (folder, read, other) in wanted.items()
    ]
    return cases


def bad_words(work: pathlib.Path, tries: int, seed: int) -> Report:
    """Wrong options, wrong bindings of gin, wrong fields of JSON files: one line that says what and where, or work well done."""
    report = Report()
    module = loaded("commands/test_bad_inputs.py")
    forks = commands.Forks()
    try:
        folder = recipe(work / "folder", forks)
        rows = [{"query": f"red river {i}", "positive": f"deep stone {i}"} for i in range(12)]
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        texts = [json.dumps({"id": str(i), "text": r["query"]}) + "\n" for i, r in enumerate(rows)]
        (folder / "texts.jsonl").write_text("".join(texts))
        make_suite(folder, rows)
        for words in (
            ("train", "--gin_file=tiny.gin", "--run_dir=run", "--gin.TRAIN_STEPS=2"),
            ("average", "run", "--output=model"),
            ("export", "model", "exported"),
            ("export", "model", "program", "--format=stablehlo"),
            ("encode", "model", "--input=texts.jsonl", "--output=encoded", "--format=npy", "--shard_size=5"),
            ("evaluate", "model", "--suite=suite.json", "--output=scores", "--vectors=off"),
        ):
            code, _, error = forks.run(folder, *words)
            assert code == 0, error
    finally:
        forks.end()
    os.environ.setdefault("EMBED_COMPILATION_CACHE", str(work / "programs"))
    cases = [*bad_inputs.of_options(), *bad_inputs.of_gin(), *module.of_files(folder)]
    random.Random(seed).shuffle(cases)
    for case in cases[:tries]:
        problem = module.check(case, folder, work / "copy")
        report.survive("one line" if case.is_bad else "one line, or done") if problem is None else report.fail(problem)
    return report


def make_suite(folder: pathlib.Path, rows: list[dict]) -> None:
    """Writes suite.json with a retrieval and an STS task."""
    (folder / "dev").mkdir()
    for name, field in (("queries", "query"), ("corpus", "positive")):
        lines = [json.dumps({"id": str(i), "text": row[field]}) + "\n" for i, row in enumerate(rows)]
        (folder / "dev" / f"{name}.jsonl").write_text("".join(lines))
    judged = "".join(f"{i}\t{i}\t1\n" for i in range(len(rows)))
    (folder / "dev" / "qrels.tsv").write_text(f"query-id\tcorpus-id\tscore\n{judged}")
    (folder / "sts.tsv").write_text(
        "sentence1\tsentence2\tscore\nred river\tred river\t5\ngreen stone\tslow north\t1\n"
    )
    tasks = [
        {"name": "pairs", "type": "retrieval", "path": "dev"},
        {"name": "similar", "type": "sts", "path": "sts.tsv"},
    ]
    (folder / "suite.json").write_text(json.dumps({"name": "small", "tasks": tasks}))


def cut_data(work: pathlib.Path, tries: int, seed: int) -> Report:
    """Files of records that are cut at a random byte: a DataError that names the file, or all of the records.

    Of tab-separated lines nobody can tell whether the last cell is whole.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    from embed import sources

    rows = [{"query": f"red river {i} é", "target": f"deep stone {i}"} for i in range(200)]
    text = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (work / "a.jsonl").write_bytes(text)
    (work / "b.jsonl.gz").write_bytes(gzip.compress(text))
    pq.write_table(pa.Table.from_pylist(rows), work / "d.parquet")
    readers = {
        "a.jsonl": lambda p: sources.JsonLines(str(p)),
        "b.jsonl.gz": lambda p: sources.JsonLines(str(p)),
        "d.parquet": lambda p: sources.Parquet(str(p)),
    }
    report, choose = Report(), random.Random(seed)
    for number in range(tries):
        name = list(readers)[number % len(readers)]
        content = (work / name).read_bytes()
        (work / "cut").mkdir(exist_ok=True)
        path = work / "cut" / name
        at = choose.randrange(len(content))
        path.write_bytes(content[:at])
        try:
            read = [record for _, record in readers[name](path).examples()]
        except EmbedError as e:
            named = name in str(e) and "\n" not in str(e)
            report.survive("refused") if named else report.fail(f"{name} at {at}: {e}")
        except Exception as e:
            report.fail(f"{name} at {at}: raw {type(e).__name__}: {e}")
        else:
            # A file of lines that ends with a whole line is a file of fewer records, which nobody can tell.
            whole_lines = name == "a.jsonl" and content[at - 1 : at + 1].find(b"\n") >= 0
            complete = [r["query"] for r in read] == [r["query"] for r in rows[: len(read)]]
            is_right = complete and (len(read) == len(rows) or whole_lines)
            report.survive("whole lines") if is_right else report.fail(
                f"{name} at {at}: {len(read)} records without an error"
            )
    return report


_BAD_UTF8 = (
    b"\xff",
    b"\xc0\xaf",
    b"\xe2\x28\xa1",
    b"\xed\xa0\x80",
    b"\xf5\x80\x80\x80",
    b"\x80",
    b"\xe2\x82",
    b"\xf0\x9f\x98",
)


def bad_utf8(work: pathlib.Path, tries: int, seed: int) -> Report:
    """Bytes that are no UTF-8, and lone surrogates and NULs in JSON, at random places of texts."""
    from embed import sources

    report, choose = Report(), random.Random(seed)
    escapes = (b"\\ud800", b"\\udfff", b"\\ud83d\\ud83d")
    for number in range(tries):
        rows = [json.dumps({"query": f"red river {i}", "target": f"deep stone {i}"}).encode() for i in range(20)]
        line = choose.randrange(20)
        wrong = choose.choice(_BAD_UTF8 if number % 3 else escapes)
        offset = rows[line].index(b"red") + choose.randrange(4)
        rows[line] = rows[line][:offset] + wrong + rows[line][offset:]
        (work / "x.jsonl").write_bytes(b"\n".join(rows) + b"\n")
        try:
            list(sources.JsonLines(str(work / "x.jsonl")).examples())
            report.fail(f"{wrong!r} was read")
        except EmbedError as e:
            right = f"x.jsonl:{line + 1}" in str(e) and "\n" not in str(e)
            report.survive("refused with its line") if right else report.fail(f"{wrong!r}: {e}")
        except Exception as e:
            report.fail(f"{wrong!r}: raw {type(e).__name__}: {e}")
    return report


def writers(work: pathlib.Path, tries: int, seed: int) -> Report:
    """Two processes that train in the same folder at once: one of them is refused, and the other ends."""
    report, choose = Report(), random.Random(seed)
    with tiny(work) as (forks, prepared, wanted):
        second = commands.Forks()
        try:
            for _ in range(tries):
                shutil.rmtree(work / "run", ignore_errors=True)
                shutil.copytree(prepared, work / "run")
                ended: list = [None, None]

                def run(number, server, ended=ended):
                    ended[number] = server.run(work / "run", *TRAIN)

                threads = [threading.Thread(target=run, args=(i, s)) for i, s in enumerate((forks, second))]
                for thread in threads:
                    thread.start()
                    time.sleep(choose.uniform(0, 0.5))
                for thread in threads:
                    thread.join()
                codes = sorted(code for code, _, _ in ended)
                refused = [error for code, _, error in ended if code == 74 and "in use by" in error]
                done = [out for code, out, _ in ended if code == 0]
                right = (codes == [0, 74] and refused) or (
                    codes == [0, 0] and any("nothing is written" in out for out in done)
                )
                if right and digests(work / "run") == wanted:
                    report.survive("one refused" if refused else "one after the other")
                else:
                    report.fail(f"exit codes {codes}: {[error[-100:] for _, _, error in ended]}")
        finally:
            second.end()
    return report


_OF_A_MODEL = (
    "pytorch_model.bin",
    "model.safetensors",
    "model.pt",
    "weights.pkl",
    "model.ckpt",
    "params.npz",
    "tokenizer.json",
    "config.json",
    "modules.json",
    "tokenizer.model",
)
_CODE = (
    "import os; os.system('touch CANARY')",
    "__import__('os').system('touch CANARY')",
    "!!python/object/apply:os.system",
)


class Canary:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


def malicious_files(folder: pathlib.Path, canary: pathlib.Path):
    """Yields (name, command line, change of `folder`): files that would do something when they are read."""
    payload = pickle.dumps(Canary(canary))
    array = io.BytesIO()
    np.save(array, np.array([Canary(canary)], dtype=object), allow_pickle=True)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
        archive.writestr("params.npy", array.getvalue())
    old = pickle.dumps(Canary(canary), protocol=0)
    contents = {"pickle": payload, "old pickle": old, "gzip of a pickle": gzip.compress(payload)}
    contents |= {"npy of objects": array.getvalue(), "zip with a pickle": zipped.getvalue()}
    for kind, content in contents.items():
        for name in _OF_A_MODEL:

            def change(work, name=name, content=content):
                for weights in (work / "exported").glob("model.safetensors"):
                    weights.unlink()
                (work / "exported" / name).write_bytes(content)

            yield f"{kind} as {name} of a model to convert", ("convert", "exported", "OUT"), change
        for name in ("model.json", "tokenizer.model", "params/_METADATA", "params/manifest.ocdbt"):

            def change(work, name=name, content=content):
                (work / "model" / name).write_bytes(content)
                corruption.recommit(work / "model")

            yield f"{kind} as {name} of a bundle", ("search", "model", "red", "--corpus=texts.jsonl"), change
        for name in ("job.json", "part-00000.npy", "part-00000.json"):

            def change(work, name=name, content=content):
                (work / "encoded" / name).write_bytes(content)

            words = ("encode", "model", "--input=texts.jsonl", "--output=encoded", "--format=npy", "--shard_size=5")
            yield f"{kind} as {name} of vectors", words, change
        for name in ("texts.jsonl", "texts.jsonl.gz"):

            def change(work, name=name, content=content):
                (work / name).write_bytes(content)

            yield f"{kind} as {name}", ("encode", "model", f"--input={name}", "--output=OUT"), change
    for number, header in enumerate(
        (
            {"x": {"dtype": "F32", "shape": [2**62, 4], "data_offsets": [0, 16]}},
            {"x": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
            {n: {"dtype": "F32", "shape": [1], "data_offsets": [at, at + 4]} for n, at in (("x", 0), ("y", 2))},
            {"x": {"dtype": "F32", "shape": [1], "data_offsets": [8, 4]}},
            {"x": {"dtype": "X9", "shape": [1], "data_offsets": [0, 4]}},
            {"../../x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        )
    ):
        encoded = json.dumps(header).encode()
        for size in (len(encoded), 2**63, 2**40, 0):
            damaged = struct.pack("<Q", size) + encoded + b"\0" * 16

            def change(work, content=damaged):
                (work / "exported" / "model.safetensors").write_bytes(content)

            yield f"safetensors header {number} of size {size}", ("convert", "exported", "OUT"), change
    members = {
        "dotdot": ("../../escaped", tarfile.REGTYPE, ""), "absolute": (str(canary), tarfile.REGTYPE, ""),
        "symlink": ("a.jpg", tarfile.SYMTYPE, "/etc/passwd"), "hardlink": ("a.jpg", tarfile.LNKTYPE, "/etc/passwd"),
        "device": ("a.jpg", tarfile.CHRTYPE, ""), "fifo": ("a.jpg", tarfile.FIFOTYPE, ""),
    }  # fmt: skip
    for kind, (name, type_, link) in members.items():
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            member = tarfile.TarInfo(name)
            member.type, member.linkname, member.size = type_, link, 4 if type_ == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"data") if type_ == tarfile.REGTYPE else None)
        packed = content.getvalue()
        for path in ("shard.tar", "pics/shard.tar"):

            def change(work, path=path, content=packed):
                (work / path).parent.mkdir(exist_ok=True)
                (work / path).write_bytes(content)

            yield f"tar with a {kind} at {path}", ("tar", path), change
    for text in _CODE:
        for name in ("exported/config.json", "exported/modules.json", "model/model.json", "suite.json", "texts.jsonl"):
            score = ("evaluate", "model", "--suite=suite.json", "--output=OUT")
            of_folder = {
                "exported": ("convert", "exported", "OUT"),
                "model": ("search", "model", "red", "--corpus=texts.jsonl"),
            }
            words = of_folder.get(name.split("/")[0], score)

            def change(work, name=name, text=text):
                path = work / name
                with contextlib.suppress(ValueError):
                    value = json.loads(path.read_text().splitlines()[0] if name.endswith("l") else path.read_text())
                    first = next(iter(value)) if isinstance(value, dict) else 0
                    value[first] = text.replace("CANARY", str(canary))
                    path.write_text(json.dumps(value))
                if name.startswith("model/"):
                    corruption.recommit(work / "model")

            yield f"{text[:20]} in {name}", words, change
    for field in ("auto_map", "architectures", "trust_remote_code", "_name_or_path", "custom_pipelines"):

        def change(work, field=field):
            path = work / "exported" / "config.json"
            value = json.loads(path.read_text())
            value[field] = {"AutoModel": "evil.Model"} if field == "auto_map" else ["evil.Model"]
            path.write_text(json.dumps(value))
            (work / "exported" / "evil.py").write_text(f"open({str(canary)!r}, 'w')")

        yield f"code beside a model by {field}", ("convert", "exported", "OUT"), change


def malicious(work: pathlib.Path, tries: int, seed: int) -> Report:
    """Files that would run code or write elsewhere: nothing is run, nothing is written outside, and an error has one line."""
    report, forks = Report(), commands.Forks()
    folder = recipe(work / "folder", forks)
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": f"red river {i}"}) + "\n" for i in range(12)))
    make_suite(folder, [{"query": f"red {i}", "positive": f"stone {i}"} for i in range(6)])
    for words in (
        ("train", "--gin_file=tiny.gin", "--run_dir=run", "--gin.TRAIN_STEPS=2"),
        ("average", "run", "--output=model"),
        ("export", "model", "exported"),
        ("encode", "model", "--input=texts.jsonl", "--output=encoded", "--format=npy", "--shard_size=5"),
    ):
        code, _, error = forks.run(folder, *words)
        assert code == 0, error
    forks.end()
    os.environ.setdefault("EMBED_COMPILATION_CACHE", str(work / "programs"))
    canary = work / "canary"
    cases = list(malicious_files(folder, canary))
    random.Random(seed).shuffle(cases)
    for name, words, change in cases[:tries]:
        inside = work / "inside"
        shutil.rmtree(inside, ignore_errors=True)
        shutil.copytree(folder, inside)
        change(inside)
        before = sorted(p for p in work.rglob("*") if inside not in p.parents and work / "programs" not in p.parents)
        try:
            if words[0] == "tar":
                from embed import sources

                with contextlib.chdir(inside):
                    list(sources.TarShards(words[1]).examples())
                code, error = 0, ""
            else:
                with contextlib.chdir(inside):
                    code, _, error = commands.here([word.replace("OUT", "new") for word in words])
        except EmbedError as e:
            code, error = e.exit_code, f"embed: {e}"
        except Exception as e:
            report.fail(f"{name}: raw {type(e).__name__}: {e}")
            continue
        after = sorted(p for p in work.rglob("*") if inside not in p.parents and work / "programs" not in p.parents)
        if canary.exists() or after != before:
            report.fail(f"{name}: ran or escaped")
            canary.unlink(missing_ok=True)
        elif code and not commands.is_one_line(code, error):
            report.fail(f"{name}: exit code {code}: {error[-200:]}")
        else:
            report.survive("refused" if code else "read as data")
    return report


def parsers(work: pathlib.Path, tries: int, seed: int) -> Report:
    """Bytes that were changed at random, given to the parsers: a value or an error of one line, within two GB."""
    report = Report()
    fuzz.run(work, tries, seed, report)
    return report


def requests(work: pathlib.Path, tries: int, seed: int) -> Report:
    """Malformed requests to `embed serve`."""
    report = Report()
    with tiny(work) as (forks, _, _):
        code, _, error = forks.run(work / "whole", "average", "run", "--last=1", "--output=model")
        assert code == 0, error
    http_requests.run(work / "whole" / "model", tries, seed, report)
    return report


ROWS = [
    Row("kills", "SIGKILL at random moments of a run", "the same bits after going on", 1000, kills),
    Row("saves", "SIGKILL at the named points of saving", "the same bits, nothing left behind", 100, saves),
    Row("terms", "SIGTERM at random moments of a run", "exit code 75, then the same bits", 100, terminations),
    Row("disk", "files of a run reach a limit of size", "exit code 74 in one line, then the same bits", 50, disk),
    Row(
        "hosts",
        "one of two hosts killed or stopped in a phase of a run",
        "the other ends within 45 s; both started again, the same bits",
        24,
        two_hosts,
    ),
    Row("writers", "two processes train in one folder at once", "one is refused", 50, writers),
    Row(
        "corruptions",
        "one damage to one file that commands wrote",
        "an error of one line, or the right values",
        10_000,
        corruptions,
    ),
    Row(
        "words",
        "wrong options, bindings of gin, fields of JSON",
        "an error of one line, or work well done",
        1000,
        bad_words,
    ),
    Row("cuts", "files of records cut at a random byte", "an error that names the file", 200, cut_data),
    Row("utf8", "bytes that are no UTF-8 in records", "an error that names the line", 100, bad_utf8),
    Row("malicious", "files that would run code or write elsewhere", "nothing runs or escapes", 150, malicious),
    Row(
        "fuzz", "bytes changed at random, given to the parsers", "a value, or an error of one line", 10_000_000, parsers
    ),
    Row("http", "malformed requests to the server", "a planned answer, memory that stays", 10_000, requests),
]
