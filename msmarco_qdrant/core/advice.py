"""Commands that messages advise, in a form that a shell takes."""

from __future__ import annotations

import shlex


def command_line(*words: str, collection: str | None = None, store: str | None = None) -> str:
    """Return a command line of `msmarco-qdrant`, quoted for a POSIX shell.

    Args:
        words: The command and its arguments, such as "migrate", "up".
        collection: The value of `--collection`; None without that option.
        store: The value of `--store`, a path or URL without secrets; None without that option.
    """
    options = [("--collection", collection), ("--store", store)]
    given = [word for name, value in options if value is not None for word in (name, value)]
    return shlex.join(["msmarco-qdrant", *words, *given])


def advised_command(*words: str, collection: str | None = None, store: str | None = None) -> str:
    """Return the same in backticks, for a message."""
    return f"`{command_line(*words, collection=collection, store=store)}`"
