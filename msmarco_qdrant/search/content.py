"""Content of hits: vectors, snippets, and the parts of passages that a caller wants."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.search_types import Hit
from msmarco_qdrant.search.request import SearchRequest
from msmarco_qdrant.search.step import Encode, EncodePassages, Steps
from msmarco_qdrant.search.stored_vectors import with_vectors

if TYPE_CHECKING:
    from msmarco_qdrant.search.steps import Searcher

_BETWEEN = re.compile(r"""(?<=[.!?])\s+|(?<=[.!?]["')\]])\s+|\n+""")
_WORD = re.compile(r"\w")
_MAX_SENTENCES = 64  # of a passage, the first ones: bounds the forward pass


def add_content(
    queries: Sequence[str],
    found: Sequence[Sequence[Hit]],
    request: SearchRequest,
    searcher: Searcher,
) -> Steps[list[list[Hit]]]:
    """Return hits with their vectors and snippets if wanted, without unwanted text and fields."""
    hits = [[*each] for each in found]
    if request.with_vectors and any(hit.vector is None for each in hits for hit in each):
        hits = yield from with_vectors(hits, searcher)
    if request.snippets:
        hits = yield from _with_snippets(queries, hits, request.snippets, searcher)
    if request.with_text and request.with_meta is True:
        return hits
    return [[_reduce(hit, request) for hit in each] for each in hits]


def split_sentences(text: str) -> list[str]:
    """Split a text after periods, question and exclamation marks, and at line ends.

    Parts without a letter or digit are omitted.
    """
    parts = (part.strip() for part in _BETWEEN.split(text))
    return [part for part in parts if _WORD.search(part)]


def _with_snippets(
    queries: Sequence[str], found: Sequence[Sequence[Hit]], count: int, searcher: Searcher
) -> Steps[list[list[Hit]]]:
    """Add the sentences of each hit that are the most similar to its query, in their order."""
    import numpy as np

    sentences = [[split_sentences(h.text)[:_MAX_SENTENCES] for h in hits] for hits in found]
    texts = [*dict.fromkeys(one for each in sentences for parts in each for one in parts)]
    if not texts:
        return [[*hits] for hits in found]
    asked: Any = yield Encode(searcher.encoder, queries)
    encoded: Any = yield EncodePassages(searcher.encoder, texts)
    rows = {text: row for row, text in enumerate(texts)}
    answers = []
    for query, hits, each in zip(asked, found, sentences, strict=True):
        scores = encoded @ query
        chosen = []
        for hit, parts in zip(hits, each, strict=True):
            best = np.argsort([-scores[rows[one]] for one in parts], kind="stable")[:count]
            snippets = tuple(parts[place] for place in sorted(best))
            chosen.append(replace(hit, snippets=snippets))
        answers.append(chosen)
    return answers


def _reduce(hit: Hit, request: SearchRequest) -> Hit:
    """Return a hit without the text and the fields of `meta` that the caller does not want."""
    wanted, meta = request.with_meta, hit.meta
    if wanted is not True:
        meta = {name: meta[name] for name in wanted or () if name in meta}
    text = hit.text if request.with_text else ""
    if (text, meta) == (hit.text, hit.meta):  # the engine has returned no more
        return hit
    return replace(hit, text=text, meta=meta)
