"""Names of a package that are imported on first use (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazy_attributes(package: str, modules: Mapping[str, str]) -> Callable[[str], object]:
    """Create the `__getattr__` of a package.

    Args:
        package: The package's name.
        modules: The public names, separated by spaces, of each module inside the package.
    """
    home = {name: module for module, names in modules.items() for name in names.split()}

    def import_name(name: str) -> object:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"{package}.{home[name]}"), name)
        setattr(sys.modules[package], name, value)
        return value

    return import_name
