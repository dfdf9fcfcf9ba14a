"""Whole collections that are only measured: chunked, embedded and judged as `manage.py evaluate` does."""

from pathlib import Path

from memory.benchmarks.beir import read_collection
from memory.training.mining import mine
from memory.training.views import View
from rerank.training.pools import Pools

MOST_QUESTIONS = 300


def mine_collection(directory: Path, *, cache: Path | None, verbosity: int = 1) -> Pools:
    """Pools of a collection in BEIR's layout: its `test` questions, or 300 of them drawn. Raises BadDataset."""
    collection = read_collection(directory)
    numbers = {document.doc_id: number for number, document in enumerate(collection.documents)}
    view = View(collection.name, texts=collection.texts())
    view.documents = [numbers[each.doc_id] for each in collection.documents for _ in each.chunks]
    for query in collection.queries:
        view.ask(query.text, *(numbers[each] for each, grade in query.judged.items() if grade > 0 and each in numbers))
    return mine(view, cache=cache, limit=MOST_QUESTIONS, verbosity=verbosity)
