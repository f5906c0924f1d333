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
    """Returns the digest of lines before anything is filled in: of their words, the gin files they name, and the digests
    `made` of what they use that was prepared."""
    words = [word for line in lines for word in shlex.split(line)]
    gin_files = [w.partition("=")[2] for w in words if w.startswith("--gin_file=")]
    used = {p for line in lines for p in string.Template(line).get_identifiers()} & made.keys()
    found = [list(lines), [config.digest([f]) for f in gin_files], {name: made[name] for name in used}]
    return files.digest_json(found)[:12]


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

    def key(self, arm: str) -> str:
        """Returns the digest of all that decides the models of an arm, but the seed."""
        return digest(self.claim.arms[arm], self.made)

    def prepare(self) -> None:
        """Prepares what the claim names, where it is not there."""
        for name, lines in self.claim.prepared.items():
            run = self._made_folder(name)
            self._lines(f"preparing {name}", lines, run, {"run": str(run), "model": str(run / "model")})

    def score(self, arm: str, seed: int) -> tuple[dict, float]:
        """Returns the results of `embed evaluate` for one arm with one seed, and how many seconds all of it took."""
        run = self.folder / "arms" / self.key(arm) / str(seed)
        places = {"run": str(run), "model": str(run / "model"), "seed": str(seed)}
        self._lines(f"{arm}, seed {seed}", self.claim.arms[arm], run, places)
        claim = self.claim
        options = "".join(
            f" --{option}={','.join(map(str, values))}"
            for option, values in (("dims", claim.dims), ("tasks", claim.tasks))
            if values
        )
        scores = run / f"scores-{files.digest_json([claim.suite, options])[:12]}"
        line = f"evaluate model=$model --suite={claim.suite} --output=$run/{scores.name}/told --vectors=off{options}"
        self._lines(f"{arm}, seed {seed}", [line], scores, places)
        return files.read_json(scores / "told" / "results.json"), _seconds(run) + _seconds(scores)

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
            print(f"{self.name}: {what}: embed {line}", flush=True)
            began = time.time()
            with open(folder / LOG, "a", encoding="utf-8") as log:
                log.write(f"\n$ embed {line}\n")
                log.flush()
                command = [sys.executable, "-m", "embed", *shlex.split(line)]
                code = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
            if code:
                last = (folder / LOG).read_text(encoding="utf-8").strip().splitlines()[-1]
                raise DataError(
                    f"{self.name}: {what}: `embed {line}` ended with {code}: {last} (all of it: {folder}/{LOG})"
                )
            done.append({"line": line, "seconds": round(time.time() - began, 1)})
            files.write_json(path, {"lines": done})


def _seconds(folder: pathlib.Path) -> float:
    path = folder / DONE
    return sum(line["seconds"] for line in files.read_json(path)["lines"]) if path.is_file() else 0.0
