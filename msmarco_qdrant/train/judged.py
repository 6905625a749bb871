"""Scores of a judge for the passages of training queries, by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.train.examples import ExampleSet
from msmarco_qdrant.train.ragged import Ragged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from msmarco_qdrant.train.score_lookup import ScoreLookup


class JudgedScores:
    """The judge's score of each positive and negative of some examples.

    Args:
        examples: The queries.
        scores: The judge's scores.

    Attributes:
        eligible: bool, one for each value of `examples.positives`: True if it has a score, and
            its query a negative with one.
        unjudged: Pairs of query and passage without a score.

    Raises:
        UsageError: If no example has the scores that a loss needs.
    """

    def __init__(self, examples: ExampleSet, scores: ScoreLookup) -> None:
        import numpy as np

        positives = np.full(len(examples.positives.values), np.nan, np.float32)
        negatives = np.full(len(examples.negatives.values), np.nan, np.float32)
        for row, qid in enumerate(examples.qids):
            found = scores.get(qid)
            for ragged, pids, values in (
                (examples.positives, examples.positive_pids, positives),
                (examples.negatives, examples.negative_pids, negatives),
            ):
                span = slice(int(ragged.offsets[row]), int(ragged.offsets[row + 1]))
                values[span] = [found.get(examples.pids[pid], np.nan) for pid in pids[span]]
        self._positives = Ragged(examples.positives.values, examples.positives.offsets)
        self._negatives = examples.negatives
        self._scores = (positives, negatives)
        judged = np.zeros(len(examples.qids), bool)
        judged[examples.negatives.rows[np.isfinite(negatives)]] = True
        self.eligible: NDArray[np.bool_] = np.isfinite(positives) & judged[examples.positives.rows]
        self.unjudged = int(np.isnan(positives).sum() + np.isnan(negatives).sum())
        if not self.eligible.any():
            raise UsageError(
                f"none of the {len(examples.qids):,} training queries has scores of a positive and "
                f"a negative, such as {examples.qids[0]!r}: pass the scores of these negatives"
            )

    def judged_negatives(self, query: int) -> NDArray[np.int32]:
        """Return the negatives of a query that have a score."""
        import numpy as np

        span = slice(*self._negatives.offsets[query : query + 2].tolist())
        return self._negatives.values[span][np.isfinite(self._scores[1][span])]

    def labels(
        self,
        queries: NDArray[np.int32],
        chosen: Sequence[NDArray[np.int32]],
        passages: NDArray[np.int32],
    ) -> NDArray[np.float32]:
        """Return float32 `(queries, 1 + negatives, 2)`: columns in `passages`, and scores."""
        import numpy as np

        columns = {int(number): column for column, number in enumerate(passages)}
        labels = np.empty((len(queries), len(chosen[0]), 2), np.float32)
        for row, (query, numbers) in enumerate(zip(queries, chosen, strict=True)):
            known = self._of_query(int(query))
            labels[row, :, 0] = [columns[int(number)] for number in numbers]
            labels[row, :, 1] = [known[int(number)] for number in numbers]
        return labels

    def _of_query(self, query: int) -> dict[int, float]:
        found: dict[int, float] = {}
        for ragged, scores in zip((self._positives, self._negatives), self._scores, strict=True):
            span = slice(*ragged.offsets[query : query + 2].tolist())
            found.update(zip(ragged.values[span].tolist(), scores[span].tolist(), strict=True))
        return found
