"""The loop of an improvement: search, then find negatives, train, encode and search again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding.matching import require_same_model
from msmarco_qdrant.encoding.options import resolve_devices
from msmarco_qdrant.encoding.trainable import load_trainable_for
from msmarco_qdrant.evaluation.measures import depth_of, measure_run
from msmarco_qdrant.evaluation.records import Run
from msmarco_qdrant.evaluation.runs import rank_scores, save_run
from msmarco_qdrant.evaluation.systems import System, search_run
from msmarco_qdrant.evaluation.text_lines import read_text_lines, split_columns
from msmarco_qdrant.train.improve_clients import ImproveClients
from msmarco_qdrant.train.improve_commands import StepCommands
from msmarco_qdrant.train.improve_log import StepLog, figures_of
from msmarco_qdrant.train.improve_negatives import RoundNegatives
from msmarco_qdrant.train.improve_options import ImproveData, ImproveOptions
from msmarco_qdrant.train.improve_records import ImproveRound
from msmarco_qdrant.train.settings import TrainSettings
from msmarco_qdrant.train.trial import build_trial

if TYPE_CHECKING:
    from msmarco_qdrant.search.client import SearchClient

_ALL = 1000  # hits per query for a measure without a cutoff


class ImproveRun:
    """The rounds of one improvement; each step resumes where a killed run stopped.

    Args:
        clients: Clients of the live collection and of the trials.
        data: The queries.
        options: The options.
        log: Runs the steps.
    """

    def __init__(
        self, clients: ImproveClients, data: ImproveData, options: ImproveOptions, log: StepLog
    ) -> None:
        self._clients = clients
        self._data = data
        self._options = options
        self._log = log
        live = clients.live
        self._commands = StepCommands(live.collection, live.store.dsn, data.files, options.tenant)
        self._negatives = RoundNegatives(clients, data, options, log, self._commands)
        self._state_before = ""

    def search_before(self) -> float:
        """Search the live collection; return the first measure over the validation queries."""
        clients = self._clients
        stored = clients.live.metadata.encoder

        def work() -> Mapping[str, Any]:
            _, base = load_trainable_for(stored, clients.model, "cpu")
            require_same_model(clients.live.collection, stored, base)
            state = clients.live_state()
            figures = self._search(clients.live, 0, "before")
            model = {"model": clients.model, "fingerprint": stored.fingerprint}
            return {**figures, **model, "state": state}

        command = self._commands.evaluate(None, self._options.modes, self._options.measures)
        step = self._log.run(0, "before", work, folder="before", command=command)
        clients.begin(step.figures["model"], step.figures["fingerprint"])
        self._state_before = step.figures.get("state", "")
        return float(step.figures[self._options.modes[0]])

    def run_round(self, number: int) -> ImproveRound:
        """Train and measure one more model."""
        has_negatives = self._options.trainings[0].negatives > 0
        model = self._train_best(number, self._negatives.find(number) if has_negatives else None)
        self._clients.add_model(number, model)
        self._log.run(number, "encode", lambda: self._encode(number), folder="trial")
        command = self._commands.evaluate(
            self._log.path(number, "trial"), self._options.modes, self._options.measures
        )
        step = self._log.run(
            number, "search", lambda: self._search_trial(number), folder="runs", command=command
        )
        return ImproveRound(number, str(model), float(step.figures[self._options.modes[0]]))

    def test_runs(self, mode: SearchMode, rounds: Sequence[ImproveRound]) -> list[Run]:
        """Return the runs over the test queries: of the old model, then of each round."""
        names = {0: "before", **{one.number: f"round {one.number}" for one in rounds}}
        return [
            _read_run(self._run_file(number, "test", mode), f"{mode} {name}")
            for number, name in names.items()
        ]

    def _train_best(self, number: int, examples: Path | None) -> Path:
        """Train with each learning rate; return the folder of the best by validation queries."""
        trained = {
            out: self._train(number, examples, settings, out)
            for settings in self._options.trainings
            for out in [self._log.path(number, self._model_name(settings))]
        }
        return max(trained, key=lambda out: trained[out])

    def _model_name(self, settings: TrainSettings) -> str:
        is_only = len(self._options.trainings) == 1
        return "model" if is_only else f"model-{settings.learning_rate:g}"

    def _train(
        self, number: int, examples: Path | None, settings: TrainSettings, out: Path
    ) -> float:
        """Train one model; return its measure over the validation queries."""
        from msmarco_qdrant.train.bi_encoder import train_bi_encoder

        data, options = self._data, self._options
        base = self._clients.base_of(number)
        scores = self._log.path(number, "judged") if settings.loss != "contrastive" else None

        def train() -> Mapping[str, Any]:
            report = train_bi_encoder(
                base,
                self._clients.live,
                data.split.train,
                examples or data.positives(),
                out,
                scores=scores,
                dev_queries=data.split.validation,
                dev_qrels=data.validation,
                tenant=options.tenant,
                device=resolve_devices(options.encoder_options.device)[0],
                progress=options.progress,
                **asdict(settings),
            )
            measured = 0.0 if report.dev is None else report.dev.by_step[report.kept_step]
            rate = {"learning_rate": settings.learning_rate, "validation": measured}
            return {**rate, **figures_of(report)}

        name = out.name.replace("model", "train", 1)
        command = self._commands.train(base, examples, scores, settings, out)
        step = self._log.run(number, name, train, folder=out.name, command=command)
        return float(step.figures["validation"])

    def _encode(self, number: int) -> Mapping[str, Any]:
        clients = self._clients
        clients.require_unchanged()
        report = build_trial(
            clients.live,
            clients.encoder(number),
            self._log.path(number, "trial"),
            tenant=self._options.tenant,
            progress=self._options.progress,
        )
        return {
            "passages": report.written + report.unchanged,
            "rejected": report.rejected,
            "changed": self._state_before not in ("", clients.live_state()),
        }

    def _search_trial(self, number: int) -> Mapping[str, Any]:
        with self._clients.open_trial(number) as client:
            return self._search(client, number, "runs")

    def _search(self, client: SearchClient, number: int, name: str) -> dict[str, Any]:
        """Search and save runs; return the first measure over the validation queries by mode."""
        folder = self._log.path(number, name)
        folder.mkdir(exist_ok=True)
        measures = self._options.measures
        depth, tenant = depth_of(measures) or _ALL, self._clients.tenant(client)
        figures: dict[str, Any] = {"measure": measures[0]}
        for mode in self._options.modes:
            for part in ("validation", "test"):
                queries, qrels = self._data.part(part)
                run = search_run(client, queries, System(mode), depth, tenant=tenant)
                save_run(self._run_file(number, part, mode), run.rankings.items())
                if part == "validation":
                    values = measure_run([measures[0]], qrels, run)[measures[0]]
                    figures[mode] = fmean(values.values())
        return figures

    def _run_file(self, number: int, part: str, mode: SearchMode) -> Path:
        folder = self._log.path(number, "runs" if number else "before")
        return folder / f"{part}.{mode}.trec.gz"


def _read_run(path: Path, name: str) -> Run:
    """Read a run of `save_run`; unlike `read_run`, also of a model whose scores are all equal."""
    scores: dict[str, dict[str, float]] = {}
    for _, line in read_text_lines(path):
        qid, _, pid, _, score, _ = split_columns(line)
        scores.setdefault(qid, {})[pid] = float(score)
    return Run(name, {qid: rank_scores(of_query) for qid, of_query in scores.items()})
