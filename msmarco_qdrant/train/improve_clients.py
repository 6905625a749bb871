"""Clients of an improvement: that of the live collection, and those of the rounds' trials."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from msmarco_qdrant.encoding import Encoder, load_encoder
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.train.improve_log import StepLog
from msmarco_qdrant.train.improve_options import ImproveOptions
from msmarco_qdrant.train.trial import open_trial

if TYPE_CHECKING:
    from msmarco_qdrant.search.client import SearchClient


class ImproveClients:
    """Opens the live collection or a trial, with the model that an improvement began with.

    Args:
        live: A client of the live collection, which is only read.
        model: The location of its model.
        options: The options.
        log: The folders of the rounds.

    Attributes:
        live: As given.
        model: The location of the live collection's model before the first round.
    """

    def __init__(
        self, live: SearchClient, model: str, options: ImproveOptions, log: StepLog
    ) -> None:
        self.live = live
        self.model = model
        self._fingerprint = live.metadata.encoder.fingerprint
        self._options = options
        self._log = log
        self._models: dict[int, Path] = {}
        self._encoders: dict[int, Encoder] = {}

    def begin(self, model: str, fingerprint: str) -> None:
        """Note the live collection's model as the first step found it; a switch has changed it."""
        self.model, self._fingerprint = model, fingerprint

    def add_model(self, number: int, model: Path) -> None:
        """Note the folder of the model that a round has trained."""
        self._models[number] = model

    def base_of(self, number: int) -> str:
        """Return the location of the model that a round trains on."""
        return self.model if number == 1 else str(self._models[number - 1])

    def trial_to_mine(self, number: int) -> Path | None:
        """Return the store that a round mines; None for the live collection."""
        return None if number == 1 else self._log.path(number - 1, "trial")

    @contextmanager
    def open_mined(self, number: int) -> Iterator[SearchClient]:
        """Yield a client of what a round mines, with the model of the round before.

        Raises:
            UsageError: If the live collection has another model than at the first step.
        """
        if number == 1:
            self.require_unchanged()
            yield self.live
        else:
            with self.open_trial(number - 1) as client:
                yield client

    @contextmanager
    def open_trial(self, number: int) -> Iterator[SearchClient]:
        """Yield a client of a round's trial."""
        with open_trial(self.encoder(number), self._log.path(number, "trial")) as client:
            yield client

    def encoder(self, number: int) -> Encoder:
        """Return the encoder of a round; only the last one is kept in memory."""
        if number not in self._encoders:
            self._encoders.clear()
            options = asdict(self._options.encoder_options)
            self._encoders[number] = load_encoder(self._models[number], **options)
        return self._encoders[number]

    def tenant(self, client: SearchClient) -> str | None:
        """Return the tenant to search; None for a trial, which has one tenant's passages alone."""
        return self._options.tenant if client is self.live else None

    def live_state(self) -> str:
        """Return a text that changes if passages of the live collection are written or deleted."""
        info = self.live.store.collection(self.live.collection).info()
        return f"{info.points} points, last write {info.last_seq}"

    def require_unchanged(self) -> None:
        """Refuse a live collection with another model than at the first step.

        Raises:
            UsageError: If it was switched.
        """
        found = self.live.metadata.encoder
        if found.fingerprint != self._fingerprint:
            raise self._changed(found.model)

    def require_compared(self, number: int) -> None:
        """Refuse to switch a collection that has neither the compared model nor that of a round.

        Raises:
            UsageError: If another one was switched to since the first step.
        """
        found = self.live.store.metadata(self.live.collection).encoder
        if found.fingerprint == self._fingerprint:
            return
        if found.fingerprint != self.encoder(number).info.fingerprint:
            raise self._changed(found.model)

    def _changed(self, model: str) -> UsageError:
        return UsageError(
            f"'{self.live.collection}' has vectors of {model} now, and of {self.model} when this "
            "improvement began: begin another in a new folder"
        )
