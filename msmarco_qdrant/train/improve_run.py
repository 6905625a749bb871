"""The loop of an improvement: search, then mine, judge, choose, train, encode and search again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.encoding import Encoder, Reranker, load_encoder
from msmarco_qdrant.encoding.matching import require_same_model
from msmarco_qdrant.encoding.options import EncoderOptions, resolve_devices
from msmarco_qdrant.encoding.trainable import load_trainable_for
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.evaluation.measures import depth_of, measure_run
from msmarco_qdrant.evaluation.records import Qrels, Run
from msmarco_qdrant.evaluation.runs import rank_scores, save_run
from msmarco_qdrant.evaluation.systems import System, search_run
from msmarco_qdrant.evaluation.text_lines import read_text_lines, split_columns
from msmarco_qdrant.train.improve_commands import StepCommands
from msmarco_qdrant.train.improve_log import StepLog
from msmarco_qdrant.train.improve_records import ImproveRound
from msmarco_qdrant.train.mined_mode import judged_mode
from msmarco_qdrant.train.settings import TrainSettings
from msmarco_qdrant.train.split import Split
from msmarco_qdrant.train.trial import build_trial, open_trial

if TYPE_CHECKING:
    from msmarco_qdrant.core.records import Query
    from msmarco_qdrant.search.client import SearchClient

DEPTH = 100  # candidates per query and system
DEFAULT_STRATEGY = "ranks:1-60"  # of a ranking that nobody has judged
DEFAULT_JUDGED_STRATEGY = "margin:3"  # as the MS MARCO recipe of sentence-transformers
_ALL = 1000  # hits per query for a measure without a cutoff


@dataclass(frozen=True, slots=True, kw_only=True)
class ImproveOptions:
    """Checked options of `improve_collection`.

    Attributes:
        trainings: Settings of a round's trainings, of which the best is kept; they differ by
            their learning rates. 0 negatives leave out mining, judging and choosing.
        judge: Scores candidates; None to choose without scores.
        strategy: Written form of the strategy that chooses negatives.
        measures: The first one decides.
        tenant: The tenant whose passages of the collection are used; a trial has these alone.
        modes: Modes to compare; the first one decides.
        mine_modes: Modes to mine with.
    """

    trainings: tuple[TrainSettings, ...]
    judge: Reranker | Encoder | None
    allow_weak_judge: bool
    strategy: str
    depth: int
    mine_modes: tuple[SearchMode, ...]
    modes: tuple[SearchMode, ...]
    measures: tuple[str, ...]
    tenant: str | None
    encoder_options: EncoderOptions
    progress: bool


@dataclass(frozen=True, slots=True, eq=False)
class ImproveData:
    """The queries of an improvement, with their judgments by part."""

    split: Split
    train: Qrels
    validation: Qrels
    test: Qrels
    files: Path

    def part(self, name: str) -> tuple[Sequence[Query], Qrels]:
        """Return the queries and judgments of "train", "validation" or "test"."""
        return getattr(self.split, name), getattr(self, name)


class ImproveRun:
    """The rounds of one improvement; each step resumes where a killed run stopped.

    Args:
        client: A client of the live collection, which is only read.
        model: The location of its model.
        data: The queries.
        options: The options.
        log: Runs the steps.
    """

    def __init__(
        self,
        client: SearchClient,
        model: str,
        data: ImproveData,
        options: ImproveOptions,
        log: StepLog,
    ) -> None:
        self._client = client
        self._model = model
        self._data = data
        self._options = options
        self._log = log
        self._commands = StepCommands(
            client.collection, client.store.dsn, data.files, options.tenant
        )
        self._encoders: dict[int, Encoder] = {}
        self._models: dict[int, Path] = {}

    @property
    def model(self) -> str:
        """The location of the model before the first round."""
        return self._model

    def search_before(self) -> float:
        """Search the live collection; return the first measure over the validation queries."""
        stored = self._client.metadata.encoder

        def work() -> Mapping[str, Any]:
            _, base = load_trainable_for(stored, self._model, "cpu")
            require_same_model(self._client.collection, stored, base)
            state = self._state()
            figures = self._search(self._client, 0, "before")
            model = {"model": self._model, "fingerprint": stored.fingerprint}
            return {**figures, **model, "state": state}

        command = self._commands.evaluate(None, self._options.modes, self._options.measures)
        step = self._log.run(0, "before", work, folder="before", command=command)
        self._model = step.figures["model"]  # after a switch, the collection has another one
        self._fingerprint = step.figures["fingerprint"]
        self._state_before = step.figures.get("state", "")
        return float(step.figures[self._options.modes[0]])

    def run_round(self, number: int) -> ImproveRound:
        """Train and measure one more model."""
        base = self._model if number == 1 else str(self._models[number - 1])
        examples = self._prepare(number) if self._options.trainings[0].negatives else None
        model = self._models[number] = self._train_best(number, base, examples)
        self._log.run(number, "encode", lambda: self._encode(number, model), folder="trial")
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

    # ---- steps -------------------------------------------------------------------------------

    def _prepare(self, number: int) -> Path:
        """Mine with the last model, judge, and choose negatives; return their folder."""
        mined = self._mine(number)
        judge = self._options.judge
        scores = None if judge is None else self._judge(judge, number, mined)
        return self._choose(number, mined, scores)

    def _mine(self, number: int) -> Path:
        from msmarco_qdrant.train.mine import mine_negatives

        options, data = self._options, self._data
        mined = self._log.path(number, "mined")

        def work() -> Mapping[str, Any]:
            with self._miner(number) as client:
                report = mine_negatives(
                    client,
                    data.split.train,
                    positives_of(data.train),
                    mined,
                    modes=options.mine_modes,
                    depth=options.depth,
                    tenant=self._tenant(client),
                    progress=options.progress,
                )
            return figures_of(report)

        store = self._mined_store(number)
        command = self._commands.mine(store, options.mine_modes, options.depth, mined)
        self._log.run(number, "mine", work, folder="mined", command=command)
        return mined

    def _judge(self, judge: Reranker | Encoder, number: int, mined: Path) -> Path:
        from msmarco_qdrant.train.judge import judge_negatives

        options, data = self._options, self._data
        judged, mode = self._log.path(number, "judged"), judged_mode(options.mine_modes)

        def work() -> Mapping[str, Any]:
            with self._miner(number) as client:
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
                    tenant=self._tenant(client),
                    progress=options.progress,
                )
            return figures_of(report)

        command = self._commands.judge(
            judge,
            self._mined_store(number),
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

    def _mined_store(self, number: int) -> Path | None:
        """Return the store that a round mines; None for the collection itself."""
        return None if number == 1 else self._log.path(number - 1, "trial")

    def _train_best(self, number: int, base: str, examples: Path | None) -> Path:
        """Train with each learning rate; return the folder of the best by validation queries."""
        trained = {
            out: self._train(number, base, examples, settings, out)
            for settings in self._options.trainings
            for out in [self._log.path(number, self._model_name(settings))]
        }
        return max(trained, key=lambda out: trained[out])

    def _model_name(self, settings: TrainSettings) -> str:
        is_only = len(self._options.trainings) == 1
        return "model" if is_only else f"model-{settings.learning_rate:g}"

    def _train(
        self, number: int, base: str, examples: Path | None, settings: TrainSettings, out: Path
    ) -> float:
        """Train one model; return its measure over the validation queries."""
        from msmarco_qdrant.train.bi_encoder import train_bi_encoder

        data, options = self._data, self._options
        scores = self._log.path(number, "judged") if settings.loss != "contrastive" else None

        def train() -> Mapping[str, Any]:
            report = train_bi_encoder(
                base,
                self._client,
                data.split.train,
                examples or positives_of(data.train),
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

    def _encode(self, number: int, model: Path) -> Mapping[str, Any]:
        self._require_unchanged()
        encoder = self._encoder(number, model)
        report = build_trial(
            self._client,
            encoder,
            self._log.path(number, "trial"),
            tenant=self._options.tenant,
            progress=self._options.progress,
        )
        return {
            "passages": report.written + report.unchanged,
            "rejected": report.rejected,
            "changed": self._state_before not in ("", self._state()),
        }

    def _search_trial(self, number: int) -> Mapping[str, Any]:
        with self._open_trial(number) as client:
            return self._search(client, number, "runs")

    def _search(self, client: SearchClient, number: int, name: str) -> dict[str, Any]:
        """Search and save runs; return the first measure over the validation queries by mode."""
        folder = self._log.path(number, name)
        folder.mkdir(exist_ok=True)
        measures = self._options.measures
        depth = depth_of(measures) or _ALL
        figures: dict[str, Any] = {"measure": measures[0]}
        for mode in self._options.modes:
            for part in ("validation", "test"):
                queries, qrels = self._data.part(part)
                run = search_run(client, queries, System(mode), depth, tenant=self._tenant(client))
                save_run(self._run_file(number, part, mode), run.rankings.items())
                if part == "validation":
                    values = measure_run([measures[0]], qrels, run)[measures[0]]
                    figures[mode] = fmean(values.values())
        return figures

    # ---- what they need ----------------------------------------------------------------------

    def _run_file(self, number: int, part: str, mode: SearchMode) -> Path:
        folder = self._log.path(number, "runs" if number else "before")
        return folder / f"{part}.{mode}.trec.gz"

    @contextmanager
    def _miner(self, number: int) -> Iterator[SearchClient]:
        """Yield a client with the model of the round before."""
        if number == 1:
            self._require_unchanged()
            yield self._client
        else:
            with self._open_trial(number - 1) as client:
                yield client

    def _tenant(self, client: SearchClient) -> str | None:
        """Return the tenant to search; None for a trial, which has one tenant's passages alone."""
        return self._options.tenant if client is self._client else None

    @contextmanager
    def _open_trial(self, number: int) -> Iterator[SearchClient]:
        encoder = self._encoder(number, self._models[number])
        with open_trial(encoder, self._log.path(number, "trial")) as client:
            yield client

    def _encoder(self, number: int, model: Path) -> Encoder:
        """Return the encoder of a round; only the last one is kept in memory."""
        if number not in self._encoders:
            self._encoders.clear()
            self._encoders[number] = load_encoder(model, **asdict(self._options.encoder_options))
        return self._encoders[number]

    def _state(self) -> str:
        """Return a text that changes if passages of the live collection are written or deleted."""
        info = self._client.store.collection(self._client.collection).info()
        return f"{info.points} points, last write {info.last_seq}"

    def require_compared(self, chosen: ImproveRound) -> None:
        """Refuse to switch a collection that has neither the compared model nor the chosen one.

        Raises:
            UsageError: If another one was switched to since the first step.
        """
        found = self._client.store.metadata(self._client.collection).encoder
        if found.fingerprint == self._fingerprint:
            return
        if found.fingerprint != self._encoder(chosen.number, Path(chosen.model)).info.fingerprint:
            raise self._changed(found.model)

    def _require_unchanged(self) -> None:
        """Refuse a live collection with another model than at the first step."""
        found = self._client.metadata.encoder
        if found.fingerprint != self._fingerprint:
            raise self._changed(found.model)

    def _changed(self, model: str) -> UsageError:
        return UsageError(
            f"'{self._client.collection}' has vectors of {model} now, and of {self._model} when "
            "this improvement began: begin another in a new folder"
        )


def _read_run(path: Path, name: str) -> Run:
    """Read a run of `save_run`; unlike `read_run`, also of a model whose scores are all equal."""
    scores: dict[str, dict[str, float]] = {}
    for _, line in read_text_lines(path):
        qid, _, pid, _, score, _ = split_columns(line)
        scores.setdefault(qid, {})[pid] = float(score)
    return Run(name, {qid: rank_scores(of_query) for qid, of_query in scores.items()})


def positives_of(qrels: Qrels) -> dict[str, list[str]]:
    """Return the relevant pids of each query, grade 1 or more."""
    return {qid: [pid for pid, grade in of.items() if grade > 0] for qid, of in qrels.items()}


def figures_of(report: Any) -> Mapping[str, Any]:
    """Return the numbers and texts of a report, for a step's note."""
    values = report.to_json() if hasattr(report, "to_json") else asdict(report)
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float | str) and name not in ("seconds", "out")
    }
