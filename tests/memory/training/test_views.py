from memory.training.collections import Passage, Question
from memory.training.rewriting import HELD_OUT_SPEAKERS
from memory.training.views import conversations, documents_view, paragraphs_view, statements_view, windows_view

LONG = "Alice has a boat. Bob has a car with four wheels and no roof at all. " * 6
PASSAGES = [Passage(str(number), f"Title {number}", LONG) for number in range(6)]
QUESTIONS = [Question("What does the author drive?", "2"), Question("Which boat?", "2")]


def test_windows_belong_to_their_document_and_questions_to_theirs() -> None:
    view = windows_view("kind", PASSAGES, QUESTIONS, turns=0.0, seed=0)
    assert len(view.texts) == len(view.documents) > len(PASSAGES)
    assert view.documents == sorted(view.documents)
    assert view.answers == [(2,), (2,)]
    assert view.questions == [question.text for question in QUESTIONS]


def test_turns_have_a_speaker_whom_questions_name() -> None:
    view = windows_view("kind", PASSAGES, QUESTIONS, turns=1.0, seed=0, speakers=["Zora"])
    assert all("Zora" in text for text in view.texts)
    assert view.questions[0] == "What does Zora drive?"


def test_a_share_of_the_documents_become_turns() -> None:
    many = [Passage(str(number), "", "It was there.") for number in range(200)]
    view = windows_view("kind", many, [], turns=0.3, seed=0)
    assert 30 < sum(text != "It was there." for text in view.texts) < 90


def test_documents_begin_with_their_titles() -> None:
    view = documents_view("kind", PASSAGES, QUESTIONS)
    assert view.texts[0].startswith("Title 0: Alice has")


def test_a_statement_is_taken_out_of_the_document_that_it_has_to_find() -> None:
    passages = [Passage("0", "", "One. Two. Three. The whale swam all the way to the coast of Peru. Four.")]
    view = statements_view("kind", passages, seed=0)
    assert view.questions == ["The whale swam all the way to the coast of Peru."]
    assert view.texts == ["One. Two. Three. Four."]


def test_a_conversation_is_of_two_people() -> None:
    views = list(conversations("kind", PASSAGES, QUESTIONS, size=3, speakers=HELD_OUT_SPEAKERS, seed=1))
    assert len(views) == 2
    for view in views:
        assert len({name for name in HELD_OUT_SPEAKERS if any(name in text for text in view.texts)}) <= 2
    assert sum(len(view.questions) for view in views) == 2


def test_neighbouring_sentences_become_paragraphs() -> None:
    sentences = [Passage(str(number), "", f"{number}. ".ljust(100, "x")) for number in range(16)]
    view = paragraphs_view("kind", sentences, [Question("Which?", "8")])
    assert [text.count(".") for text in view.texts] == [7, 7, 2]
    assert view.texts[1].startswith("7. ")
    assert view.answers == [(1,)]
