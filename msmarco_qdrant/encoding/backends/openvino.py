"""The forward pass by OpenVINO, on a CPU: the one adapter to it, the extra `openvino`.

The transformer is converted by `openvino.convert_model`; pooling, dense and normalize layers run
as the library's own modules. What was compiled is kept in a file (`openvino_cache`). Whatever the
way it came in, its vectors for a few texts are compared with the library's before any others are
given out.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.encoding.backends import processor
from msmarco_qdrant.encoding.backends.base import Launched, Task
from msmarco_qdrant.encoding.backends.openvino_cache import KeptModel, default_cache
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

# Of 1,024 to 8,192 on two cores with all-MiniLM-L6-v2, 1,024 and 2,048 were fastest.
_TOKENS_PER_BATCH = 2048
# OpenVINO's own words for what it computes in.
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Activations that share a scale in int8. 64 to 192 are about as fast, 64 loses least.
_INT8_GROUP = 64
# The lowest cosine to float32 that a few texts may have: what is converted wrongly is far below.
_LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.995, "int8": 0.95}


class OpenVinoBackend:
    """A model of sentence-transformers on the CPU, its transformer run by OpenVINO.

    Args:
        model: The model, in float32 on the CPU; it is left as it is.
        prompt_lengths: Tokens of the prompt of each task, for a pooling that leaves it out.
        fingerprint: What tells the model's files and settings from all others.
        precision: "float32", "bfloat16" or "int8" (weights and activations of linear layers, with
            float scales for each output and for each 64 activations); None for bfloat16 where the
            processor has it, else float32.
        cache: Where to keep what was compiled; None for `default_cache()`.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
        UsageError: For a precision that OpenVINO has not here, or a model that it cannot run.
        EncodingError: If OpenVINO gives other vectors than the library does.
    """

    name = "openvino"
    device = "cpu"
    pads = True
    # All cores are at one batch; to launch the next while its vectors are pooled gains nothing.
    ahead = 0
    tokens_per_batch = _TOKENS_PER_BATCH

    def __init__(
        self,
        model: SentenceTransformer,
        prompt_lengths: Mapping[Task, int | None],
        fingerprint: str,
        precision: str | None = None,
        *,
        cache: Path | None = None,
    ) -> None:
        _check_transformer(model)
        core = _openvino().Core()
        self.precision = _precision_of(precision)
        self._modules = list(model)[1:]
        self._prompt_lengths = prompt_lengths
        self._pad_id = int(model.tokenizer.pad_token_id or 0)
        kept = KeptModel(
            cache or default_cache(),
            fingerprint,
            self.precision,
            core,
            _config(self.precision),
        )
        compiled = kept.compiled()
        if compiled is not None:
            self._request = compiled.create_infer_request()
            if self._agrees(model):
                return
            _log.warning("%s gives wrong vectors; converting the model anew", kept.path)
        compiled = _compile(core, _converted(model), self.precision)
        self._request = compiled.create_infer_request()
        if not self._agrees(model):
            raise EncodingError(
                f"OpenVINO gives other vectors than sentence-transformers, in {self.precision}: "
                "this model needs the backend torch"
            )
        kept.keep(compiled)

    def launch(self, batch: Tokenized, task: Task) -> Launched:
        """Run a forward pass; see `Backend.launch`."""
        ids, mask = batch.padded(self._pad_id)
        return _Done(self._vectors(ids, mask, self._prompt_lengths[task]))

    def _vectors(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], prompt_length: int | None
    ) -> NDArray[np.float32]:
        """Through the transformer, and what comes out through the modules after it."""
        import torch

        try:
            tokens = self._request.infer([ids, mask], share_inputs=True, share_outputs=True)[0]
            with torch.inference_mode():
                features: dict[str, Any] = {
                    "token_embeddings": torch.from_numpy(tokens),
                    "attention_mask": torch.from_numpy(mask),
                }
                if prompt_length is not None:
                    features["prompt_length"] = prompt_length
                for module in self._modules:
                    features = module(features)
                # A copy: it may be the request's own memory, which the next pass writes anew.
                vectors: NDArray[np.float32] = features["sentence_embedding"].numpy().copy()
        except RuntimeError as exc:
            raise _failed(mask, exc) from exc
        return vectors

    def _agrees(self, model: SentenceTransformer) -> bool:
        """Whether a few texts of random tokens get the library's vectors."""
        import numpy as np

        ids, mask = _random_texts(model)
        expected = _library_vectors(model, ids, mask)
        found = self._vectors(ids, mask, None)
        # A model that leaves the numbers of bfloat16 is no sign of a wrong conversion.
        sound = np.isfinite(expected).all(axis=1) & np.isfinite(found).all(axis=1)
        left, right = expected[sound].astype(np.float64), found[sound].astype(np.float64)
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        near = (left * right).sum(axis=1) >= _LEAST_COSINE[self.precision] * norms
        return bool(sound.any() and near.all())


@dataclass(frozen=True, slots=True)
class _Done:
    """A forward pass that has ended."""

    vectors: NDArray[np.float32]

    def result(self) -> NDArray[np.float32]:
        return self.vectors


def is_installed() -> bool:
    """Whether the extra `openvino` is there."""
    return importlib.util.find_spec("openvino") is not None


def is_faster_here() -> bool:
    """Whether it is installed and the processor one that it is clearly faster on than torch.

    With AMX it encodes 1.12 to 1.15 times as many passages a second, on two cores. With
    AVX512-BF16 alone that was 0.98 to 1.12 times in several runs, and torch starts sooner.
    """
    return is_installed() and processor.detect().has_amx


def _failed(mask: NDArray[np.int64], exc: RuntimeError) -> EncodingError:
    rows, longest = mask.shape
    return EncodingError(
        f"the forward pass over {rows} texts of {int(mask.sum()):,} tokens, the longest of "
        f"{longest}, failed in OpenVINO: {exc}"
    )


# ---- OpenVINO ---------------------------------------------------------------------------------


def _openvino() -> Any:
    """The package, without its telemetry.

    Importing it sends events to Google Analytics unless the package openvino_telemetry, which it
    brings along, cannot be imported: then it takes a stub of its own.
    """
    name = "openvino_telemetry"
    unimported = name not in sys.modules
    if unimported:
        sys.modules[name] = None  # type: ignore[assignment]  # the import system's word for "none"
    try:
        import openvino
    except ImportError as exc:
        raise MissingExtraError("the backend openvino", "openvino") from exc
    finally:
        if unimported:
            sys.modules.pop(name, None)
    return openvino


def _precision_of(precision: str | None) -> str:
    has_bfloat16 = processor.detect().is_fast_in_bfloat16
    if precision is None:
        return "bfloat16" if has_bfloat16 else "float32"
    if precision not in _LEAST_COSINE:
        raise UsageError(
            f"OpenVINO computes in {', '.join(_LEAST_COSINE)} here, not in {precision!r}"
        )
    if precision == "bfloat16" and not has_bfloat16:
        raise UsageError("this processor has no bfloat16: take float32 or int8")
    return precision


def _config(precision: str) -> dict[str, Any]:
    """One batch at a time on all cores: twice as fast as several at a time on a core each."""
    # What int8 leaves, attention and normalization, is computed as without it.
    floats = _precision_of(None) if precision == "int8" else precision
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[floats],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _INT8_GROUP if precision == "int8" else 0,
    }


def _compile(core: Any, converted: Any, precision: str) -> Any:
    if precision == "int8":
        _to_int8(converted)
    try:
        return core.compile_model(converted, "CPU", _config(precision))
    except RuntimeError as exc:
        raise _cannot_run(exc) from exc


def _to_int8(converted: Any) -> None:
    """Replace the weights of linear layers by int8 with a scale and a zero for each output.

    The pattern, a constant converted, shifted and scaled, is that which OpenVINO's CPU plugin
    multiplies as integers. nncf makes the same; by hand it takes no further package.
    """
    layers = [
        node
        for node in converted.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and node.input_value(1).get_node().get_type_name() == "Constant"
    ]
    if not layers:
        raise UsageError(
            "this model has no linear layers that could be int8: take another precision"
        )
    for layer in layers:
        axis = 1 if layer.get_attributes()["transpose_b"] else 0
        weights = layer.input_value(1).get_node().data
        layer.input(1).replace_source_output(_int8_weights(weights, axis).output(0))


def _int8_weights(weights: NDArray[np.float32], axis: int) -> Any:
    """Weights `(outputs, inputs)` for axis 1, as unsigned int8 from the least to the greatest."""
    import numpy as np
    from openvino import opset13 as ops

    least = np.minimum(weights.min(axis, keepdims=True), 0)
    greatest = np.maximum(weights.max(axis, keepdims=True), 0)
    scale = np.maximum((greatest - least) / 255, np.finfo(np.float32).tiny)
    zero = np.rint(-least / scale)
    rounded = np.clip(np.rint(weights / scale) + zero, 0, 255).astype(np.uint8)
    shifted = ops.subtract(
        ops.convert(ops.constant(rounded), "f32"),
        ops.convert(ops.constant(zero.astype(np.uint8)), "f32"),
    )
    return ops.multiply(shifted, ops.constant(scale.astype(np.float32)))


# ---- from torch -------------------------------------------------------------------------------


def _check_transformer(model: SentenceTransformer) -> None:
    config = getattr(getattr(model[0], "model", None), "config", None)
    if type(model[0]).__name__ != "Transformer" or config is None:
        raise UsageError(
            f"the backend openvino runs models that begin with a Transformer module, this one "
            f"begins with {type(model[0]).__name__}: take the backend torch"
        )


def _converted(model: SentenceTransformer) -> Any:
    """The transformer as OpenVINO's model: ids and mask in, embeddings of tokens out."""
    import torch

    transformer: Any = model[0]

    class TokenEmbeddings(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformer.model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]

    # Of two lengths: transformers does not make a mask where nothing is masked.
    ids, mask = (torch.from_numpy(values) for values in _random_texts(model, (5, 7)))
    # OpenVINO's memory must not be torch's, which may be changed or freed.
    try:
        with _quiet(), torch.no_grad():
            return _openvino().convert_model(
                TokenEmbeddings().eval(),
                example_input={"input_ids": ids, "attention_mask": mask},
                share_weights=False,
            )
    except Exception as exc:  # whatever a model's own code raises when it is traced
        raise _cannot_run(exc) from exc


def _cannot_run(exc: Exception) -> UsageError:
    return UsageError(f"OpenVINO cannot convert this model: {exc}. Take the backend torch")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's tracer and transformers say to those who develop a model."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _random_texts(
    model: SentenceTransformer, lengths: tuple[int, ...] = (12, 3, 9)
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask of texts of random tokens, the same every time."""
    import numpy as np

    transformer: Any = model[0]
    words = int(transformer.model.config.vocab_size)
    longest = model.max_seq_length or max(lengths)
    cut = [min(length, longest) for length in lengths]
    ids = np.random.default_rng(0).integers(words // 2, words, sum(cut), np.int32)
    return Tokenized.from_lengths(ids, cut).padded(int(model.tokenizer.pad_token_id or 0))


def _library_vectors(
    model: SentenceTransformer, ids: NDArray[np.int64], mask: NDArray[np.int64]
) -> NDArray[np.float32]:
    import torch

    features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    with torch.inference_mode():
        vectors: NDArray[np.float32] = model(features)["sentence_embedding"].numpy()
    return vectors


# ---- what is kept -----------------------------------------------------------------------------
