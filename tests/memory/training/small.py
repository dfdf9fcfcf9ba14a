"""Collections of a few dozen short documents, in both layouts."""

import json
from pathlib import Path
from typing import Any

THINGS = ("car", "house", "bird", "boat", "dress", "box", "flower", "book", "lamp", "chair")
PLACES = ("Vienna", "Oslo", "Lima", "Cairo", "Delhi", "Quito")


def write_lines(path: Path, rows: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_posts(folder: Path, filler: str = "It has been there for years, and nobody knew why. " * 12) -> Path:
    """Sixty posts in BEIR's layout under one title, each with a question that names what and where."""
    said = [(f"{thing}-{place}", thing, place) for thing in THINGS for place in PLACES]
    corpus = [
        {"_id": name, "title": "All_Posts", "text": f"I saw a {thing} in {place}. {filler}"}
        for name, thing, place in said
    ]
    queries = [
        {"_id": f"q-{name}", "text": f"Where did the author see a {thing}, {place}?"} for name, thing, place in said
    ]
    write_lines(folder / "corpus.jsonl", corpus)
    write_lines(folder / "queries.jsonl", [*queries, {"_id": "unjudged", "text": "Nobody judged this."}])
    qrels = [f"q-{name}\t{name}\t1\n" for name, *_ in said] + ["q-car-Oslo\tbox-Lima\t0\n"]
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(qrels))
    (folder / "PROVENANCE.json").write_text('{"licence": "made up"}')
    return folder


def write_pairs(folder: Path) -> Path:
    """Sentences as squad_sentence_pairs has them."""
    pairs = [
        {"query": f"who 's in the {thing} ?", "passage": f"she sat in the {thing} ( again ) .", "label": 1}
        for thing in THINGS
    ]
    write_lines(folder / "pairs.jsonl", [*pairs, {"query": "no", "passage": "unrelated .", "label": 0}])
    return folder
