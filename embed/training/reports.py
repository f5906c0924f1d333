"""What a run tells: a progress bar, metrics.jsonl, TensorBoard and Weights & Biases. Process 0 only."""

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from embed import files, hosts
from embed.console import size_text
from embed.training.weights_and_biases import WeightsAndBiases


def memory(compiled) -> tuple[int, int] | None:
    """Returns the bytes that a compiled step needs on one device, lasting and temporary, by the compiler's own analysis."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    lasting = analysis.argument_size_in_bytes + analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    return lasting, analysis.temp_size_in_bytes


def memory_line(compiled, micro_batches: int) -> str:
    """Returns what the compiled step needs on one device, for people."""
    sizes = memory(compiled)
    if sizes is None:
        return "memory     the compiler gives no analysis on this platform"
    cut = "" if micro_batches == 1 else f", in {micro_batches} micro-batches by cached gradients"
    return (
        f"memory     {size_text(sum(sizes))} per device: {size_text(sizes[0])} state and batch, {size_text(sizes[1])} "
        f"temporary{cut} (compiled.memory_analysis)"
    )


class Reporter:
    """Writes metrics to `run_dir`/metrics.jsonl, TensorBoard and, with the name of a project, Weights & Biases; shows progress.

    Lines of steps after `first_step`, which an interrupted run wrote and will write again, are dropped.
    """

    def __init__(self, run_dir, first_step: int, total_steps: int, project: str | None = None):
        self._active = hosts.is_main()
        self._total = total_steps
        self._started, self._first = time.perf_counter(), first_step
        self._window, self._bar, self._board = (self._started, first_step, 0, 0, 0), None, None
        self._elsewhere: WeightsAndBiases | None = None
        if not self._active:
            return
        run_dir = pathlib.Path(run_dir)
        self._path = run_dir / "metrics.jsonl"
        _drop_after(self._path, first_step)
        self._board = _summary_writer()(str(run_dir / "tensorboard"), purge_step=first_step + 1)
        if project is not None:
            self._elsewhere = WeightsAndBiases(run_dir, project)
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total_steps, initial=first_step, unit="step", dynamic_ncols=True, smoothing=0.1)

    def advance(self, examples: int, tokens: int, capacity: int) -> None:
        """Counts one step's examples, real tokens and places for tokens (all processes)."""
        began, step, e, t, p = self._window
        self._window = (began, step, e + examples, t + tokens, p + capacity)
        if self._bar is not None:
            self._bar.update(1)

    def rates(self, step: int, flops_per_example: float) -> dict[str, float]:
        """Returns examples/s, tokens/s, model TFLOP/s and the share of padding since the last call."""
        began, first, examples, tokens, places = self._window
        now = time.perf_counter()
        self._window = (now, step, 0, 0, 0)
        seconds = max(now - began, 1e-9)
        return {
            "seconds_per_step": seconds / max(step - first, 1),
            "examples_per_second": examples / seconds,
            "tokens_per_second": tokens / seconds,
            "padding": 1 - tokens / max(places, 1),
            "model_tflops": examples * flops_per_example / seconds / 1e12,
        }

    @contextlib.contextmanager
    def paused(self):
        """Leaves the time spent inside (evaluating, say) out of the rates."""
        started = time.perf_counter()
        yield
        self._window = (self._window[0] + time.perf_counter() - started, *self._window[1:])

    def log(self, step: int, values: Mapping[str, Any], kind: str = "train") -> None:
        """Writes one line of metrics for `step` and shows the main ones."""
        if not self._active:
            return
        row = {"step": step, "kind": kind, **{k: float(v) for k, v in values.items()}}
        with open(self._path, "a", encoding="utf-8") as f:
            f.write(json.dumps(row) + "\n")
        for name, value in values.items():
            self._board.add_scalar(f"{kind}/{name}", float(value), step)
        if self._elsewhere is not None:
            self._elsewhere.add({f"{kind}/{name}": float(value) for name, value in values.items()}, step)
        if kind == "train":
            self._show(step, row)
        else:
            text = "  ".join(f"{k} {v:.4f}" for k, v in row.items() if k not in ("step", "kind"))
            self.line(f"{kind} at step {step}: {text}")

    def _show(self, step: int, row: Mapping[str, Any]) -> None:
        shown = (
            f"loss {row['loss']:.4f}  {row['examples_per_second']:.0f} examples/s  {row['tokens_per_second']:.0f} tokens/s  "
            f"{row['model_tflops']:.3g} model TFLOP/s"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            return
        left = (self._total - step) * row["seconds_per_step"]
        print(f"step {step}/{self._total}  {shown}  ETA {int(left // 60)}:{int(left % 60):02d}", flush=True)

    def line(self, text: str) -> None:
        """Prints a line without tearing the progress bar."""
        if not self._active:
            return
        if self._bar is not None:
            self._bar.write(text)
        else:
            print(text, flush=True)

    def close(self) -> None:
        """Flushes TensorBoard and ends the bar."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()
        if self._elsewhere is not None:
            self._elsewhere.close()


def _summary_writer():
    """Returns the class that writes TensorBoard's files. Its package imports torch where that is there, for nothing that is
    used here: a second and 180 MB."""
    kept = sys.modules.get("torch")
    if kept is None:
        sys.modules["torch"] = None
    try:
        from tensorboardX import SummaryWriter
    finally:
        if kept is None:
            del sys.modules["torch"]
    return SummaryWriter


def _drop_after(path: pathlib.Path, step: int) -> None:
    """Removes lines of later steps, and a last line that a kill cut in two."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            break
    files.write_atomic(path, "".join(line + "\n" for line in kept))
