"""`embed serve`: a model behind HTTP in the form of OpenAI's embeddings, for tests and small teams.

  embed serve MODEL --port=8000
  curl http://127.0.0.1:8000/v1/embeddings -H 'Content-Type: application/json' \\
      -d '{"input": ["a text", "another"], "prompt_name": "query"}'

A request has `input` (a text or a list), and may have `model`, `dimensions` (a Matryoshka size), `encoding_format` ('float' or
'base64') and `prompt_name`, a prompt of the model; an unknown field is refused. Texts that are longer than the model takes are
refused, or with --truncate cut and counted in the header X-Truncated-Texts. Requests that come while the model works are encoded
together, which changes the last bit of some values; --together=1 encodes each alone. It listens to this machine alone unless
--host says otherwise; then set EMBED_SERVER_KEY, which clients send as a bearer token. For many clients, export the model and serve
it by text-embeddings-inference or vLLM.
"""

import importlib.util

from embed import environment
from embed.commands import options
from embed.errors import UsageError

SUMMARY = "Serve a model's embeddings of texts over HTTP, in the form of OpenAI's POST /v1/embeddings."


def add_arguments(parser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", type=options.path, help="run folder, checkpoint step folder or bundle"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=options.up_to(65535, 0), default=8000, help="port; 0 takes a free one (8000)")
    parser.add_argument("--name", help="the model's name to clients (default: the name of its folder)")
    parser.add_argument(
        "--prompt", default="document", help="prompt of requests that name none, a name or a template (document)"
    )
    parser.add_argument(
        "--max_length", type=options.count, help="longest text in tokens (default: as the model was made for)"
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="what the encoder computes in")
    parser.add_argument("--weights", default="float32", help="round the weights first, e.g. int8_blocks (float32)")
    parser.add_argument(
        "--truncate", action="store_true", help="cut texts that are too long, where they would be refused"
    )
    parser.add_argument(
        "--together", type=options.up_to(4096), default=64, help="texts of several requests at once (64)"
    )
    parser.add_argument(
        "--waiting", type=options.count, default=4096, help="texts that may wait; more are refused (4096)"
    )
    parser.add_argument("--connections", type=options.count, default=256, help="connections at once (256)")
    parser.add_argument("--max_bytes", type=options.count, default=4 << 20, help="largest body of a request (4194304)")
    parser.add_argument("--no_warm_up", action="store_true", help="listen at once, and compile as requests come")


def run(arguments) -> None:
    missing = [name for name in ("starlette", "uvicorn", "prometheus_client") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"embed serve needs {', '.join(missing)}; run: pip install 'embed[serve]'")
    environment.start()
    from embed.workflows import serve

    names = ("host", "port", "name", "prompt", "max_length", "dtype", "weights", "truncate", "together", "waiting")
    given = {name: getattr(arguments, name) for name in (*names, "connections", "max_bytes")}
    serve.run(arguments.model, **given, warm_up=not arguments.no_warm_up)
