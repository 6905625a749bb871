"""Texts as token ids, end to end: against plain lists of lists."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from msmarco_qdrant.encoding.tokens import Tokenized

ROWS = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=12)


def _tokenized(rows: list[list[int]]) -> Tokenized:
    ids = np.array([token for row in rows for token in row], np.int32)
    return Tokenized.from_lengths(ids, [len(row) for row in rows])


def _rows(texts: Tokenized) -> list[list[int]]:
    edges = texts.offsets.tolist()
    return [texts.ids[start:stop].tolist() for start, stop in itertools.pairwise(edges)]


@settings(deadline=None)
@given(rows=ROWS)
def test_from_lengths(rows: list[list[int]]) -> None:
    """Each text is its own tokens, empty ones among them, and the types are those documented."""
    texts = _tokenized(rows)
    assert rows == _rows(texts)
    assert (len(rows), [len(row) for row in rows]) == (len(texts), texts.lengths.tolist())
    assert ["int32", "int64"] == [str(texts.ids.dtype), str(texts.offsets.dtype)]


@settings(deadline=None)
@given(parts=st.lists(ROWS, min_size=1, max_size=5))
def test_joined_is_one_after_the_other(parts: list[list[list[int]]]) -> None:
    """The texts of all parts, in order, as if they had been tokenized at once."""
    texts = Tokenized.joined([_tokenized(part) for part in parts])
    assert [row for part in parts for row in part] == _rows(texts)
    assert ["int32", "int64"] == [str(texts.ids.dtype), str(texts.offsets.dtype)]


@settings(deadline=None)
@given(rows=ROWS, drawn=st.lists(st.integers(0, 1000), max_size=20))
def test_take_is_a_list_of_the_rows(rows: list[list[int]], drawn: list[int]) -> None:
    """Any positions in any order, some of them twice, give those texts in that order."""
    positions = [number % len(rows) for number in drawn] if rows else []
    taken = _tokenized(rows).take(np.array(positions, np.int64))
    assert [rows[position] for position in positions] == _rows(taken)
    assert ["int32", "int64"] == [str(taken.ids.dtype), str(taken.offsets.dtype)]


@settings(deadline=None)
@given(rows=ROWS, pad_id=st.integers(0, 1000))
def test_padded_rows_are_of_one_length(rows: list[list[int]], pad_id: int) -> None:
    """Each is filled up on the right with the padding, which the mask leaves out."""
    ids, mask = _tokenized(rows).padded(pad_id)
    longest = max(map(len, rows), default=0)
    assert [row + [pad_id] * (longest - len(row)) for row in rows] == ids.tolist()
    assert [[1] * len(row) + [0] * (longest - len(row)) for row in rows] == mask.tolist()
    assert ["int64", "int64"] == [str(ids.dtype), str(mask.dtype)]
