"""Checkpoints into a soup, and a base and a tuned model into the best of both. Loads JAX where something is scored only."""

import functools
import pathlib
from collections.abc import Sequence

from embed import bundles, console, files
from embed.averaging import lineage, search, soup
from embed.errors import DataError, UsageError


def run(
    inputs: Sequence[str],
    output,
    *,
    method: str = "uniform",
    weights: Sequence[float] | None = None,
    alphas: Sequence[float] | None = None,
    suite=None,
    tasks: Sequence[str] | None = None,
    trials: int = 40,
    last: int | None = None,
    unrelated: bool = False,
    other_prompts: bool = False,
    several_hosts: bool = False,
) -> None:
    """Writes the average of the models `inputs` as the new bundle `output`.

    `method` is uniform, weighted (by `weights`, one an input), greedy or learned (by the scores of `tasks` of `suite`; `trials`
    averages at most), or interpolate: `alphas` are shares of the second of two inputs, and with several the best on `suite` is
    kept. `last` takes that many of a run folder's newest checkpoints. Models without a common ancestor are averaged only if
    `unrelated`, those with other prompts or text normalisation only if `other_prompts`. Of several hosts the main one writes.
    """
    output = pathlib.Path(output)
    files.check_new(output)
    folders = soup.expand(inputs, last)
    differences = soup.differences(folders, not other_prompts)  # before anything is scored
    if differences:
        raise DataError(f"the inputs cannot be averaged: {'; '.join(differences)}")
    _check(method, weights, alphas, suite, tasks, trials, len(folders))
    if not unrelated:
        lineage.check(folders)
    chosen, scores = _weights(folders, method, weights, alphas, suite, tasks, trials)
    if several_hosts:
        from embed import hosts

        hosts.sync("the weights are chosen")  # every host has seen that the output is new
        if not hosts.is_main():
            return
    _write(output, folders, chosen, method, scores, not other_prompts)


def _write(output: pathlib.Path, folders, weights, method: str, scores, same_texts: bool) -> None:
    for folder, weight in zip(folders, weights):
        print(f"{weight:.4f}  {folder}", flush=True)
    # Prompts, lengths and sizes are those of the tuned model, which knows more than its base.
    described = folders[-1] if method == "interpolate" else folders[0]
    description = bundles.read_model_json(described)
    lengths = [max(bundles.read_model_json(folder).get("lengths", {"": 0}).values()) for folder in folders]
    if len(set(lengths)) > 1:
        shown = ", ".join(map(str, dict.fromkeys(lengths)))
        print(
            f"note       the inputs cut texts at {shown} tokens; the average does at those of {described}", flush=True
        )
    for line in _quantization_notes(folders, description):
        print(f"note       {line}", flush=True)
    description["lineage"] = soup.lineage(folders, weights, method)
    contents = {**bundles.contents(description, *_tokenizer(described, description)), **scores}
    average = soup.Average(folders, weights, same_texts)
    soup.write(output, average, contents, console.progress_bar("averaging"))
    print(f"wrote {output}: {method} average of {len(folders)} checkpoints, digest {files.folder_digest(output)[:12]}")


def _tokenizer(folder, description: dict) -> tuple:
    """Returns the name and content of a model's tokenizer file; nothing of a model of images alone."""
    if "tokenizer" not in description:
        return ()
    path = bundles.tokenizer_file(folder)
    return path.name, path.read_bytes()


def _quantization_notes(folders, description: dict) -> list[str]:
    """Returns what to say of inputs that are quantised. The average of several is not, and is not described so."""
    names = [bundles.read_model_json(folder).get("quantization", {}).get("name") for folder in folders]
    if len(folders) == 1 or not any(names):
        return []
    description.pop("quantization", None)
    return [
        f"{', '.join(dict.fromkeys(filter(None, names)))}: inputs are quantised, their average is not; to quantise it: "
        "embed export --format=bundle --quantization=NAME"
    ]


def _check(method: str, weights, alphas, suite, tasks, trials: int, count: int) -> None:
    """Raises UsageError for options that do not go together."""
    if weights is not None and method != "weighted":
        raise UsageError("--weights goes with --method=weighted")
    if alphas is not None and method != "interpolate":
        raise UsageError("--alpha goes with --method=interpolate")
    if alphas is not None and len(alphas) > 1 and not suite:
        raise UsageError("a sweep needs several alphas and a suite: --alpha=0,0.25,0.5,0.75,1 --suite=FILE")
    if tasks is not None and not suite:
        raise UsageError("--tasks names tasks of a suite; give the --suite")
    if method in soup.SEARCHED and not suite:
        raise UsageError(f"--method={method} chooses weights by scores; give a --suite")
    if method == "learned" and trials <= count:
        raise UsageError(f"--trials={trials}: the {count} inputs alone take {count}; give more")


def _weights(folders, method: str, weights, alphas, suite, tasks, trials: int) -> tuple[list[float], dict[str, bytes]]:
    """Returns the weights of the inputs, and the files that tell how they and the average score, where there is a suite."""
    fixed = functools.partial(soup.weights_for, method, len(folders), weights)
    if not suite:
        return fixed(alphas[0] if alphas else None), {}
    from embed.workflows.average_scores import Scorer

    if method == "interpolate":
        by_alpha = {alpha: fixed(alpha) for alpha in sorted(set(alphas or [0.5]))}
        scorer = Scorer(folders, folders[1], method, suite, tasks)
        best = scorer.sweep(by_alpha)
        return by_alpha[best], scorer.sweep_files(best)
    first = None if method in soup.SEARCHED else fixed(None)
    scorer = Scorer(folders, folders[0], method, suite, tasks)
    if method == "greedy":
        tried = search.greedy(len(folders), scorer.score, scorer.tell)
    elif method == "learned":
        tried = search.learned(len(folders), scorer.score, trials, scorer.tell)
    else:
        tried = search.compared(len(folders), scorer.score, first, scorer.tell)
    return list([trial for trial in tried if trial.kept][-1].weights), scorer.soup_files(tried)
