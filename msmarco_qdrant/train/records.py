"""Values of training: frozen, slotted, without logic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Positives: TypeAlias = Mapping[str, Sequence[str]]
"""The pids that answer each training query, by qid, in the order of their source."""


@dataclass(frozen=True, slots=True)
class MinedQuery:
    """A training query with its positives and candidates for negatives.

    Attributes:
        qid: The query's id.
        positives: The pids that answer it.
        negatives: The pids of each system that found candidates, by its name, best first. No
            positive is among them.
    """

    qid: str
    positives: tuple[str, ...]
    negatives: Mapping[str, tuple[str, ...]]
