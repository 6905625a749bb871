"""The files of MS MARCO passage ranking in one folder, by their official names or our small data's.

Queries, judgments, candidates and the collection, each as it is or compressed with gzip. The files
that a column of the published table needs depend on the kind of model; missing ones are listed by
name.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Passage, Query
    from msmarco_qdrant.evaluation import Qrels, Run

Kind: TypeAlias = Literal["bi-encoder", "cross-encoder", "baseline"]

COLLECTION = ("collection.tsv",)


class Column(NamedTuple):
    """A column of the published table, and the names that its files go by, the official first.

    Attributes:
        title: What the table calls it.
        measure: What is published, by its name in `ir_measures`.
        figure: The attribute of a catalog's entry that holds what was published.
        searches: Whether bi-encoders search the whole collection; else they rank candidates.
        queries: Names of the queries' file.
        qrels: Names of the judgments' file.
        candidates: Names of the candidates' file; those of the published figures first.
    """

    title: str
    measure: str
    figure: str
    searches: bool
    queries: Sequence[str]
    qrels: Sequence[str]
    candidates: Sequence[str]


COLUMNS: Mapping[str, Column] = {
    "dl19": Column(
        title="DL 19",
        measure="nDCG@10",
        figure="ndcg10_dl19",
        searches=False,
        queries=("msmarco-test2019-queries.tsv", "queries.dl19.tsv"),
        qrels=("2019qrels-pass.txt", "qrels.dl19.txt"),
        candidates=("msmarco-passagetest2019-top1000.tsv", "bm25-top100.dl19.trec"),
    ),
    "dl20": Column(
        title="DL 20",
        measure="nDCG@10",
        figure="ndcg10_dl20",
        searches=False,
        queries=("msmarco-test2020-queries.tsv", "queries.dl20.tsv"),
        qrels=("2020qrels-pass.txt", "qrels.dl20.txt"),
        candidates=("msmarco-passagetest2020-top1000.tsv", "bm25-top100.dl20.trec"),
    ),
    "dev": Column(
        title="dev",
        measure="RR@10",
        figure="mrr10_dev",
        searches=True,
        queries=("queries.dev.small.tsv", "queries.dev.tsv"),
        qrels=("qrels.dev.small.tsv", "qrels.dev.txt"),
        candidates=("top1000.dev.tsv", "top1000.dev"),
    ),
}


class Folder:
    """A folder of such files.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digests: dict[Path, str] = {}

    def find(self, names: Sequence[str]) -> Path | None:
        """The first of these files that is there, as it is or compressed."""
        wanted = (self.path / f"{name}{ending}" for name in names for ending in ("", ".gz"))
        return next((path for path in wanted if path.is_file()), None)

    def identify(self, path: Path) -> dict[str, object]:
        """The size in bytes and the sha256 of a file, which is read once for that."""
        if path not in self._digests:
            with path.open("rb") as file:
                self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": path.stat().st_size, "sha256": self._digests[path]}


class Data:
    """The files of a folder for one column.

    Args:
        folder: Where to look.
        key: The column's name, a key of `COLUMNS`.
    """

    def __init__(self, folder: Folder, key: str) -> None:
        self.key = key
        self.column = COLUMNS[key]
        self._folder = folder
        self._queries = folder.find(self.column.queries)
        self._qrels = folder.find(self.column.qrels)
        self.candidates = folder.find(self.column.candidates)
        self.collection = folder.find(COLLECTION)

    def searches(self, kind: Kind) -> bool:
        """True if a model of this kind searches the collection; else it ranks candidates."""
        return self.column.searches and kind != "cross-encoder"

    def whole(self, kind: Kind) -> Path | None:
        """The collection, where all of it is wanted: to be searched, or for BM25's word counts."""
        return self.collection if kind == "baseline" or self.searches(kind) else None

    def lacking(self, kind: Kind) -> list[Sequence[str]]:
        """The names looked for in vain of each file that a model of this kind wants."""
        wanted: list[tuple[Path | None, Sequence[str]]] = [
            (self._queries, self.column.queries),
            (self._qrels, self.column.qrels),
        ]
        if not self.searches(kind):
            wanted.append((self.candidates, self.column.candidates))
        if self.searches(kind) or self._without_texts:
            wanted.append((self.collection, COLLECTION))
        return [names for path, names in wanted if path is None]

    def used(self, kind: Kind) -> dict[str, dict[str, object]]:
        """The files that decide a figure of this kind of model: size and digest by name."""
        ranked = None if self.searches(kind) else self.candidates
        texts = self.collection if self._without_texts else self.whole(kind)
        paths = (self._queries, self._qrels, ranked, texts)
        return {path.name: self._folder.identify(path) for path in paths if path is not None}

    @property
    def official(self) -> bool:
        """True if the candidates are those of the published figures."""
        return self.candidates is not None and not self._without_texts

    @cached_property
    def qrels(self) -> Qrels:
        """The judgments."""
        from msmarco_qdrant.evaluation import read_qrels

        return read_qrels(_there(self._qrels))

    @cached_property
    def queries(self) -> list[Query]:
        """The queries that have judgments: the others count nowhere."""
        from msmarco_qdrant.sources.corpus import read_queries

        return [query for query in read_queries(_there(self._queries)) if query.qid in self.qrels]

    def candidates_run(self) -> Run:
        """The candidates of the judged queries."""
        from msmarco_qdrant.evaluation import Run, read_run

        path, qids = _there(self.candidates), {query.qid for query in self.queries}
        if self._without_texts:
            given = read_run(path).rankings
            return Run(path.name, {qid: given[qid] for qid in given if qid in qids})
        rankings: dict[str, list[tuple[str, float]]] = {}
        for qid, pid, _ in _candidate_lines(path, qids):
            rankings.setdefault(qid, []).append((pid, 0.0))
        return Run(path.name, rankings)

    def candidate_passages(self, candidates: Run) -> Iterator[Passage]:
        """The passages of the candidates, each once, in the order of the file that has them."""
        from msmarco_qdrant.core.records import Passage
        from msmarco_qdrant.sources.corpus import Corpus

        wanted = {pid for ranking in candidates.rankings.values() for pid, _ in ranking}
        if self._without_texts:
            rows = Corpus(_there(self.collection))
            yield from (row for row in rows if isinstance(row, Passage) and row.pid in wanted)
            return
        for _, pid, text in _candidate_lines(_there(self.candidates), candidates.rankings.keys()):
            if pid in wanted:
                wanted.remove(pid)
                yield Passage(pid, text)

    @property
    def _without_texts(self) -> bool:
        """True if the candidates are a TREC run, so that their texts are in the collection."""
        return self.candidates is not None and ".trec" in self.candidates.suffixes


def _there(path: Path | None) -> Path:
    if path is None:
        raise FileNotFoundError("a file that `lacking` lists as missing was requested")
    return path


def _candidate_lines(path: Path, qids: Collection[str]) -> Iterator[tuple[str, str, str]]:
    """Qid, pid and passage of some queries' lines of ``qid pid query passage``, with tabs."""
    from msmarco_qdrant.errors import SourceError

    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip("\r\n").split("\t", 3)
            if len(fields) != 4:
                raise SourceError(
                    f"{path}:{number}: {len(fields)} columns, expected qid, pid, query and passage"
                )
            if fields[0] in qids:
                yield fields[0], fields[1], fields[3]


def _opened(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="\n")
    return path.open(encoding="utf-8", newline="\n")
