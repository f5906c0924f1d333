"""An asker of a test's server, and thirty things that it is asked for."""

from embed.curation.asking import Asker
from embed.curation.endpoint import Endpoint
from embed.curation.ledger import Ledger
from embed.curation.prompt_templates import PromptTemplate
from embed.curation.sending import Budget

WORDS = PromptTemplate("query", "Write.", "Passage: $passage")
SCHEMA = {
    "type": "object",
    "properties": {"task": {"type": "string"}, "query": {"type": "string"}},
    "required": ["task", "query"],
    "additionalProperties": False,
}


def asker(server, path, concurrency=4, budget=None, salt=b"salt", **options):
    given = {"attempts": 4, "deadline": 20.0, "first_wait": 0.01, **options}
    endpoint = Endpoint(server.url, "tiny", given.pop("key", "secret"), **given)
    return Asker(endpoint, Ledger(path / "replies.jsonl"), budget or Budget(), salt, concurrency)


def run(asked, items):
    """Returns the results for the items, in the order in which they were taken."""
    taken = []

    async def work(item):
        return await asked.ask(WORDS, SCHEMA, {"passage": item})

    try:
        asked.run(work, items, lambda item, result: taken.append((item, result["query"])))
    finally:
        asked.ledger.close()
    return taken


ITEMS = [f"text number {i}" for i in range(30)]
WANTED = [(item, f"about {' '.join(reversed(item.split()))} 0") for item in ITEMS]
