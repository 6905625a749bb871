"""The modules of this folder: their documentation, and their error without the extra."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

from msmarco_qdrant import integrations
from msmarco_qdrant.errors import MissingExtraError
from msmarco_qdrant.integrations.extras import imports_of
from tests.test_public import ADAPTERS, assert_documented


def modules() -> list[str]:
    """The names of the adapters' modules."""
    walk = pkgutil.walk_packages(integrations.__path__, ADAPTERS, lambda _: None)
    return [module.name for module in walk]


@pytest.mark.parametrize("name", modules())
def test_every_adapter_is_documented(name: str) -> None:
    """As the other modules are, where its framework is installed."""
    try:
        module: ModuleType = importlib.import_module(name)
    except MissingExtraError as missing:
        pytest.skip(str(missing))
    assert_documented(module)


def test_a_missing_framework_is_named_with_its_extra() -> None:
    """The error says what to install."""
    with (
        pytest.raises(MissingExtraError, match=r"pip install 'msmarco-qdrant\[films\]'"),
        imports_of("films", "The adapter to Films", "films"),
    ):
        importlib.import_module("films.projector")


def test_another_missing_module_is_not_taken_for_the_framework() -> None:
    """A broken installation shows its own error."""
    with (
        pytest.raises(ModuleNotFoundError, match="popcorn"),
        imports_of("films", "The adapter to Films", "films"),
    ):
        importlib.import_module("popcorn")
