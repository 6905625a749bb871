"""Cache of models that OpenVINO compiled, for the next start.

A file's name is a hash of everything it depends on. A file starts with its own checksum, so that
a truncated one is not used.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msmarco_qdrant.encoding.backends import processor
from msmarco_qdrant.encoding.backends.cache import model_cache, prune
from msmarco_qdrant.errors import OutputError
from msmarco_qdrant.runtime.atomic_file import atomic_write

_log = logging.getLogger(__name__)

_FILE_VERSION = 1
# Models of some hundred megabytes, each with its precisions and versions.
_KEPT_FILES = 8


def default_cache() -> Path:
    """`$XDG_CACHE_HOME/msmarco-qdrant/openvino`, or under `~/.cache`."""
    return model_cache("openvino")


class CachedModel:
    """The file of one compiled model: a line with its checksum, then what OpenVINO exports.

    Args:
        folder: The cache; created when a model is saved.
        fingerprint: Fingerprint of the model.
        precision: Precision of the compiled model.
        core: OpenVINO's core.
        config: Options of the compilation.

    Attributes:
        path: The file.
    """

    def __init__(
        self, folder: Path, fingerprint: str, precision: str, core: Any, config: Mapping[str, Any]
    ) -> None:
        self._core = core
        self._config = config
        cpu = processor.detect()
        # A compiled model fits one kind of processor and one version of each of these packages.
        parts = {
            "file": _FILE_VERSION,
            "model": fingerprint,
            "config": dict(config),
            "processor": [cpu.architecture, cpu.name, *sorted(cpu.features)],
            **{name: version(name) for name in ("openvino", "torch", "transformers")},
            "precision": precision,
        }
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        self.path = folder / f"{digest[:32]}-{precision}.compiled"

    def load(self) -> Any | None:
        """Return the compiled model; None without a usable file."""
        try:
            with self.path.open("rb") as file:
                checksum, exported = file.readline(), file.read()
        except FileNotFoundError:
            return None
        except OSError as exc:
            _log.warning("cannot read %s: %s; converting the model again", self.path, exc.strerror)
            return None
        if checksum != _checksum(exported):
            _log.warning("%s is damaged; converting the model again", self.path)
            return None
        try:
            return self._core.import_model(exported, "CPU", self._config)
        except RuntimeError as exc:
            _log.warning(
                "OpenVINO cannot import %s: %s; converting the model again", self.path, exc
            )
            return None

    def save(self, compiled: Any) -> None:
        """Write the file; if that fails, log a warning, and the next start converts again."""
        exported = compiled.export_model().getbuffer()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path) as file:
                file.write(_checksum(exported))
                file.write(exported)
            prune(self.path.parent, "*.compiled", _KEPT_FILES)
        except (OSError, OutputError) as exc:
            _log.warning(
                "cannot cache the compiled model, the next start converts it again: %s", exc
            )


def _checksum(exported: bytes | memoryview) -> bytes:
    return hashlib.sha256(exported).hexdigest().encode() + b"\n"
