"""Settings of pytest and of the frameworks for the tests of the adapters.

A module of tests begins with `pytest.importorskip("FRAMEWORK")`, so that the environment of
`make test`, which has no framework, shows one skip for each module.
"""

from __future__ import annotations

import os

import pytest

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["ANONYMIZED_TELEMETRY"] = "False"


def pytest_configure(config: pytest.Config) -> None:
    """Run the coroutines of the conformance suites, which have no mark."""
    if config.pluginmanager.hasplugin("asyncio"):
        config.option.asyncio_mode = "auto"
