"""Values of an evaluation by query, and their means by topic."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from statistics import fmean
from typing import TYPE_CHECKING

from msmarco_qdrant.errors import SourceError, UsageError
from msmarco_qdrant.evaluation.records import Evaluation, Interval
from msmarco_qdrant.evaluation.statistics import mean_interval
from msmarco_qdrant.evaluation.tables import format_table, interval_text
from msmarco_qdrant.evaluation.text_lines import read_text_lines, shorten

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query

NO_TOPIC = "(none)"
_SHOWN_CHARACTERS = 50


@dataclass(frozen=True, slots=True)
class TopicValues:
    """The first measure over the judged queries of one topic.

    Attributes:
        topic: The topic; "(none)" for queries without one.
        queries: Number of judged queries.
        means: Mean of the measure, by run.
        intervals: Of these means; None for a single query.
    """

    topic: str
    queries: int
    means: Mapping[str, float]
    intervals: Mapping[str, Interval | None]


def read_topics(source: str | PathLike[str]) -> Mapping[str, str]:
    """Read the topic of each query, from lines `qid<TAB>topic`.

    Raises:
        SourceError: For an unreadable or empty file, another line, or two topics of one query.
    """
    topics: dict[str, str] = {}
    for place, line in read_text_lines(source):
        qid, tab, topic = line.rstrip("\r\n").partition("\t")
        if not (qid and tab and topic.strip()):
            raise SourceError(f"{place}: expected qid<TAB>topic, got {shorten(line)!r}")
        topic = topic.strip()
        if (first := topics.setdefault(qid, topic)) != topic:
            raise SourceError(f"{place}: query {qid!r} has two topics, {first!r} and {topic!r}")
    if not topics:
        raise SourceError(f"{source} has no topics; expected lines qid<TAB>topic")
    return topics


def break_down(evaluation: Evaluation, topics: Mapping[str, str]) -> tuple[TopicValues, ...]:
    """Return the first measure of each run by topic, the topics with most queries first.

    Raises:
        UsageError: If no judged query has a topic.
    """
    measure = evaluation.measures[0]
    per_run = {run.name: run.values[measure].per_query for run in evaluation.runs}
    groups: dict[str, list[str]] = {}
    for qid in evaluation.runs[0].values[measure].per_query:
        groups.setdefault(topics.get(qid, NO_TOPIC), []).append(qid)
    check_topics(topics, [qid for qids in groups.values() for qid in qids])
    found = []
    for topic, qids in sorted(groups.items(), key=lambda one: (-len(one[1]), one[0])):
        values = {name: [of_query[qid] for qid in qids] for name, of_query in per_run.items()}
        found.append(
            TopicValues(
                topic,
                len(qids),
                {name: fmean(of_topic) for name, of_topic in values.items()},
                {name: mean_interval(of_topic) for name, of_topic in values.items()},
            )
        )
    return tuple(found)


def check_topics(topics: Mapping[str, str], qids: Collection[str]) -> None:
    """Refuse topics of other queries."""
    if not any(qid in topics for qid in qids):
        raise UsageError(
            f"none of the {len(qids):,} judged queries has a topic: the topics have qids such as "
            f"{min(topics, default='none')!r}, the queries {min(qids, default='none')!r}"
        )


def topics_text(evaluation: Evaluation, topics: tuple[TopicValues, ...]) -> str:
    """Return a table of the first measure by topic, with two lines for each."""
    names = [run.name for run in evaluation.runs]
    rows = [["topic", "queries", *names]]
    for one in topics:
        means = [f"{one.means[name]:.4f}" for name in names]
        intervals = [interval_text(one.intervals[name]) for name in names]
        rows += [[one.topic, f"{one.queries:,}", *means], ["", "", *intervals]]
    return f"{evaluation.measures[0]} by topic:\n\n{format_table(rows)}"


def queries_table(evaluation: Evaluation, queries: Collection[Query]) -> str:
    """Return a table of the first measure by query, the lowest value of the first run first."""
    measure = evaluation.measures[0]
    per_run = [run.values[measure].per_query for run in evaluation.runs]
    texts = {query.qid: " ".join(query.text.split()) for query in queries}
    rows = [["qid", *(run.name for run in evaluation.runs), "query"]]
    for qid in sorted(per_run[0], key=lambda qid: (per_run[0][qid], qid)):
        values = [f"{of_query[qid]:.4f}" for of_query in per_run]
        rows.append([qid, *values, texts.get(qid, "")[:_SHOWN_CHARACTERS]])
    return f"{measure} by query:\n\n{format_table(rows)}"
