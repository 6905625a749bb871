"""Adapters to other frameworks, one module and one extra each.

A module here imports its framework at once, since its classes extend the framework's. Without the
extra the import raises `MissingExtraError`.
"""
