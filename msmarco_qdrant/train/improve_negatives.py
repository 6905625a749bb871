"""Hard negatives of a round: mined with the model of the round before, judged and chosen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msmarco_qdrant.encoding import Encoder, Reranker
from msmarco_qdrant.train.improve_clients import ImproveClients
from msmarco_qdrant.train.improve_commands import StepCommands
from msmarco_qdrant.train.improve_log import StepLog, figures_of
from msmarco_qdrant.train.improve_options import ImproveData, ImproveOptions
from msmarco_qdrant.train.mined_mode import judged_mode


class RoundNegatives:
    """The steps of a round that find negatives.

    Args:
        clients: Clients of what is mined.
        data: The queries.
        options: The options.
        log: Runs the steps.
        commands: The command of each step.
    """

    def __init__(
        self,
        clients: ImproveClients,
        data: ImproveData,
        options: ImproveOptions,
        log: StepLog,
        commands: StepCommands,
    ) -> None:
        self._clients = clients
        self._data = data
        self._options = options
        self._log = log
        self._commands = commands

    def find(self, number: int) -> Path:
        """Mine, judge and choose; return the folder of the chosen negatives."""
        mined = self._mine(number)
        judge = self._options.judge
        scores = None if judge is None else self._judge(judge, number, mined)
        return self._choose(number, mined, scores)

    def _mine(self, number: int) -> Path:
        from msmarco_qdrant.train.mine import mine_negatives

        options, data = self._options, self._data
        mined = self._log.path(number, "mined")

        def work() -> Mapping[str, Any]:
            with self._clients.open_mined(number) as client:
                report = mine_negatives(
                    client,
                    data.split.train,
                    data.positives(),
                    mined,
                    modes=options.mine_modes,
                    depth=options.depth,
                    tenant=self._clients.tenant(client),
                    progress=options.progress,
                )
            return figures_of(report)

        trial = self._clients.trial_to_mine(number)
        command = self._commands.mine(trial, options.mine_modes, options.depth, mined)
        self._log.run(number, "mine", work, folder="mined", command=command)
        return mined

    def _judge(self, judge: Reranker | Encoder, number: int, mined: Path) -> Path:
        from msmarco_qdrant.train.judge import judge_negatives

        options, data = self._options, self._data
        judged, mode = self._log.path(number, "judged"), judged_mode(options.mine_modes)

        def work() -> Mapping[str, Any]:
            with self._clients.open_mined(number) as client:
                report = judge_negatives(
                    judge,
                    client,
                    data.split.train,
                    mined,
                    judged,
                    dev_queries=data.split.validation,
                    dev_qrels=data.validation,
                    allow_weak=options.allow_weak_judge,
                    mode=mode,
                    depth=options.depth,
                    tenant=self._clients.tenant(client),
                    progress=options.progress,
                )
            return figures_of(report)

        command = self._commands.judge(
            judge,
            self._clients.trial_to_mine(number),
            mined,
            judged,
            mode=mode,
            depth=options.depth,
            allow_weak=options.allow_weak_judge,
        )
        self._log.run(number, "judge", work, folder="judged", command=command)
        return judged

    def _choose(self, number: int, mined: Path, scores: Path | None) -> Path:
        from msmarco_qdrant.train.choose import choose_negatives

        strategy, seed = self._options.strategy, self._options.trainings[0].seed
        chosen = self._log.path(number, "chosen")

        def work() -> Mapping[str, Any]:
            # The training draws some for each positive, so all are kept here.
            report = choose_negatives(
                mined, chosen, strategy, scores=scores, number=None, seed=seed
            )
            return figures_of(report)

        command = self._commands.choose(mined, scores, strategy, seed, chosen)
        self._log.run(number, "choose", work, folder="chosen", command=command)
        return chosen
