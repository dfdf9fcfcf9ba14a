from pathlib import Path

import pytest

from memory.benchmarks.beir import BadDataset
from memory.training.collections import Part, part_of, read_judged, untokenised
from tests.memory.training import small


def test_every_passage_and_its_questions_are_in_one_part(tmp_path: Path) -> None:
    collection = read_judged(small.write_posts(tmp_path / "posts"))
    assert sum(len(each) for each in collection.passages.values()) == 60
    assert sum(len(each) for each in collection.questions.values()) == 60
    for part in Part:
        own = {passage.doc_id for passage in collection.passages[part]}
        assert {question.doc_id for question in collection.questions[part]} == own
    assert collection.licence == "made up"


def test_a_title_that_all_documents_share_is_none(tmp_path: Path) -> None:
    collection = read_judged(small.write_posts(tmp_path / "posts"))
    assert {passage.title for passage in collection.passages[Part.TRAIN]} == {""}


def test_documents_of_one_title_stay_together(tmp_path: Path) -> None:
    folder = small.write_posts(tmp_path / "diseases")
    titles = [{"_id": f"{number}", "title": f"Disease {number % 20}", "text": "Rest."} for number in range(60)]
    small.write_lines(folder / "corpus.jsonl", titles)
    small.write_lines(folder / "queries.jsonl", [{"_id": "q", "text": "What helps?"}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\t1\t1\n")
    collection = read_judged(folder)
    seen = [{passage.title for passage in collection.passages[part]} for part in Part]
    assert sum(len(titles) for titles in seen) == 20
    assert all(seen)


def test_pairs_are_written_as_sentences(tmp_path: Path) -> None:
    collection = read_judged(small.write_pairs(tmp_path / "pairs"))
    texts = [passage.text for part in Part for passage in collection.passages[part]]
    assert "She sat in the car (again)." in texts
    assert "Unrelated." not in texts
    assert collection.licence == "not stated"


def test_pairs_of_which_conversations_are_built_are_held_out(tmp_path: Path) -> None:
    rows = [
        {"query": f"what is {n} ?", "passage": f"{n} it is .", "label": 1, "split": "test" if n % 2 else "dev"}
        for n in range(900)
    ]
    small.write_lines(tmp_path / "pairs.jsonl", rows)
    collection = read_judged(tmp_path)
    numbers = {part: {int(each.text.split()[0]) for each in collection.passages[part]} for part in Part}
    assert numbers[Part.HELD_OUT] == set(range(1, 900, 2))
    assert numbers[Part.TRAIN] and numbers[Part.DEV]


def test_about_a_quarter_is_not_trained_on() -> None:
    parts = [part_of("posts", str(number)) for number in range(2000)]
    assert 0.72 < parts.count(Part.TRAIN) / 2000 < 0.80
    assert part_of("posts", "1") == part_of("posts", "1")


@pytest.mark.parametrize("line", ["no json", "[]", '{"query": "a"}'])
def test_a_folder_that_is_no_collection_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "pairs.jsonl").write_text(line + "\n")
    with pytest.raises(BadDataset, match=str(tmp_path)):
        read_judged(tmp_path)


def test_a_collection_without_a_judged_question_is_refused(tmp_path: Path) -> None:
    folder = small.write_posts(tmp_path / "posts")
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n")
    with pytest.raises(BadDataset, match="no judged question"):
        read_judged(folder)


def test_punctuation_is_put_back() -> None:
    assert untokenised("it 's 5 % -lrb- or so -rrb- , they do n't know .") == "It's 5% (or so), they don't know."
