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
    if not request.with_vectors and not request.snippets:
        return _reduced(found, request)
    hits = [[*each] for each in found]
    if request.with_vectors and any(hit.vector is None for each in hits for hit in each):
        hits = yield from with_vectors(hits, searcher)
    if request.snippets:
        hits = yield from _with_snippets(queries, hits, request.snippets, searcher)
    return _reduced(hits, request)


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


def _reduced(found: Sequence[Sequence[Hit]], request: SearchRequest) -> list[list[Hit]]:
    """Return hits without the text and the fields of `meta` that the caller does not want."""
    if request.with_text and request.with_meta is True:
        return [*map(list, found)]
    names = request.with_meta
    answers = []
    for hits in found:
        kept = []
        for hit in hits:
            meta = hit.meta
            if names is not True and not meta.keys() <= {*(names or ())}:
                meta = {name: meta[name] for name in names or () if name in meta}
            text = hit.text if request.with_text else ""
            is_whole = text is hit.text and meta is hit.meta  # the engine has returned no more
            kept.append(hit if is_whole else replace(hit, text=text, meta=meta))
        answers.append(kept)
    return answers
