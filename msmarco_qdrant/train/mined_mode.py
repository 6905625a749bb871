"""The mode of the search that a judge of mined candidates must rank better than."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, get_args

from msmarco_qdrant.core.search_types import SearchMode
from msmarco_qdrant.train.out_folder import SETTINGS_FILE, read_json


def mined_mode(negatives: object) -> SearchMode:
    """Return the mode that a judge must rank better than: that of the folder of mined negatives.

    Args:
        negatives: The folder of `mine_negatives` or the file in it. Anything else counts as mined
            by "dense".

    Raises:
        OutputError: If the folder's settings cannot be read.
    """
    if not isinstance(negatives, str | PathLike):
        return "dense"
    path = Path(negatives)
    begun: Any = read_json((path if path.is_dir() else path.parent) / SETTINGS_FILE)
    if not isinstance(begun, dict) or begun.get("step") != "mine":
        return "dense"
    systems = begun.get("settings", {}).get("systems", {}).values()
    modes = [*dict.fromkeys(one.get("mode") for one in systems)]
    if not modes or any(mode not in get_args(SearchMode) for mode in modes):
        return "dense"
    return judged_mode(modes)


def judged_mode(modes: Sequence[SearchMode]) -> SearchMode:
    """Return the mode that found candidates; of several modes their fusion, the strongest."""
    return modes[0] if len(modes) == 1 else "hybrid"
