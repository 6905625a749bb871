"""The forward pass by OpenVINO on a CPU; the only adapter to OpenVINO (extra `openvino`).

`openvino.convert_model` converts the transformer. Pooling, dense and normalize layers run as
the library's own modules. The compiled model is cached in a file (`openvino_cache`). Before a
model is used, converted or cached, its vectors of a few texts are compared with the library's.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msmarco_qdrant.core.first_line import first_line
from msmarco_qdrant.encoding.backends import processor
from msmarco_qdrant.encoding.backends.base import FinishedPass, ForwardPass, Task
from msmarco_qdrant.encoding.backends.openvino_cache import CachedModel, default_cache
from msmarco_qdrant.encoding.tokens import Tokenized
from msmarco_qdrant.errors import EncodingError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)

# OpenVINO's names of precisions.
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Activations that share a scale in int8. 64 to 192 are about as fast; 64 is the most precise.
_INT8_GROUP = 64
# Lowest accepted cosine to float32; a wrong conversion is far below it.
_MIN_COSINE = {"float32": 0.9999, "bfloat16": 0.995, "int8": 0.95}


class OpenVinoBackend:
    """A model of sentence-transformers on the CPU; OpenVINO runs its transformer.

    Args:
        model: The model, in float32 on the CPU; it is not changed.
        prompt_lengths: Tokens of the prompt of each task, for a pooling that excludes it.
        fingerprint: Identifies the model's files and settings.
        precision: "float32", "bfloat16" or "int8" (weights and activations of linear layers, with
            float scales for each output and for each 64 activations); None for bfloat16 on a
            processor with it, else float32.
        cache: Folder of compiled models; None for `default_cache()`.

    Raises:
        MissingExtraError: If OpenVINO is not installed.
        UsageError: For an unsupported precision, or a model that OpenVINO cannot run.
        EncodingError: If OpenVINO computes other vectors than the library.
    """

    name = "openvino"
    device = "cpu"
    needs_padding = True
    max_in_flight = 1  # a pass uses all cores, so a second one at the same time gains nothing
    # Of 1,024 to 8,192 on two cores with all-MiniLM-L6-v2, 1,024 and 2,048 were fastest.
    tokens_per_batch = 2048

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
        core = _import_openvino().Core()
        self.precision = _resolve_precision(precision)
        self._modules = list(model)[1:]
        self._prompt_lengths = prompt_lengths
        self._pad_id = int(model.tokenizer.pad_token_id or 0)
        cached = CachedModel(
            cache or default_cache(), fingerprint, self.precision, core, _config(self.precision)
        )
        if (compiled := cached.load()) is not None:
            self._request = compiled.create_infer_request()
            if self._agrees_with_library(model):
                return
            _log.warning("%s gives wrong vectors; converting the model again", cached.path)
        compiled = _compile_model(core, _convert(model), self.precision)
        self._request = compiled.create_infer_request()
        if not self._agrees_with_library(model):
            raise EncodingError(
                f"OpenVINO and sentence-transformers compute different vectors in "
                f"{self.precision}: this model needs the backend torch"
            )
        cached.save(compiled)

    def launch(self, batch: Tokenized, task: Task) -> ForwardPass:
        """Run a forward pass; see `Backend.launch`."""
        ids, mask = batch.padded(self._pad_id)
        return FinishedPass(self._infer(ids, mask, self._prompt_lengths[task]))

    def _infer(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], prompt_length: int | None
    ) -> NDArray[np.float32]:
        """Run the transformer, then the modules after it."""
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
                # Copied: it may be the request's memory, which the next pass overwrites.
                vectors: NDArray[np.float32] = features["sentence_embedding"].numpy().copy()
        except Exception as exc:  # of OpenVINO or of a module's code
            rows, longest = mask.shape
            raise EncodingError(
                f"the forward pass over {rows} texts of {int(mask.sum()):,} tokens, the longest "
                f"of {longest}, failed in OpenVINO: {first_line(exc)}"
            ) from exc
        return vectors

    def _agrees_with_library(self, model: SentenceTransformer) -> bool:
        """True if a few texts of random tokens get the library's vectors."""
        import numpy as np
        import torch

        ids, mask = _make_random_texts(model)
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        with torch.inference_mode():
            expected = model(features)["sentence_embedding"].numpy()
        found = self._infer(ids, mask, None)
        # Vectors that overflow in bfloat16 do not show a wrong conversion.
        sound = np.isfinite(expected).all(axis=1) & np.isfinite(found).all(axis=1)
        left, right = expected[sound].astype(np.float64), found[sound].astype(np.float64)
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        near = (left * right).sum(axis=1) >= _MIN_COSINE[self.precision] * norms
        return bool(sound.any() and near.all())


def is_installed() -> bool:
    """True if the extra `openvino` is installed."""
    return importlib.util.find_spec("openvino") is not None


def is_preferred() -> bool:
    """True if it is installed and the processor is one on which it is clearly faster than torch.

    With AMX it encodes 1.12 to 1.15 times as many passages per second, on two cores. With
    AVX512-BF16 alone that was 0.98 to 1.12 times in several runs, and torch starts sooner.
    """
    return is_installed() and "amx_bf16" in processor.detect().features


# ---- OpenVINO ---------------------------------------------------------------------------------


def _import_openvino() -> Any:
    """Import the package without its telemetry.

    Importing it sends events to Google Analytics, unless its dependency openvino_telemetry cannot
    be imported; then it uses a stub.
    """
    name = "openvino_telemetry"
    unimported = name not in sys.modules
    if unimported:
        sys.modules[name] = None  # type: ignore[assignment]  # cannot be imported
    try:
        import openvino
    except ImportError as exc:
        raise MissingExtraError("the backend openvino", "openvino") from exc
    finally:
        if unimported:
            sys.modules.pop(name, None)
    return openvino


def _resolve_precision(precision: str | None) -> str:
    has_bfloat16 = processor.detect().is_fast_in_bfloat16
    if precision is None:
        return "bfloat16" if has_bfloat16 else "float32"
    if precision not in _MIN_COSINE:
        raise UsageError(
            f"precision must be {', '.join(_MIN_COSINE)} with OpenVINO, got {precision!r}"
        )
    if precision == "bfloat16" and not has_bfloat16:
        raise UsageError(
            "this processor has no bfloat16 instructions: with OpenVINO use float32 or int8"
        )
    return precision


def _config(precision: str) -> dict[str, Any]:
    """Options for one batch at a time on all cores: twice as fast as a batch per core."""
    # With int8, attention and normalization still compute in floats.
    floats = _resolve_precision(None) if precision == "int8" else precision
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": _HINTS[floats],
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": _INT8_GROUP if precision == "int8" else 0,
    }


def _compile_model(core: Any, converted: Any, precision: str) -> Any:
    if precision == "int8":
        _to_int8(converted)
    try:
        return core.compile_model(converted, "CPU", _config(precision))
    except RuntimeError as exc:
        raise _conversion_error(exc) from exc


def _to_int8(converted: Any) -> None:
    """Replace the weights of linear layers by int8 with a scale and a zero for each output.

    OpenVINO's CPU plugin multiplies this pattern (a constant converted, shifted and scaled) as
    integers. nncf makes the same; this code needs no further package.
    """
    layers = [
        node
        for node in converted.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and node.input_value(1).get_node().get_type_name() == "Constant"
    ]
    if not layers:
        raise UsageError("int8 needs linear layers, this model has none: use another precision")
    for layer in layers:
        axis = 1 if layer.get_attributes()["transpose_b"] else 0
        weights = layer.input_value(1).get_node().data
        layer.input(1).replace_source_output(_int8_weights(weights, axis).output(0))


def _int8_weights(weights: NDArray[np.float32], axis: int) -> Any:
    """Weights as unsigned int8 between minimum and maximum; `(outputs, inputs)` for axis 1."""
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
            "the backend openvino needs a model whose first module is a Transformer, got "
            f"{type(model[0]).__name__}: use the backend torch"
        )


def _convert(model: SentenceTransformer) -> Any:
    """Convert the transformer: ids and mask in, embeddings of tokens out."""
    import torch

    transformer: Any = model[0]

    class TokenEmbeddings(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = transformer.model

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]

    # Two lengths, because transformers makes no mask if nothing is masked.
    ids, mask = (torch.from_numpy(values) for values in _make_random_texts(model, (5, 7)))
    # Weights are not shared: torch may change or free its memory.
    try:
        with _without_tracer_output(), torch.no_grad():
            return _import_openvino().convert_model(
                TokenEmbeddings().eval(),
                example_input={"input_ids": ids, "attention_mask": mask},
                share_weights=False,
            )
    except Exception as exc:  # any error of a model's own code while traced
        raise _conversion_error(exc) from exc


def _conversion_error(exc: Exception) -> UsageError:
    return UsageError(f"OpenVINO cannot convert this model: {exc}. Use the backend torch")


@contextmanager
def _without_tracer_output() -> Iterator[None]:
    """Mute the warnings of torch's tracer and of transformers for model developers."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _make_random_texts(
    model: SentenceTransformer, lengths: tuple[int, ...] = (12, 3, 9)
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ids and mask of texts of random tokens, the same at each call."""
    import numpy as np

    transformer: Any = model[0]
    words = int(transformer.model.config.vocab_size)
    longest = model.max_seq_length or max(lengths)
    cut = [min(length, longest) for length in lengths]
    ids = np.random.default_rng(0).integers(words // 2, words, sum(cut), np.int32)
    return Tokenized.from_lengths(ids, cut).padded(int(model.tokenizer.pad_token_id or 0))
