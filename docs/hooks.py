"""Pages that MkDocs makes from the code and from files of the repository's top folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parent.parent
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "benchmarks/RESULTS.md": "measurements.md",
    "deploy/kubernetes/README.md": "kubernetes.md",
    "deploy/ray/README.md": "kubernetes-ray.md",
    "examples/notebook.ipynb": "notebook.md",
}
"""Files outside of this folder that are pages of the site."""
_LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    made = {
        "reference/command-line.md": command_line_page(),
        "reference/http.md": http_page(),
        **{page: page_of(ROOT / name) for name, page in PAGES.items()},
    }
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Point links between files of the repository to the pages of the site."""
    return relink(markdown, page.file.src_uri)


def relink(text: str, uri: str) -> str:
    """Return a page whose links fit the site; a link to a file that is not a page becomes text.

    Args:
        text: Markdown with links as they work in the repository.
        uri: The page's path in the site.
    """
    source = {page: name for name, page in PAGES.items()}.get(uri, f"docs/{uri}")
    up = "../" * uri.count("/")

    def link(found: re.Match[str]) -> str:
        label, target, anchor = found[1], found[2], found[3] or ""
        path = ((ROOT / source).parent / target).resolve()
        name = path.relative_to(ROOT).as_posix()
        if not path.exists() and uri not in PAGES.values():
            return found[0]  # strict mode reports it
        page = PAGES.get(name, name.removeprefix("docs/") if name.startswith("docs/") else "")
        return f"[{label}]({up}{page}{anchor})" if page else label

    return _LINK.sub(link, text)


def page_of(path: Path) -> str:
    """Return a file of the repository as Markdown."""
    text = path.read_text("utf-8")
    return notebook_page(json.loads(text)) if path.suffix == ".ipynb" else text


def notebook_page(notebook: dict[str, Any]) -> str:
    """Return the cells of a notebook with the outputs that it contains."""
    parts = []
    for one in notebook["cells"]:
        source = "".join(one["source"])
        parts.append(f"```python\n{source}\n```" if one["cell_type"] == "code" else source)
        parts += [shown_output(output) for output in one.get("outputs", [])]
    parts.append("This page is `examples/notebook.ipynb` of the repository.")
    return "\n\n".join(parts) + "\n"


def shown_output(output: dict[str, Any]) -> str:
    """Return an output of a cell: a table as HTML, else text."""
    data = output.get("data", {})
    if "text/html" in data:
        return "".join(data["text/html"])
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f"```text\n{text.rstrip()}\n```"


def command_line_page() -> str:
    """Return the help of every command, as `--help` prints it."""
    from msmarco_qdrant.cli.app import cli

    parts = ["# Command line", "Each command prints its section here with `--help`."]
    for path, context in commands(click.Context(cli, info_name="msmarco-qdrant")):
        marks = "#" * min(len(path) + 1, 3)
        parts.append(
            f"{marks} {' '.join(path[1:]) or path[0]}\n\n```text\n{help_text(context)}\n```"
        )
    return "\n\n".join(parts) + "\n"


def commands(context: click.Context) -> Iterator[tuple[list[str], click.Context]]:
    """Yield a command and all below it, with the words that call them."""
    yield context.command_path.split(), context
    if isinstance(context.command, click.Group):
        for name in context.command.list_commands(context):
            command = context.command.get_command(context, name)
            if command is not None and not command.hidden:
                yield from commands(click.Context(command, parent=context, info_name=name))


def help_text(context: click.Context) -> str:
    """Return a command's help, as wide as a page."""
    context.terminal_width = context.max_content_width = 76
    return context.get_help().rstrip()


def http_page() -> str:
    """Return the sidecar's endpoints and their bodies, from its OpenAPI description."""
    description = openapi()
    parts = [
        "# HTTP",
        "The sidecar's endpoints. A running sidecar returns this description at `/openapi.json`.",
        *(
            endpoint(method, path, of_method)
            for path, methods in description["paths"].items()
            for method, of_method in methods.items()
        ),
        "## Bodies",
    ]
    for name, schema in sorted(description["components"]["schemas"].items()):
        parts.append(f"### {name}\n\n{fields_table(schema)}")
    return "\n\n".join(parts) + "\n"


def openapi() -> dict[str, Any]:
    """Return the description of the HTTP app, of which nothing else is used."""
    from types import SimpleNamespace

    from msmarco_qdrant.service.http.app import create_app
    from msmarco_qdrant.service.http.dependencies import AppDependencies
    from msmarco_qdrant.service.metrics import Metrics

    unused: Any = SimpleNamespace(backlog=None)
    parts = AppDependencies(unused, lambda: None, unused, Metrics(lambda: unused))
    found: dict[str, Any] = create_app(parts).openapi()
    return found


def endpoint(method: str, path: str, found: dict[str, Any]) -> str:
    """Return the section of one endpoint."""
    body = found.get("requestBody", {}).get("content", {})
    rows = [
        f"| {status} | {cell(one['description'])} | {types_of(one)} |"
        for status, one in sorted(found["responses"].items())
    ]
    parts = [
        f"## {method.upper()} {path}",
        found.get("description") or found.get("summary", ""),
        "\n".join(
            f"* body `{kind}`: {type_of(one.get('schema', {}))}" for kind, one in body.items()
        ),
        "\n".join(["| status | meaning | body |", "| --- | --- | --- |", *rows]),
    ]
    return "\n\n".join(part for part in parts if part)


def fields_table(schema: dict[str, Any]) -> str:
    """Return the fields of a body."""
    required = schema.get("required", [])
    rows = [
        f"| `{name}` | {type_of(one)} | {'yes' if name in required else ''} | "
        f"{cell(one.get('description', ''))} |"
        for name, one in schema.get("properties", {}).items()
    ]
    text = schema.get("description", "")
    if not rows:
        return f"{text}\n\n{type_of(schema)}"
    return "\n".join(
        [text, "", "| field | type | required | meaning |", "| --- | --- | --- | --- |", *rows]
    )


def types_of(response: dict[str, Any]) -> str:
    """Return the types of a response's bodies."""
    return ", ".join(type_of(one.get("schema", {})) for one in response.get("content", {}).values())


def type_of(schema: dict[str, Any]) -> str:
    """Return a type in a few words, with links to bodies."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    for word in ("anyOf", "oneOf", "allOf"):
        if word in schema:
            return " or ".join(type_of(one) for one in schema[word])
    if "enum" in schema or "const" in schema:
        return ", ".join(
            f"`{json.dumps(one)}`" for one in schema.get("enum", [schema.get("const")])
        )
    kind = str(schema.get("type", "any"))
    return f"{kind} of {type_of(schema['items'])}" if "items" in schema else kind


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
