"""The vectors of the queries asked last: what is encoded, what is remembered, what is forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from msmarco_qdrant.encoding import load_encoder
from msmarco_qdrant.encoding.query_cache import _LONGEST_QUERY, QueryVectorCache
from msmarco_qdrant.errors import EncodingError
from tests.encoding.conftest import Tiny
from tests.encoding.tiny_models import Recipe, texts_of_lengths

if TYPE_CHECKING:
    from numpy.typing import NDArray

DIMENSION = 3


def _vector(query: str) -> list[float]:
    """Three numbers that tell queries apart."""
    return [len(query), sum(map(ord, query)), ord(query[0]) if query else -1]


class _Encoder:
    """Gives `_vector`s, and writes down what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, queries: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(list(queries))
        return np.array([_vector(query) for query in queries], np.float32).reshape(-1, DIMENSION)


def _ask(recent: QueryVectorCache, encode: _Encoder, queries: Sequence[str]) -> list[list[float]]:
    vectors = recent.vectors(queries, DIMENSION, encode)
    assert np.float32 == vectors.dtype
    assert (len(queries), DIMENSION) == vectors.shape
    return vectors.tolist()  # type: ignore[no-any-return]


def test_what_was_asked_is_not_encoded_again() -> None:
    """Of a call, only the unknown queries are encoded; the vectors stand in the order asked."""
    recent, encode = QueryVectorCache(10), _Encoder()
    for queries in (["a", "bb"], ["bb", "c", "a"], ["c"]):
        assert [_vector(query) for query in queries] == _ask(recent, encode, queries)
    assert [["a", "bb"], ["c"]] == encode.asked


@pytest.mark.parametrize(
    ("queries", "encoded"), [(["a", "b", "a", "b", "b"], [["a", "b"]]), ([], [])]
)
def test_a_repeated_query_is_encoded_once(queries: list[str], encoded: list[list[str]]) -> None:
    """Each row gets its vector; without queries, nothing is encoded."""
    recent, encode = QueryVectorCache(10), _Encoder()
    assert [_vector(query) for query in queries] == _ask(recent, encode, queries)
    assert encoded == encode.asked


def test_the_one_not_asked_for_the_longest_time_is_forgotten() -> None:
    """Asking again makes a query young, by a hit as by a miss."""
    recent, encode = QueryVectorCache(2), _Encoder()
    for queries in (["a"], ["b"], ["a"], ["c"]):  # b goes
        _ask(recent, encode, queries)
    encode.asked.clear()
    _ask(recent, encode, ["a", "c"])
    assert [] == encode.asked
    _ask(recent, encode, ["b"])  # a goes
    _ask(recent, encode, ["c"])
    _ask(recent, encode, ["a"])
    assert [["b"], ["a"]] == encode.asked


def test_more_queries_than_it_remembers() -> None:
    """A call over the capacity is answered in full, known ones among them; the last are kept."""
    recent, encode = QueryVectorCache(3), _Encoder()
    _ask(recent, encode, ["a"])
    queries = ["a", *"bcdefg"]
    assert [_vector(query) for query in queries] == _ask(recent, encode, queries)
    assert len(recent) == 3
    encode.asked.clear()
    _ask(recent, encode, ["e", "f", "g", "a"])
    assert [["a"]] == encode.asked


def test_without_capacity_nothing_is_remembered() -> None:
    """Every query is encoded as it is asked, twice where it stands twice."""
    recent, encode = QueryVectorCache(0), _Encoder()
    for _ in range(2):
        assert [_vector("a"), _vector("a")] == _ask(recent, encode, ["a", "a"])
    assert [["a", "a"]] * 2 == encode.asked
    assert len(recent) == 0


def test_the_caller_may_change_what_it_got() -> None:
    """Neither what a miss gave nor what a hit gave is the memory's own."""
    recent, encode = QueryVectorCache(10), _Encoder()
    for _ in range(3):
        vectors = recent.vectors(["a", "a"], DIMENSION, encode)
        assert [_vector("a")] * 2 == vectors.tolist()
        vectors[0] = -7
        assert _vector("a") == vectors[1].tolist()


def test_the_encoder_may_change_what_it_gave() -> None:
    """What is remembered is a copy, which keeps no batch alive."""
    recent, given = QueryVectorCache(10), np.ones((1, DIMENSION), np.float32)
    recent.vectors(["a"], DIMENSION, lambda _: given)
    given[:] = 5
    assert [[1.0] * DIMENSION] == recent.vectors(["a"], DIMENSION, lambda _: given).tolist()
    assert recent._vectors["a"].base is None


def test_long_queries_are_not_kept() -> None:
    """A query at the limit is, one beyond it is encoded each time."""
    recent, encode = QueryVectorCache(10), _Encoder()
    kept, long = "k" * _LONGEST_QUERY, "l" * (_LONGEST_QUERY + 1)
    for _ in range(2):
        assert [_vector(kept), _vector(long)] == _ask(recent, encode, [kept, long])
    assert [[kept, long], [long]] == encode.asked
    assert len(recent) == 1


def test_what_could_not_be_encoded_is_not_remembered() -> None:
    """An error comes out, and the query is asked for anew."""
    recent, encode = QueryVectorCache(10), _Encoder()

    def failing(queries: Sequence[str]) -> NDArray[np.float32]:
        raise EncodingError(f"not {queries[0]}")

    with pytest.raises(EncodingError, match="not b"):
        recent.vectors(["b"], DIMENSION, failing)
    assert len(recent) == 0
    assert [_vector("b")] == _ask(recent, encode, ["b"])


def test_threads_get_their_own_queries() -> None:
    """Eight threads, a memory that forgets all the time, and every vector is its query's."""
    recent, encode = QueryVectorCache(5), _Encoder()
    calls = [[f"{(7 * call + place) % 13}" for place in range(4)] for call in range(400)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda queries: _ask(recent, encode, queries), calls))
    assert [[_vector(query) for query in queries] for queries in calls] == answers
    assert len(recent) == 5


# ---- through the encoder ---------------------------------------------------------------------


def test_vectors_are_those_of_an_encoder_that_remembers_nothing(tiny: Tiny) -> None:
    """The first time, from memory, and in another order and company."""
    directory = tiny(Recipe("bert", prompts={"query": "how "}))
    remembering = load_encoder(directory, device="cpu")
    forgetting = load_encoder(directory, device="cpu", cached_queries=0)
    queries = texts_of_lengths([4, 4, 4, 4])  # of one length: a batch of any is computed alike
    expected = np.concatenate([forgetting.encode_queries([query]) for query in queries])
    for order in ([0, 1, 2, 3], [3, 1, 3, 0], [2]):
        vectors = remembering.encode_queries([queries[place] for place in order])
        np.testing.assert_allclose(vectors, expected[order], rtol=0, atol=1e-5)
    assert (4, 0) == (len(remembering._query_cache), len(forgetting._query_cache))
