"""`embed curate` against a real OpenAI-compatible server: `transformers serve`, with a tiny model that always says the same."""

import gzip
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("openai")  # whose types `transformers serve` uses
pytest.importorskip("uvicorn")
pytest.importorskip("accelerate")

SAID = '{"grade": 2}'


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> pathlib.Path:
    """A llama of one layer that adds nothing to its embeddings: each token decides the next, the end of a prompt the answer."""
    import tokenizers
    import torch
    import transformers

    words = {"<unk>": 0, "<eos>": 1, "<answer>": 2, SAID: 3}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "<unk>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    inner.add_tokens([tokenizers.AddedToken(SAID, normalized=False)])
    inner.add_special_tokens(["<answer>"])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="<unk>", eos_token="<eos>", pad_token="<eos>"
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}<answer>"
    config = transformers.LlamaConfig(
        vocab_size=4, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, eos_token_id=1,
        pad_token_id=1, max_position_embeddings=4096,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    with torch.no_grad():
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(4, 8))
        model.lm_head.weight.zero_()
        model.lm_head.weight[3, 2] = model.lm_head.weight[1, 3] = 10.0
    folder = tmp_path_factory.mktemp("says") / "model"
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def endpoint(model):
    """The address of the server, once it answers."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [
        str(pathlib.Path(sys.executable).parent / "transformers"),
        "serve",
        "--host=127.0.0.1",
        f"--port={port}",
        "--device=cpu",
    ]
    server = subprocess.Popen(
        command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        for _ in range(240):
            assert server.poll() is None, "transformers serve ended"
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1).close()
                break
            except OSError:
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_server_is_asked_once_for_each_thing(model, endpoint, tmp_path, run_embed):
    rows = [{"query": f"what is {i}", "positive": f"it is {i}", "negative": [f"it is {i + 1}"]} for i in range(5)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = [
        "curate",
        "filter",
        "--input=pairs.jsonl",
        "--output=out",
        f"--endpoint={endpoint}",
        f"--model={model}",
        "--plain",
    ]
    done = run_embed(tmp_path, *given)
    assert done.returncode == 0, done.stderr
    assert "asked 10 times" in done.stdout
    with gzip.open(tmp_path / "out" / "rows.jsonl.gz", "rt") as f:
        kept = [json.loads(line) for line in f]
    assert [row["judged"]["target"] for row in kept] == [2] * 5 and all(row["negative"] == [] for row in kept)
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["tokens_in"] > 500 and 10 <= summary["tokens_out"] <= 40
    assert summary["requests"] == 10 and summary["requests_failed"] == summary["replies_without_usage"] == 0
    again = run_embed(tmp_path, *given)
    assert again.returncode == 0 and "asked 0 times, 10 replies were here" in again.stdout
    wrong = run_embed(
        tmp_path, *[*given[:3], "--output=other", given[4], "--model=no/such-model", "--plain", "--attempts=1"]
    )
    assert wrong.returncode == 69 and len(wrong.stderr.strip().splitlines()) == 1
