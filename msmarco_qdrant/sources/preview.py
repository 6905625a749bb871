"""Preview of sources: their shapes, first rows, counts and rejects, without a store or a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike

from msmarco_qdrant.core.arguments import suggest_keywords
from msmarco_qdrant.core.pid_set import PidSet
from msmarco_qdrant.core.records import Passage, Reject
from msmarco_qdrant.core.source_types import Format
from msmarco_qdrant.errors import MissingExtraError, SourceError
from msmarco_qdrant.sources.corpus import MAX_LINE_BYTES, Corpus
from msmarco_qdrant.sources.files import list_matching
from msmarco_qdrant.sources.rejects import duplicate_pid_reason, reject_passage


@dataclass(frozen=True, slots=True)
class SourcePreview:
    """The rows that an ingest would read from a source.

    Attributes:
        source: The source.
        shape: Its format and fields in one line, None if it is refused.
        passages: Number of passages.
        rejected: Number of rows that cannot become a passage, repeated pids included.
        first: The first passages.
        rejects: The first rejects.
        error: The reason that an ingest would stop at this source, None if it would not.
    """

    source: str
    shape: str | None
    passages: int
    rejected: int
    first: tuple[Passage, ...]
    rejects: tuple[Reject, ...]
    error: str | None


@suggest_keywords
def preview_sources(  # noqa: PLR0913  # all but one have defaults
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    *,
    format: Format = "auto",  # noqa: A002  # the option's name everywhere else
    max_line_bytes: int = MAX_LINE_BYTES,
    pid_field: str | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    skip_field: str | Sequence[str] = (),
    max_passages: int | None = None,
    shown: int = 3,
) -> list[SourcePreview]:
    """Read and parse sources to the end, and write nothing.

    Args:
        sources: One or several paths; "-" is standard input.
        format: See `Corpus`, also for the next five.
        max_line_bytes: A longer line is a reject.
        pid_field: The field with the pid.
        text_field: The field with the text.
        title_field: The field with the title.
        skip_field: Fields to leave out.
        max_passages: Stop after this number of passages.
        shown: Number of first passages and rejects to return of each source.

    Returns:
        One value for each source, in order; for a pattern of a URL, one for each file.

    Raises:
        UsageError: If an argument is invalid.
    """
    given = [sources] if isinstance(sources, str | PathLike) else list(sources)
    names = [file for source in given for file in _matching(source)]
    seen, previews = PidSet(), []
    for source in names or [""]:
        try:
            corpus = Corpus(
                [source] if names else [],
                format=format,
                max_line_bytes=max_line_bytes,
                pid_field=pid_field,
                text_field=text_field,
                title_field=title_field,
                skip_field=skip_field,
            )
        except (SourceError, MissingExtraError) as exc:
            previews.append(SourcePreview(source, None, 0, 0, (), (), str(exc)))
            continue
        left = None if max_passages is None else max_passages - len(seen)
        previews.append(_preview(corpus, seen, shown, left))
    return previews


def _matching(source: str | PathLike[str]) -> list[str]:
    """Return the files that a pattern of a URL matches; the source itself if there are none."""
    try:
        return list_matching(source)
    except SourceError:  # the source is refused, like any other that is missing
        return [str(source)]


def _preview(corpus: Corpus, seen: PidSet, shown: int, left: int | None) -> SourcePreview:
    """Read one source; `left` is the number of passages after which to stop."""
    passages: list[Passage] = []
    rejects: list[Reject] = []
    found = rejected = 0
    error = None
    try:
        for row in corpus if left != 0 else ():
            if isinstance(row, Passage) and seen.add(row.pid):
                found += 1
                passages.extend(islice([row], shown - len(passages)))
                if found == left:
                    break
                continue
            if isinstance(row, Passage):
                row = reject_passage(row, duplicate_pid_reason(row))  # noqa: PLW2901
            rejected += 1
            rejects.extend(islice([row], shown - len(rejects)))
    except (SourceError, MissingExtraError) as exc:
        error = str(exc)
    (source,) = corpus.sources
    shape = corpus.shapes.get(source)
    return SourcePreview(source, shape, found, rejected, tuple(passages), tuple(rejects), error)
