import re
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.index import text_analysis
from memory.index.text_analysis import MAX_TERM_CHARS, analyse


def test_stems_and_drops_stop_words_in_english_by_default():
    assert analyse("The runner was RUNNING, and they've run!") == ["runner", "run", "run"]


def test_keeps_order_and_repeats():
    assert analyse("apollo launch apollo") == ["apollo", "launch", "apollo"]


@pytest.mark.parametrize("spelling", ["Alice's", "alice", "ALICE\u2019S", "\uff21lice"])
def test_spellings_of_one_word_are_one_term(spelling):
    assert analyse(spelling) == ["alic"]


def test_composed_and_decomposed_accents_are_one_term():
    assert analyse("Zu\u0308rich caf\u00e9") == analyse("Z\u00fcrich cafe\u0301")


def test_combining_marks_belong_to_their_word():
    assert analyse("हिन्दी भाषा", "none") == ["हिन्दी", "भाषा"]


@pytest.mark.parametrize(
    ("language", "text", "terms"),
    [
        ("german", "Die Häuser und daß", ["haus"]),
        ("french", "L\u2019homme n'aime pas les chevaux", ["homm", "aim", "cheval"]),
        ("russian", "книги и книга", ["книг", "книг"]),
        ("polish", "bardzo koty", ["kot"]),
        ("hindi", "वग़ैरह किताबें", ["किताब"]),  # a stop word that folding changes
        ("klingon", "The houses' cat", ["the", "houses", "cat"]),
    ],
)
def test_follows_the_language(language, text, terms):
    assert analyse(text, language) == terms


def test_language_is_a_setting(settings):
    settings.MEMORY_LEXICAL_LANGUAGE = "german"
    assert analyse("Häuser") == ["haus"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("東京都", ["東京", "京都"]),
        ("猫", ["猫"]),
        ("カタカナー", ["カタ", "タカ", "カナ", "ナー"]),
        ("ｶﾀｶﾅ", ["カタ", "タカ", "カナ"]),
        ("한국어", ["한국", "국어"]),
        ("iPhone手机15", ["iphon", "手机", "15"]),
        ("ภาษา", ["ภา", "าษ", "ษา"]),
        ("我's爱", ["我", "s", "爱"]),
    ],
)
def test_scripts_without_spaces_become_pairs(text, terms):
    assert analyse(text) == terms


@pytest.mark.parametrize("text", ["", "\0", "\ud800\udfff", "🙂👩‍👩‍👧🎉", "the and of", "_-'.'", "\u200b\ufeff"])
def test_texts_without_terms(text):
    assert analyse(text) == []


def test_control_characters_and_lone_surrogates_only_separate():
    assert analyse("apollo\0launch\ud83dpad") == ["apollo", "launch", "pad"]


def test_huge_texts_and_words_pass():
    assert analyse("x" * 2_000_000) == ["x" * MAX_TERM_CHARS]
    assert len(analyse("zebra " * 300_000)) == 300_000


@given(st.text())
def test_takes_any_string_and_leaves_no_separator_in_a_term(text):
    for term in analyse(text):
        assert 0 < len(term) <= MAX_TERM_CHARS
        assert not re.search(r"[\s\0_]", term)


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_the_quick_path_for_ascii_finds_the_same_words(text):
    folded = text.lower()
    assert list(text_analysis._words(folded, "english")) == list(text_analysis._spaced_and_paired(folded))


def test_threads_do_not_share_a_stemmer():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(text_analysis._vocabularies.get("english")))
    thread.start()
    thread.join()
    assert seen[0] is not None
    assert seen[0] is not text_analysis._vocabularies.get("english")


def test_the_vocabulary_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_analysis, "MAX_VOCABULARY", 3)
    vocabulary = text_analysis._Vocabulary("english")
    assert [vocabulary[word] for word in ("apples", "the", "trains", "pears", "apples")] == [
        "appl",
        None,
        "train",
        "pear",
        "appl",
    ]
    assert len(vocabulary) <= 3
    assert vocabulary["x" * 1000] == "x" * text_analysis.MAX_TERM_CHARS
    assert max(map(len, vocabulary)) <= text_analysis.MAX_TERM_CHARS
