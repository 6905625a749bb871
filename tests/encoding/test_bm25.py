"""BM25 weights by hand, and the same token ids as the engine's own."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_edge import Bm25

from msmarco_qdrant.core.collection_types import Bm25Settings
from msmarco_qdrant.encoding import Bm25Encoder
from msmarco_qdrant.errors import UsageError

# Words that are neither stop words nor share a stem.
PLAIN = ["harbor", "quartz", "lantern", "copper", "violin", "meadow"]
STOP_WORDS = ["the", "of", "and", "is"]
DEFAULT = Bm25Encoder(Bm25Settings())


def _token_id(word: str) -> int:
    [index] = Bm25().embed_query(word).indices
    return int(index)


def _by_formula(words: list[str], settings: Bm25Settings) -> dict[int, float]:
    """Each word's tf * (k + 1) / (tf + k * (1 - b + b * length / avg_len))."""
    k, b = settings.k, settings.b
    penalty = k * (1 - b + b * len(words) / settings.avg_len)
    return {_token_id(word): tf * (k + 1) / (tf + penalty) for word, tf in Counter(words).items()}


def _weights(encoder: Bm25Encoder, text: str) -> dict[int, float]:
    vector = encoder.encode_passage(text)
    return dict(zip(vector.indices, vector.values, strict=True))


@given(
    settings=st.sampled_from(
        [
            Bm25Settings(),
            Bm25Settings(1.2, 0.75, 256),
            Bm25Settings(2.0, 0.0),
            Bm25Settings(0.0, 1.0),
        ]
    ),
    words=st.lists(st.sampled_from(PLAIN), min_size=1, max_size=80),
)
def test_weights_equal_the_formula(settings: Bm25Settings, words: list[str]) -> None:
    """Short and long texts, single and repeated words."""
    expected = _by_formula(words, settings)
    assert pytest.approx(expected, rel=1e-5) == _weights(Bm25Encoder(settings), " ".join(words))


def test_a_weight_by_hand() -> None:
    """A word alone among 36.6 on average: 1.9 / (1 + 0.9 * (0.6 + 0.4 / 36.6)) = 1.2235..."""
    [weight] = DEFAULT.encode_passage("harbor").values
    assert pytest.approx(1.9 / (1 + 0.9 * (0.6 + 0.4 / 36.6)), rel=1e-6) == weight


@pytest.mark.parametrize(
    "word", [*PLAIN, "London", "running", "caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_a_passage_and_a_query_share_token_ids(word: str) -> None:
    """What a passage stores under an id is what the engine's query asks for."""
    assert Bm25().embed_query(word).indices == DEFAULT.encode_passage(word).indices


def test_indices_ascend() -> None:
    """The engine wants ascending token ids; each comes once."""
    indices = DEFAULT.encode_passage(" ".join(PLAIN * 3)).indices
    assert sorted(set(indices)) == indices
    assert len(PLAIN) == len(indices)


def test_a_text_of_stop_words_is_empty() -> None:
    """No token, no weight, no length."""
    vector = DEFAULT.encode_passage(" ".join(STOP_WORDS))
    assert (vector.indices, vector.values) == ([], [])
    assert DEFAULT.count_tokens(" ".join(STOP_WORDS)) == 0


@given(
    words=st.lists(st.sampled_from(PLAIN), max_size=150),
    stop=st.lists(st.sampled_from(STOP_WORDS), max_size=20),
)
def test_count_tokens_counts_what_the_formula_counts(words: list[str], stop: list[str]) -> None:
    """Repeated words count each time, stop words never."""
    assert len(words) == DEFAULT.count_tokens(" ".join([*stop, *words]))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (Bm25Settings(k=-1), "k1 must be"),
        (Bm25Settings(b=1.5), "b must be"),
        (Bm25Settings(avg_len=0), "avg_doc_len must be"),
        (Bm25Settings(language="klingon"), "unsupported language"),
    ],
)
def test_settings_that_the_formula_does_not_allow(settings: Bm25Settings, complaint: str) -> None:
    """They are refused when the encoder is made, not when the first passage comes."""
    with pytest.raises(UsageError, match=complaint):
        Bm25Encoder(settings)


@pytest.mark.parametrize(
    "settings",
    [
        Bm25Settings(),
        Bm25Settings(k=1.2, b=0.75, avg_len=8),
        Bm25Settings(k=0.0),
        Bm25Settings(b=0.0),
        Bm25Settings(b=1.0),
    ],
)
def test_r14_weights_contain_the_length(settings: Bm25Settings) -> None:
    """One call gives the same weights and length as two, also for repeated and long texts."""
    encoder = Bm25Encoder(settings)
    words = [f"w{number % 97}" for number in range(700)]
    for text in ("", "the of", "a whale", "sea " * 500, " ".join(words), " ".join(words[:40])):
        vector, length = encoder.encode_with_length(text)
        assert encoder.encode_passage(text) == vector
        assert encoder.count_tokens(text) == length
