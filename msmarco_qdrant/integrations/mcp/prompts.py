"""Prompts: tasks that a person starts in the client, which then calls the tools."""

from __future__ import annotations

from typing import Annotated, Any

from mcp.server import MCPServer
from pydantic import Field


def answer(question: Annotated[str, Field(description="The question.")]) -> str:
    """Answer a question from the passages of the collection, with citations."""
    return (
        "Answer this question from the passages of the collection alone. Call search with the "
        "question; if the hits do not answer it, search once more in other words and with mode "
        '"bm25". Cite each passage that you use by its pid in brackets. If no passage answers the '
        f"question, answer that instead of guessing.\n\nQuestion: {question}"
    )


def overview(topic: Annotated[str, Field(description="The topic.")]) -> str:
    """Describe what the collection has on a topic."""
    return (
        "Describe what the collection has on this topic. Call list_collections for its fields, "
        "search for the topic in two or three wordings, and similar for the best hits. Group the "
        f"passages by their content, and cite each by its pid in brackets.\n\nTopic: {topic}"
    )


def add_prompts(server: MCPServer[Any]) -> None:
    """Add the prompts to a server."""
    server.prompt(name="answer", title="Answer from passages")(answer)
    server.prompt(name="overview", title="Overview of a topic")(overview)
