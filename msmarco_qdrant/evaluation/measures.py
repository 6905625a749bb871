"""Adapter of `ir_measures`: names of measures, and their value for each query.

The library gets numbers as qids: some programs behind it accept only numbers, or read `a-1` and
`b-1` as one query. It gets ranks as scores, in the order of `msmarco_qdrant.evaluation.runs`: the
libraries behind it break ties in different ways, so that a query could have one first passage for
nDCG@10 and another for RR@10.
"""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from msmarco_qdrant.core.batched import in_batches
from msmarco_qdrant.errors import MissingExtraError, MsmarcoQdrantError, UsageError
from msmarco_qdrant.evaluation.records import Qrels, Ranking, Run

DEFAULT_MEASURES = "nDCG@10 RR@10 R@100"
"""The measures of TREC DL and of MS MARCO dev, and the upper bound of reranking 100 hits."""

_EXAMPLES = "nDCG@10, RR@10, RR(rel=2)@10, R@100, R@1000, AP, P@10, Success@10, Judged@10"
_BETWEEN = re.compile(r"[\s,]+(?![^()]*\))")  # not inside the parentheses of parameters
_PROBE = "1"  # a qid: gdeval, which computes ERR, takes numbers only
_GDEVAL_GRADE = 4  # the highest grade that gdeval accepts
_BATCH_QUERIES = 256  # the rankings of a batch are copied for the library
# The parser and the providers raise these; they use assertions for validation.
_REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    subprocess.SubprocessError,
)


def parse_measures(text: str) -> tuple[str, ...]:
    """Parse a list of measures; return each once, in the form of `ir_measures`.

    Names are separated by white space or commas, such as "nDCG@10 RR(rel=2)@10". Each is computed
    for one made-up query, so that none fails after an hour of searching.

    Raises:
        UsageError: For an unknown name, or a measure that no installed program computes.
        MissingExtraError: Without the extra `eval`.
    """
    library = _ir_measures()
    names = [name for name in _BETWEEN.split(text.strip()) if name]
    if not names:
        raise UsageError(f"measures must name one or more, such as {_EXAMPLES}")
    parsed = [_parse(library, name) for name in names]
    for name, measure in zip(names, parsed, strict=True):
        _calculate(library, name, measure, {_PROBE: {"p": 1}}, {_PROBE: {"p": 1.0}})
    return tuple(dict.fromkeys(str(measure) for measure in parsed))


def depth_of(measures: Sequence[str]) -> int | None:
    """Return the largest cutoff of some measures; None if one of them has no cutoff.

    Raises:
        UsageError: For an unknown name.
        MissingExtraError: Without the extra `eval`.
    """
    library = _ir_measures()
    cutoffs = [_parse(library, name).params.get("cutoff") for name in measures]
    return None if None in cutoffs else max(cutoffs)


def measure_run(measures: Sequence[str], qrels: Qrels, run: Run) -> dict[str, dict[str, float]]:
    """Compute each measure for each judged query.

    Args:
        measures: Names from `parse_measures`.
        qrels: The judgments of the queries that count.
        run: A judged query without an answer counts 0; queries that are not in `qrels` are ignored.

    Returns:
        Values by measure, then by qid in the order of `qrels`.

    Raises:
        UsageError: For an unknown measure, or one without a finite value for a query.
        MissingExtraError: Without the extra `eval`.
    """
    library = _ir_measures()
    parsed = {name: _parse(library, name) for name in measures}
    values: dict[str, dict[str, float]] = {name: {} for name in measures}
    for qids in in_batches(qrels, _BATCH_QUERIES):
        numbers = {qid: str(number) for number, qid in enumerate(qids, start=1)}
        judged = {number: dict(qrels[qid]) for qid, number in numbers.items()}
        ranks = {number: _ranks(run.rankings.get(qid, ())) for qid, number in numbers.items()}
        answered = {number: of_query for number, of_query in ranks.items() if of_query}
        for name, measure in parsed.items():
            found = _calculate(library, name, measure, judged, answered)
            values[name] |= {qid: _finite(found[numbers[qid]], name, qid) for qid in qids}
    return values


def _ranks(ranking: Ranking) -> dict[str, float]:
    """Return scores that decrease with the rank: integers, exact in the float32 of trec_eval."""
    return {pid: float(len(ranking) - place) for place, (pid, _) in enumerate(ranking)}


def _parse(library: ModuleType, name: str) -> Any:
    try:
        word, parameters, cutoff = _split_name(name)
        known = _registry(library)[word]
    except (KeyError, SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as exc:
        raise UsageError(f"measure {name!r} is unknown; examples: {_EXAMPLES}") from exc
    try:
        if cutoff is not None:
            parameters[known.AT_PARAM] = cutoff
        measure = known(**parameters)
        cutoff = measure.params.get("cutoff", 1)
    except _REFUSALS as exc:
        raise _library_failed(exc) from exc
    if type(cutoff) is not int or cutoff < 1:  # trec_eval ends the process for 0
        raise UsageError(f"the cutoff of a measure must be 1 or more, got {cutoff!r} in {name!r}")
    return measure


def _split_name(name: str) -> tuple[str, dict[str, Any], Any]:
    """Split a name such as `RR(rel=2)@10` into word, parameters and cutoff.

    Not `ir_measures.parse_measure`: it needs names of `ast` that Python 3.14 does not have.
    """
    expression = ast.parse(name, mode="eval").body
    parameters: dict[str, Any] = {}
    cutoff = None
    if isinstance(expression, ast.BinOp) and isinstance(expression.op, ast.MatMult):
        cutoff, expression = ast.literal_eval(expression.right), expression.left
    if isinstance(expression, ast.Call) and not expression.args:
        parameters = {str(one.arg): ast.literal_eval(one.value) for one in expression.keywords}
        expression = expression.func
    if not isinstance(expression, ast.Name):
        raise ValueError(name)  # noqa: TRY004  # like every other refusal of a name
    return expression.id, parameters, cutoff


def _registry(library: ModuleType) -> Mapping[str, Any]:
    try:
        registry: Mapping[str, Any] = library.measures.registry
    except AttributeError as exc:
        raise _library_failed(exc) from exc
    return registry


def _calculate(
    library: ModuleType,
    name: str,
    measure: Any,
    judged: Mapping[str, Mapping[str, int]],
    answered: Mapping[str, Mapping[str, float]],
) -> dict[str, float]:
    _check_grades(name, measure, judged)
    try:
        metrics = list(library.iter_calc([measure], judged, answered))
    except _REFUSALS as exc:
        reason = str(exc) or type(exc).__name__
        raise UsageError(f"measure {name!r} cannot be computed here: {reason}") from exc
    return {metric.query_id: float(metric.value) for metric in metrics}


def _finite(value: float, name: str, qid: str) -> float:
    if not math.isfinite(value):
        raise UsageError(f"measure {name!r} has no value for query {qid!r}: omit it")
    return value


def _check_grades(name: str, measure: Any, judged: Qrels) -> None:
    """Refuse grades at which gdeval, a separate program, would exit with a message."""
    if measure.NAME != "ERR" and measure.params.get("dcg") != "exp-log2":
        return
    grade = max((grade for grades in judged.values() for grade in grades.values()), default=0)
    if grade > _GDEVAL_GRADE:
        raise UsageError(
            f"measure {name!r} accepts grades up to {_GDEVAL_GRADE}, got {grade}: omit it"
        )


def check_relevance_levels(measures: Sequence[str], qrels: Qrels) -> None:
    """Refuse a measure such as "RR(rel=2)@10" if no grade reaches its `rel`: it would be 0.

    Raises:
        UsageError: For such a measure, or an unknown one.
        MissingExtraError: Without the extra `eval`.
    """
    library = _ir_measures()
    highest = max((grade for grades in qrels.values() for grade in grades.values()), default=0)
    for name in measures:
        level = _parse(library, name).params.get("rel", 1)
        if level > highest:
            raise UsageError(
                f"measure {name!r} counts grades of {level} or more, but the highest grade of the "
                f"judgments is {highest}: pass another measure"
            )


def _ir_measures() -> ModuleType:
    try:
        import ir_measures
    except ModuleNotFoundError as exc:
        if exc.name == "ir_measures":
            raise MissingExtraError("evaluating", "eval") from exc
        raise _library_failed(exc) from exc
    except (ImportError, *_REFUSALS) as exc:
        raise _library_failed(exc) from exc
    return ir_measures


def _library_failed(cause: BaseException) -> MsmarcoQdrantError:
    """Return the error for a library that does not work here, such as on a new Python."""
    version = ".".join(map(str, sys.version_info[:2]))
    return MsmarcoQdrantError(
        f"the library ir_measures failed on Python {version}: {type(cause).__name__}: {cause}; "
        "install another version of ir-measures, or use another Python"
    )
