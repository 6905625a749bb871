"""Peers that run an ONNX export on the CPU, for `benchmarks/encode.py`.

The export is torch's own of the library's transformer. sentence-transformers' `backend="onnx"` does
the same by optimum, whose releases require an older transformers; it optimizes and quantizes by
the two functions of ONNX Runtime that are called here.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH = 32
# The version that fastembed's and optimum's exports have at least.
_OPSET = 18
_FASTEMBED_NAME = "local/model"

Encode = Callable[[list[str]], NDArray[np.float32]]


def export(location: str, folder: Path) -> Path:
    """Write the model and its tokenizer as fastembed reads them: model.onnx and JSON files."""
    import torch
    from sentence_transformers import SentenceTransformer

    # ONNX Runtime fuses attention that is written out.
    model: Any = SentenceTransformer(
        location, device="cpu", model_kwargs={"attn_implementation": "eager"}
    )
    transformer, tokenizer = model[0].auto_model.eval(), model.tokenizer
    example = tokenizer(["a short text", "another"], return_tensors="pt", padding=True)
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in example]
    shape = {0: "batch", 1: "length"}
    path = folder / "model.onnx"

    class Named(torch.nn.Module):
        """The transformer with its inputs in order, as an export passes them."""

        def __init__(self) -> None:
            super().__init__()
            self.transformer = transformer

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
            given = dict(zip(names, inputs, strict=True))
            hidden: torch.Tensor = self.transformer(**given).last_hidden_state
            return hidden

    torch.onnx.export(
        Named(),
        tuple(example[name] for name in names),
        str(path),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=dict.fromkeys([*names, "last_hidden_state"], shape),
        opset_version=_OPSET,
        dynamo=False,
    )
    tokenizer.save_pretrained(folder)
    transformer.config.save_pretrained(folder)
    saved = folder / "tokenizer_config.json"
    lengths = dict.fromkeys(["max_length", "model_max_length"], model.max_seq_length)
    saved.write_text(json.dumps(json.loads(saved.read_text()) | lengths))
    special = folder / "special_tokens_map.json"
    special.write_text(
        json.dumps({name: str(at) for name, at in tokenizer.special_tokens_map.items()})
    )
    return path


def onnx_runtime(location: str, *, quantized: bool) -> Encode:
    """ONNX Runtime with its fused operators, and weights in int8 if asked; batches by length."""
    import onnxruntime
    from onnx import TensorProto
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers.optimizer import optimize_model
    from sentence_transformers import SentenceTransformer

    folder = Path(tempfile.mkdtemp())
    library: Any = SentenceTransformer(location, device="cpu")
    config = library[0].auto_model.config
    fused = folder / "fused.onnx"
    optimized = optimize_model(
        str(export(location, folder)),
        model_type="bert",
        num_heads=config.num_attention_heads,
        hidden_size=config.hidden_size,
        opt_level=1,
        only_onnxruntime=False,
    )
    optimized.save_model_to_file(str(fused))
    if quantized:
        source, fused = fused, folder / "int8.onnx"
        quantize_dynamic(
            source,
            fused,
            per_channel=True,
            weight_type=QuantType.QInt8,
            # The types of fused operators are not inferred.
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    session = onnxruntime.InferenceSession(str(fused), providers=["CPUExecutionProvider"])
    shutil.rmtree(folder)
    names = [given.name for given in session.get_inputs()]
    pool = list(library)[1:]

    def encode(texts: list[str]) -> NDArray[np.float32]:
        import torch

        order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
        found = np.empty((len(texts), config.hidden_size), np.float32)
        for first in range(0, len(order), BATCH):
            places = order[first : first + BATCH]
            features: dict[str, Any] = library.tokenizer(
                [texts[place] for place in places],
                padding=True,
                truncation=True,
                max_length=library.max_seq_length,
                return_tensors="pt",
            )
            (tokens,) = session.run(None, {name: features[name].numpy() for name in names})
            features = {**features, "token_embeddings": torch.from_numpy(tokens)}
            for module in pool:
                features = module(features)
            found[places] = features["sentence_embedding"].numpy()
        return found

    return encode


def fastembed(location: str) -> Encode:
    """`TextEmbedding(...).embed` of fastembed with its own batches, from the export."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType
    from sentence_transformers import SentenceTransformer

    folder = Path(tempfile.mkdtemp())
    export(location, folder)
    dimension = SentenceTransformer(location, device="cpu").get_sentence_embedding_dimension()
    TextEmbedding.add_custom_model(
        model=_FASTEMBED_NAME,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=_FASTEMBED_NAME),
        dim=dimension,
        model_file="model.onnx",
    )
    model = TextEmbedding(_FASTEMBED_NAME, specific_model_path=str(folder))
    shutil.rmtree(folder)
    return lambda texts: np.array(list(model.embed(texts)), np.float32)
