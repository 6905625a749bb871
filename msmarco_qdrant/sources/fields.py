"""Names of the fields of a row that hold its id, text and title."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msmarco_qdrant.errors import UsageError


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of fields; of several names the first that a row has is used.

    Attributes:
        ids: Names of the id.
        texts: Names of the text.
        titles: Names of the title, which is joined in front of the text.
        skip: Fields that are left out.
        kind: "pid" or "qid": what a row's id is.
        is_given: True if a name was given by the caller.
    """

    ids: tuple[str, ...]
    texts: tuple[str, ...]
    titles: tuple[str, ...] = ("title",)
    skip: frozenset[str] = frozenset()
    kind: str = "pid"
    is_given: bool = False

    def digest(self) -> bytes:
        """The names as bytes, the same in every process."""
        named = (self.ids, self.texts, self.titles, sorted(self.skip), self.kind)
        return repr(named).encode("utf-8", "backslashreplace")

    @property
    def numbers(self) -> bool:
        """True if id or text are given by the number of a column, which has no name then."""
        return self.is_given and any(
            len(names) == 1 and names[0].isdecimal() for names in (self.ids, self.texts)
        )

    @property
    def known(self) -> frozenset[str]:
        """All names of id, text and title."""
        return frozenset((*self.ids, *self.texts, *self.titles))


# MS MARCO (v1, v2, v2.1: passages, segments, documents), BEIR, DPR, Anserini and Tevatron.
PASSAGE = Fields(
    ids=("pid", "_id", "id", "docid", "doc_id", "docno", "passage_id"),
    texts=("text", "passage", "contents", "segment", "body", "content"),
)
QUERY = Fields(
    ids=("qid", "query_id", "_id", "id", "pid"),
    texts=("text", "query", "query_text", "question"),
    titles=(),
    kind="qid",
)


def passage_fields(
    pid_field: str | None = None,
    text_field: str | None = None,
    title_field: str | None = None,
    skip_field: str | Sequence[str] = (),
) -> Fields:
    """Return the fields of passages, with the caller's names in place of the known ones.

    Raises:
        UsageError: For an empty name, or a field that is used and skipped.
    """
    skip = frozenset([skip_field] if isinstance(skip_field, str) else skip_field)
    named = {"pid_field": pid_field, "text_field": text_field, "title_field": title_field}
    for option, name in named.items():
        if name == "":
            raise UsageError(f"{option} must be the name of a field, got ''")
        if name is not None and name in skip:
            raise UsageError(f"{option} {name!r} is also a skip_field: pass it once")
    used = [name for name in named.values() if name is not None]
    if len(set(used)) != len(used):
        raise UsageError(f"pid_field, text_field and title_field must differ, got {used}")
    return Fields(
        ids=PASSAGE.ids if pid_field is None else (pid_field,),
        texts=PASSAGE.texts if text_field is None else (text_field,),
        titles=PASSAGE.titles if title_field is None else (title_field,),
        skip=skip,
        is_given=pid_field is not None or text_field is not None,
    )
