"""Where claims are tried: command lines run once each, in folders named by a digest of all that decides what they leave."""

import dataclasses
import functools
import pathlib
import shlex
import string
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from embed import config, files
from embed.commands.claims import Claim
from embed.errors import DataError

DONE, LOG = "done.json", "log.txt"


def digest(lines: Sequence[str], made: Mapping[str, str]) -> str:
    """Returns the digest of lines before anything is filled in.

    It is of their words, the gin files and scripts they name, and the digests `made` of what they use.
    """
    words = [word for line in lines for word in shlex.split(line)]
    gin_files = [w.partition("=")[2] for w in words if w.startswith("--gin_file=")]
    scripts = [script for line in lines if (script := _script(shlex.split(line)))]
    used = sorted({p for line in lines for p in string.Template(line).get_identifiers()} & made.keys())
    read = [config.digest([f]) for f in gin_files] + [files.sha256_file(_found(s)) for s in scripts]
    return files.digest_json([list(lines), read, [[name, made[name]] for name in used]])[:12]


def _script(words: Sequence[str]) -> str | None:
    """Returns the script of a line `python SCRIPT ...`, None for a line of `embed`."""
    return words[1] if len(words) > 1 and words[0] == "python" else None


def _found(script: str) -> pathlib.Path:
    """Returns the script's path, here or in the repository."""
    for folder in config.search_paths():
        if (folder / script).is_file():
            return folder / script
    raise DataError(f"{script}: no such script; correct the claim")


def _command(line: str) -> list[str]:
    words = shlex.split(line)
    script = _script(words)
    return [sys.executable, *(["-m", "embed", *words] if script is None else [str(_found(script)), *words[2:]])]


@dataclasses.dataclass(frozen=True)
class Bench:
    """Runs the lines of `claim` in `folder`, which all claims share: one arm of two claims is run once."""

    claim: Claim
    folder: pathlib.Path
    given: Mapping[str, str]
    name: str

    @functools.cached_property
    def made(self) -> dict[str, str]:
        """The digests of what is prepared, by name."""
        found: dict[str, str] = {}
        for name, lines in self.claim.prepared.items():
            found[name] = digest(lines, found)
        return found

    @functools.cached_property
    def keys(self) -> dict[str, str]:
        """The digests of all that decides the models of the arms, but the seed."""
        found: dict[str, str] = {}
        for arm, lines in self.claim.arms.items():
            found[arm] = digest(lines, {**self.made, **found})
        return found

    def prepare(self) -> None:
        """Prepares what the claim names, where it is not there."""
        for name, lines in self.claim.prepared.items():
            run = self._made_folder(name)
            self._lines(f"preparing {name}", lines, run, {"run": str(run), "model": str(run / "model")})

    def score(self, arm: str, seed: int) -> tuple[dict, float]:
        """Returns the results of `embed evaluate` for one arm with one seed, and how many seconds all of it took."""
        run = self._run(arm, seed)
        claim = self.claim
        options = "".join(
            f" --{option}={','.join(map(str, values))}"
            for option, values in (("dims", claim.dims), ("tasks", claim.tasks))
            if values
        )
        scores = run / f"scores-{files.digest_json([claim.suite, options])[:12]}"
        line = f"evaluate model=$model --suite={claim.suite} --output=$run/{scores.name}/told --vectors=off{options}"
        self._lines(f"{arm}, seed {seed}", [line], scores, self._places(run, seed))
        return files.read_json(scores / "told" / "results.json"), _seconds(run) + _seconds(scores)

    def _run(self, arm: str, seed: int) -> pathlib.Path:
        """Returns the folder of an arm with a seed, after running its lines, and those of the arms it names."""
        lines = self.claim.arms[arm]
        named = {p for line in lines for p in string.Template(line).get_identifiers()} & self.claim.arms.keys()
        others = {name: str(self._run(name, seed)) for name in sorted(named)}
        run = self.folder / "arms" / self.keys[arm] / str(seed)
        self._lines(f"{arm}, seed {seed}", lines, run, {**others, **self._places(run, seed)})
        return run

    def _places(self, run: pathlib.Path, seed: int) -> dict[str, str]:
        return {"run": str(run), "model": str(run / "model"), "seed": str(seed)}

    def _made_folder(self, name: str) -> pathlib.Path:
        return self.folder / "prepared" / f"{name}-{self.made[name]}"

    def _lines(self, what: str, lines: Sequence[str], folder: pathlib.Path, places: Mapping[str, str]) -> None:
        """Runs the command lines that were not run to their end before; each must end without an error."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / DONE
        done = files.read_json(path)["lines"] if path.is_file() else []
        made = {name: str(self._made_folder(name)) for name in self.claim.prepared}
        wanted = [string.Template(line).substitute({**self.given, **made, **places}) for line in lines]
        for line in wanted[len(done) :]:
            shown = line if line.startswith("python ") else f"embed {line}"
            print(f"{self.name}: {what}: {shown}", flush=True)
            began = time.time()
            with open(folder / LOG, "a", encoding="utf-8") as log:
                log.write(f"\n$ {shown}\n")
                log.flush()
                code = subprocess.run(_command(line), stdout=log, stderr=subprocess.STDOUT, check=False).returncode
            if code:
                last = (folder / LOG).read_text(encoding="utf-8").strip().splitlines()[-1]
                raise DataError(f"{self.name}: {what}: `{shown}` ended with {code}: {last} (all of it: {folder}/{LOG})")
            done.append({"line": line, "seconds": round(time.time() - began, 1)})
            files.write_json(path, {"lines": done})


def _seconds(folder: pathlib.Path) -> float:
    path = folder / DONE
    return sum(line["seconds"] for line in files.read_json(path)["lines"]) if path.is_file() else 0.0
