"""Where claims are tried: their lines run once each, in folders named by a digest of all that decides what they leave."""

import dataclasses
import functools
import pathlib
import shlex
import string
from collections.abc import Mapping, Sequence

from embed import config, documents, files
from embed.workflows import command_lines
from embed.workflows.claims import Claim


def digest(lines: Sequence[str], folders: Mapping[str, str]) -> str:
    """Returns the digest of lines before anything is filled in.

    It is of their words, the gin files and scripts they name, and the digests `made` of what they use.
    """
    split = [shlex.split(line) for line in lines]
    gin_files = [w.partition("=")[2] for words in split for w in words if w.startswith("--gin_file=")]
    scripts = [script for words in split if (script := command_lines.script_of(words))]
    used = sorted(named_in(lines) & folders.keys())
    read = [config.digest([f]) for f in gin_files] + [files.sha256_file(s) for s in scripts]
    return documents.digest_json([list(lines), read, [[name, folders[name]] for name in used]])[:12]


def digest_given(given: Mapping[str, str]) -> dict[str, str]:
    """Returns the digests of what the user gave: of a model's content, of the names and sizes of files of data and pictures."""
    digests = {}
    for name, path in given.items():
        folder = pathlib.Path(path)
        if not folder.is_dir():
            digests[name] = path  # a name on the Hub
            continue
        inside = sorted(p for p in folder.rglob("*") if p.is_file())
        contents = [p.stat().st_size if name != "source" else files.sha256_file(p) for p in inside]
        digests[name] = documents.digest_json(
            [[str(p.relative_to(folder)), content] for p, content in zip(inside, contents)]
        )[:12]
    return digests


def named_in(lines: Sequence[str]) -> set[str]:
    """Returns the $names that lines hold."""
    return {name for line in lines for name in string.Template(line).get_identifiers()}


@dataclasses.dataclass(frozen=True)
class Bench:
    """Runs the lines of `claim` in `folder`, which all claims share: one arm of two claims is run once.

    `given` are the places of what the user gave, `digests` what they hold.
    """

    claim: Claim
    folder: pathlib.Path
    given: Mapping[str, str]
    digests: Mapping[str, str]
    name: str

    @functools.cached_property
    def made(self) -> dict[str, str]:
        """The digests of what is prepared, by name."""
        folders: dict[str, str] = {}
        for name, lines in self.claim.prepared.items():
            folders[name] = digest(lines, {**self.digests, **folders})
        return folders

    @functools.cached_property
    def keys(self) -> dict[str, str]:
        """The digests of all that decides the models of the arms, but the seed."""
        digests: dict[str, str] = {}
        for arm, lines in self.claim.arms.items():
            digests[arm] = digest(lines, {**self.digests, **self.made, **digests})
        return digests

    @functools.cached_property
    def scoring(self) -> str:
        """The line that scores a model; all but $model, $run and what it is scored on."""
        claim = self.claim
        options = [("dims", ",".join(map(str, claim.dims))), ("tasks", ",".join(claim.tasks))]
        options += [("quantize", ",".join(claim.precisions))]
        more = "".join(f" --{option}={value}" for option, value in options if value)
        return f"evaluate model=$model --suite={claim.suite} --vectors=off{more}"

    def prepare(self) -> None:
        """Prepares what the claim names, where it is not there."""
        for name, lines in self.claim.prepared.items():
            run = self._made_folder(name)
            self._lines(f"preparing {name}", lines, run, {"run": str(run), "model": str(run / "model")})

    def score(self, arm: str, seed: int) -> tuple[dict, float]:
        """Returns the results of `embed evaluate` for one arm with one seed, and how many seconds all of it took."""
        run = self._run(arm, seed)
        scores = run / f"scores-{digest([self.scoring], self.digests)}"
        line = f"{self.scoring} --output=$run/{scores.name}/told"
        self._lines(f"{arm}, seed {seed}", [line], scores, self._own_places(run, seed))
        spent = command_lines.seconds(run) + command_lines.seconds(scores)
        return documents.read_json(scores / "told" / "results.json"), spent

    def _run(self, arm: str, seed: int) -> pathlib.Path:
        """Returns the folder of an arm with a seed, after running its lines, and those of the arms it names."""
        lines = self.claim.arms[arm]
        named = named_in(lines) & self.claim.arms.keys()
        others = {name: str(self._run(name, seed)) for name in sorted(named)}
        run = self.folder / "arms" / self.keys[arm] / str(seed)
        self._lines(f"{arm}, seed {seed}", lines, run, {**others, **self._own_places(run, seed)})
        return run

    def _own_places(self, run: pathlib.Path, seed: int) -> dict[str, str]:
        return {"run": str(run), "model": str(run / "model"), "seed": str(seed)}

    def _made_folder(self, name: str) -> pathlib.Path:
        return self.folder / "prepared" / f"{name}-{self.made[name]}"

    def _lines(self, what: str, lines: Sequence[str], folder: pathlib.Path, paths: Mapping[str, str]) -> None:
        """Runs lines with their places filled in, word by word: a place may hold blanks."""
        folders = {name: str(self._made_folder(name)) for name in self.claim.prepared}
        known = {**self.given, **folders, **paths}
        filled = [[string.Template(word).substitute(known) for word in shlex.split(line)] for line in lines]
        command_lines.run(f"{self.name}: {what}", filled, folder)
