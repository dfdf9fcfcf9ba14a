import random
from datetime import UTC, datetime

import pytest

from memory.training.rewriting import FORMS, HELD_OUT_SPEAKERS, SPEAKERS, Turn, asked_of, sentences, turn, windows


def numbers(seed: int = 0) -> random.Random:
    return random.Random(seed)  # noqa: S311


TEXT = 'One came. Two came, e.g. by train! Was there a third? "Yes." He\'s late.\nA line.'


def test_a_text_falls_into_its_sentences() -> None:
    assert sentences(TEXT)[:3] == ["One came.", "Two came, e.g. by train!", "Was there a third?"]
    assert sentences("  \n ") == []


def test_windows_leave_nothing_out_and_stay_short() -> None:
    text = " ".join(f"Sentence number {number} has a few words of its own." for number in range(50))
    cut = windows(text, numbers())
    assert " ".join(cut) == text
    assert all(1 <= len(sentences(window)) <= 4 for window in cut)
    assert len({len(sentences(window)) for window in cut}) > 1


def test_a_sentence_longer_than_a_window_is_a_window() -> None:
    assert len(windows("word " * 100 + ". Short one.", numbers())) >= 1
    assert windows("", numbers()) == []


@pytest.mark.parametrize("form", range(FORMS))
def test_a_header_names_the_speaker_and_mostly_the_day(form: int) -> None:
    header = Turn("Alice", datetime(2023, 6, 5, tzinfo=UTC)).line(form)
    assert "Alice" in header
    assert ("2023" in header) == (form < FORMS - 1)


def test_a_turn_is_the_same_for_a_seed() -> None:
    assert turn(numbers(4)) == turn(numbers(4))
    assert not set(SPEAKERS) & set(HELD_OUT_SPEAKERS)


def test_a_question_about_the_author_asks_about_the_speaker() -> None:
    assert asked_of("What does the poster's boyfriend need?", "Alice") == "What does Alice's boyfriend need?"
    assert asked_of("Which authors of Daredevil are good?", "Alice") == "Which authors of Daredevil are good?"


def test_half_of_the_headers_are_the_products_own() -> None:
    said = Turn("Alice", datetime(2022, 6, 5, tzinfo=UTC))
    assert [said.line(form).startswith("5 June 2022 · ") for form in range(FORMS)].count(True) == FORMS // 2
