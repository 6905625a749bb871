"""A compact model in int8 on the CPU, calibrated on the first passages that it encodes.

The first thousand passages are encoded in float32, which gives the ranges of the activations. The
next ones decide whether int8 is used: their vectors and the time are compared with those of floats.
Queries stay in floats. Ranges with which int8 was used are kept for this model and machine: the
next process begins with the comparison, and calibrates only if the kept ranges fail it.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

# At the top: this module is imported when a model is loaded.
import numpy as np

from msmarco_qdrant.core.encoder_types import Int8Loss
from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends import processor
from msmarco_qdrant.encoding.backends.base import ForwardPass, Task
from msmarco_qdrant.encoding.backends.cache import mark_used
from msmarco_qdrant.encoding.backends.choice import cosines, time_passes
from msmarco_qdrant.encoding.backends.fused import FORMS, Form, FusedBackend, FusedForward
from msmarco_qdrant.encoding.backends.fused_layers import PlainLayer
from msmarco_qdrant.encoding.backends.int8_layers import (
    Int8Layer,
    Ranges,
    RecordingLayer,
    load_ranges,
    save_ranges,
)
from msmarco_qdrant.encoding.backends.measured import locate_measurement
from msmarco_qdrant.encoding.compact import CompactModel
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from msmarco_qdrant.encoding.compact import CompactLayer

_log = logging.getLogger(__name__)

# Passages that give the ranges, and that are compared afterwards.
_CALIBRATED = 1000
_COMPARED = 256
# Lowest accepted cosines to float32, of each compared passage and on average.
MIN_COSINE = 0.95
_MIN_MEAN = 0.99
_GREATEST_WEIGHT = 127
# Without an instruction for four products at once, sums of two products overflow 16 bits.
_GREATEST_WEIGHT_OF_AVX2 = 63


class Int8Backend:
    """A bi-encoder in int8 on the CPU; see `Backend`.

    Args:
        model: Its weights.
        name: The model's name, for messages.
        fingerprint: Identifies the weights.
        floats: Precision of queries, and of passages if int8 is refused: the fastest of this
            processor.

    Attributes:
        precision: "int8"; that of floats, once int8 is refused.
        loss: The precision that was measured; None before int8 is used.
    """

    device = "cpu"
    needs_padding = True

    def __init__(self, model: CompactModel, name: str, fingerprint: str, floats: str) -> None:
        self.precision = "int8"
        self.loss: Int8Loss | None = None
        self._model, self._model_name = model, name
        self._floats = FusedBackend(model, precision=floats)
        self.tokens_per_batch = self._floats.tokens_per_batch
        self.max_in_flight = self._floats.max_in_flight
        self._ranges = {layer: Ranges(layer) for layer in model.layers}
        self._path = locate_measurement("int8", f"{fingerprint}.npz")
        self._begin(is_kept=load_ranges(self._path, self._ranges))

    def _begin(self, *, is_kept: bool) -> None:
        """Encode passages in float32 until int8 is decided, recording ranges unless kept ones."""
        form = exact_form() if is_kept else recording_form(self._ranges)
        self._passages = FusedBackend(self._model, form=form)
        self._is_decided, self._is_kept = False, is_kept
        self._calibrated, self._held = _CALIBRATED if is_kept else 0, 0
        self._launched: list[ForwardPass] = []
        self._compared: list[tuple[Tokenized, ForwardPass]] = []
        _log.info(
            "%s: the next %d passages %s int8 and are encoded in float32",
            *(self._model_name, _CALIBRATED - self._calibrated + _COMPARED),
            "are compared with" if is_kept else "calibrate",
        )

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:
        """Start a forward pass; see `Backend.launch`."""
        if task == "query":
            return self._floats.launch(batch, task)
        if not self._is_decided and self._held >= _COMPARED:
            self._decide()
        launched = self._passages.launch(batch, task)
        if self._is_decided:
            return launched
        if self._calibrated < _CALIBRATED:
            self._calibrated += len(batch)
            self._launched.append(launched)
        else:
            self._held += len(batch)
            self._compared.append((batch, launched))
        return launched

    def _decide(self) -> None:
        """Choose what encodes the passages that follow: int8, or floats if it is refused."""
        self._passages, self._is_decided = self._floats, True
        for launched in self._launched:
            _vectors(launched)
        found = [(batch, _vectors(launched)) for batch, launched in self._compared]
        compared = [(batch, vectors) for batch, vectors in found if vectors is not None]
        self._launched, self._compared = [], []
        form = int8_form(self._ranges, self._floats.precision)
        refusal = self._refusal(form, compared)
        if refusal is not None and self._is_kept:
            self._calibrate_again(refusal)
            return
        if refusal is None:
            self._passages = FusedBackend(self._model, form=form)
            self._keep_ranges()
        else:
            self.precision = self._floats.precision
            _log.warning(
                "int8 is refused for %s: %s; %s goes on",
                *(self._model_name, refusal, self._floats.precision),
            )
        # The layers in use hold the weights that they need.
        self._ranges.clear()
        self._model = replace(self._model, layers=())

    def _calibrate_again(self, refusal: str) -> None:
        """Begin again without the kept ranges: passages of another kind may need others."""
        _log.info("%s: the kept calibration is not used: %s", self._model_name, refusal)
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self._ranges = {layer: Ranges(layer) for layer in self._model.layers}
        self._begin(is_kept=False)

    def _keep_ranges(self) -> None:
        """Keep the ranges for the next process."""
        if self._is_kept:
            mark_used(self._path)
        else:
            save_ranges(self._path, self._ranges)

    def _refusal(
        self, form: Form, compared: Sequence[tuple[Tokenized, NDArray[np.float32]]]
    ) -> str | None:
        """Return why int8 is refused; None if it is precise enough and faster."""
        if not compared:
            return "the passages to compare could not be encoded"
        try:
            forward = FusedForward(self._model, form=form)
            near = np.concatenate([cosines(found, forward(batch)) for batch, found in compared])
        # Of an operator that this build or processor lacks, or of a range that is not finite.
        except (RuntimeError, AttributeError, ValueError) as exc:
            return first_line(exc)
        loss = Int8Loss(float(near.min()), float(near.mean()), len(near))
        refusal = _describe_loss(loss) or self._describe_slowness(forward, compared, loss)
        self.loss = loss if refusal is None else None
        return refusal

    def _describe_slowness(
        self,
        forward: FusedForward,
        compared: Sequence[tuple[Tokenized, NDArray[np.float32]]],
        loss: Int8Loss,
    ) -> str | None:
        """Return that int8 is not faster, if so; log its speed and precision otherwise."""
        floats = self._floats.precision
        passes = {floats: self._floats.forward, "int8": forward}
        rates = time_passes(passes, max((batch for batch, _ in compared), key=len))
        shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in rates.items())
        if rates["int8"] <= rates[floats]:
            return f"it is not faster on this processor (tokens per second and core: {shown})"
        _log.info("%s in int8: %s; tokens per second and core: %s", self._model_name, loss, shown)
        return None


def _vectors(launched: ForwardPass) -> NDArray[np.float32] | None:
    """Return the vectors of a pass; None if it failed, which its caller has reported."""
    try:
        return launched.result()
    except EncodingError:
        return None


def _describe_loss(loss: Int8Loss) -> str | None:
    """Return that int8 is too imprecise, if so."""
    if loss.least >= MIN_COSINE and loss.mean >= _MIN_MEAN:
        return None
    return f"{loss}, {MIN_COSINE} and {_MIN_MEAN} are required"


def exact_form() -> Form:
    """Return float32 that shares the model's weights."""
    return FORMS["float32"]._replace(make_layer=PlainLayer)


def recording_form(ranges: Mapping[CompactLayer, Ranges]) -> Form:
    """Return float32 that records the ranges of activations."""
    return FORMS["float32"]._replace(make_layer=partial(RecordingLayer, ranges=ranges))


def int8_form(ranges: Mapping[CompactLayer, Ranges], floats: str) -> Form:
    """Return int8 with floats of a precision between the products."""
    greatest = _GREATEST_WEIGHT if processor.detect().multiplies_int8 else _GREATEST_WEIGHT_OF_AVX2
    dtype = FORMS[floats].dtype
    make = partial(Int8Layer, ranges=ranges, dtype=dtype, greatest=greatest)
    return FORMS[floats]._replace(name="int8", make_layer=make)
