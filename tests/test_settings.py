"""Settings: each variable, what it may be, and what is told when it is something else."""

from __future__ import annotations

import re
import traceback
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from msmarco_qdrant.core.collection_types import StorageSettings
from msmarco_qdrant.encoding.catalog import DEFAULT_MODEL
from msmarco_qdrant.encoding.options import EncoderOptions
from msmarco_qdrant.errors import UsageError
from msmarco_qdrant.service.settings import SidecarSettings
from msmarco_qdrant.settings import Settings, find_env_file, load_as, load_settings
from msmarco_qdrant.stores import DEFAULT_CONNECTION, Connection
from msmarco_qdrant.stores.connection import Transport

HIDDEN = "hunter2"
ENV_FILE = Path(".env")

# The name, the text in the environment, and the value.
GOOD: list[tuple[str, str, Any]] = [
    ("store", "http://localhost:6333", "http://localhost:6333"),
    ("store", "./here", "./here"),
    ("collection", "passages", "passages"),
    ("model", "all-MiniLM-L6-v2", "all-MiniLM-L6-v2"),
    ("max_line_bytes", "1024", 1024),
    ("window", "1", 1),
    ("api_key", HIDDEN, SecretStr(HIDDEN)),
    ("grpc_port", "1", 1),
    ("grpc_port", "65535", 65535),
    ("transport", "rest", "rest"),
    ("timeout_s", "0.5", 0.5),
    ("retry_s", "0", 0.0),
    ("tls_ca", "/etc/ca.pem", Path("/etc/ca.pem")),
    ("batch_points", "1", 1),
    ("batch_bytes", "1024", 1024),
    ("in_flight", "1", 1),
    ("in_flight", "64", 64),
    ("on_disk", "false", False),
    ("on_disk", "1", True),
    ("quantization", "none", "none"),
    ("quantization", "int8", "int8"),
    ("quantization", "turbo4", "turbo4"),
    ("device", "cuda:1", "cuda:1"),
    ("precision", "int8", "int8"),
    ("cached_queries", "0", 0),
    ("data", "/data", Path("/data")),
    ("host", "0.0.0.0", "0.0.0.0"),  # noqa: S104
    ("port", "0", 0),
    ("port", "65535", 65535),
    ("read_token", HIDDEN, SecretStr(HIDDEN)),
    ("tenant_tokens", f"acme={HIDDEN}", SecretStr(f"acme={HIDDEN}")),
    ("write_token", HIDDEN, SecretStr(HIDDEN)),
    ("spool", "/spool", Path("/spool")),
    ("inbox", "/inbox", Path("/inbox")),
    ("reranker", "ms-marco-MiniLM-L6-v2", "ms-marco-MiniLM-L6-v2"),
    ("cors_origins", "https://app.example.com", "https://app.example.com"),
    ("search_collections", "films,books", "films,books"),
    ("mcp", "true", True),
    ("mcp_write", "true", True),
    ("index", "year=integer,lang=keyword", "year=integer,lang=keyword"),
    ("spool_bytes", "1", 1),
    ("spool_batches", "1", 1),
    ("spool_total_bytes", "1", 1),
    ("body_bytes", "1024", 1024),
    ("searches", "1", 1),
    ("search_s", "0.5", 0.5),
    ("grace_s", "0", 0.0),
    ("log_level", "debug", "debug"),
]
BAD = [
    ("max_line_bytes", "1023", "greater than or equal to 1024"),
    ("window", "1.5", "valid integer"),
    ("grpc_port", "65536", "less than or equal to 65535"),
    ("timeout_s", "0", "greater than 0"),
    ("timeout_s", "inf", "finite number"),
    ("retry_s", "nan", "greater than or equal to 0"),
    ("in_flight", "65", "less than or equal to 64"),
    ("on_disk", "perhaps", "valid boolean"),
    ("quantization", "int4", "'none', 'int8' or 'turbo4'"),
    ("precision", "fp4", "'float32', 'bfloat16', 'float16', 'int8' or 'fp8'"),
    ("port", "-1", "greater than or equal to 0"),
    ("search_s", "inf", "finite number"),
    ("log_level", "loud", "'debug', 'info', 'warning' or 'error'"),
]


def variable(name: str) -> str:
    """The variable of a setting."""
    return f"MSMARCO_QDRANT_{name.upper()}"


@pytest.fixture(autouse=True)
def without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests find their real data by this variable, so `conftest` keeps it."""
    monkeypatch.delenv("MSMARCO_QDRANT_DATA", raising=False)


def test_every_setting_is_tested_here() -> None:
    """A new setting needs a row."""
    assert set(SidecarSettings.model_fields) == {name for name, _, _ in GOOD}


def test_defaults_without_an_environment() -> None:
    """Those of the records and of the connection."""
    settings = load_settings({})
    assert ("./qdrant_data", "msmarco", DEFAULT_MODEL) == (
        settings.store,
        settings.collection,
        settings.model,
    )
    assert (DEFAULT_CONNECTION, StorageSettings()) == (settings.connection, settings.storage)
    assert EncoderOptions() == settings.encoder_options
    assert (None, None) == (settings.api_key, settings.data)


@pytest.mark.parametrize(("name", "text", "expected"), GOOD)
def test_a_variable_is_read(
    name: str, text: str, expected: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the environment, in upper or lower case."""
    monkeypatch.setenv(variable(name), text)
    assert expected == getattr(load_as(SidecarSettings, {}), name)
    monkeypatch.delenv(variable(name))
    monkeypatch.setenv(variable(name).lower(), text)
    assert expected == getattr(load_as(SidecarSettings, {}), name)


def test_a_file_is_read() -> None:
    """Also with variables of other programs; only if it is named."""
    rows = {name: (text, expected) for name, text, expected in GOOD}
    lines = [f"{variable(name)}={text}\n" for name, (text, _) in rows.items()]
    Path(".env").write_text("# mine\nOTHER=1\n" + "".join(lines), "utf-8")
    settings = load_as(SidecarSettings, {}, ENV_FILE)
    assert {name: expected for name, (_, expected) in rows.items()} == {
        name: getattr(settings, name) for name in rows
    }
    assert load_as(SidecarSettings, {}) == SidecarSettings()


def test_order_of_the_sources_of_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command line is before the environment, and both are before the file."""
    Path(".env").write_text(
        f"{variable('store')}=file\n{variable('collection')}=file\n{variable('model')}=file\n"
    )
    monkeypatch.setenv(variable("store"), "environment")
    monkeypatch.setenv(variable("collection"), "environment")
    settings = load_settings({"store": "given"}, ENV_FILE)
    assert ("given", "environment", "file") == (
        settings.store,
        settings.collection,
        settings.model,
    )


@pytest.mark.parametrize("source", ["environment", "file", "given"])
@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_invalid_value_is_reported_with_its_variable(
    name: str, text: str, message: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From all sources, with the rule, and never as an error of pydantic."""
    given: dict[str, str] = {}
    if source == "environment":
        monkeypatch.setenv(variable(name), text)
    elif source == "file":
        Path(".env").write_text(f"{variable(name)}={text}\n")
    else:
        given = {name: text}
    pattern = rf"invalid setting: {variable(name)}: .*{re.escape(message)}"
    with pytest.raises(UsageError, match=pattern):
        load_as(SidecarSettings, given, ENV_FILE if source == "file" else None)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("MSMARCO_QDRANT_QUANTISATION", "was renamed to MSMARCO_QDRANT_QUANTIZATION"),
        ("MSMARCO_QDRANT_BACKEND", "was removed, since torch runs every model now: unset it"),
    ],
)
@pytest.mark.parametrize("source", ["environment", "file"])
def test_a_former_variable_is_refused(
    source: str, name: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to do, instead of ignoring its value."""
    if source == "environment":
        monkeypatch.setenv(name, "none")
    else:
        Path(".env").write_text(f"{name}=none\n")
    with pytest.raises(UsageError, match=f"^{name} {change}$"):
        load_settings({}, ENV_FILE if source == "file" else None)


def test_all_invalid_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names each variable."""
    monkeypatch.setenv(variable("window"), "0")
    monkeypatch.setenv(variable("retry_s"), "-1")
    with pytest.raises(UsageError) as caught:
        load_settings({})
    assert [variable("window"), variable("retry_s")] == re.findall(
        r"MSMARCO_QDRANT_\w+", str(caught.value)
    )


def test_connection_has_its_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, port, times, certificates, sizes and transport."""
    transport: Transport = "rest"
    values = (HIDDEN, 7334, 2.5, 7.0, Path("/etc/ca.pem"), 10, 2048, 3, transport)
    for field, value in zip(fields(Connection), values, strict=True):
        monkeypatch.setenv(variable(field.name), str(value))
    assert Connection(*values) == load_settings({}).connection


# ---- secrets ---------------------------------------------------------------------------------


def test_the_tokens_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by repr, str, a dump or JSON."""
    monkeypatch.setenv(variable("read_token"), HIDDEN)
    monkeypatch.setenv(variable("write_token"), HIDDEN)
    settings = load_as(SidecarSettings, {})
    assert [HIDDEN, HIDDEN] == settings.secrets
    shown = [f"{settings} {settings!r} {settings.model_dump()}", settings.model_dump_json()]
    assert [] == [text for text in shown if HIDDEN in text]


@pytest.mark.parametrize("key", [f"{HIDDEN}\udcff", f"\udcff{HIDDEN}", f"{HIDDEN}\u00fc"])
def test_error_of_an_invalid_key_does_not_contain_it(
    key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes that are not UTF-8, and characters that a header cannot contain."""
    monkeypatch.setenv(variable("api_key"), key)
    with pytest.raises(UsageError) as caught:
        _ = load_settings({}).connection
    assert "key" in str(caught.value).lower()
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


def test_error_of_an_invalid_file_does_not_contain_its_text() -> None:
    """It has the file and the place of the invalid byte."""
    Path(".env").write_bytes(f"{variable('api_key')}={HIDDEN}\n".encode() + b"X=\xff\n")
    with pytest.raises(UsageError, match=r"the file .*/\.env is not UTF-8.* byte 0xff") as caught:
        load_settings({}, Path.cwd() / ".env")
    assert str(Path.cwd()) in str(caught.value)
    assert caught.value.__cause__ is None
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


# ---- which store gets the key ----------------------------------------------------------------

SOURCES = ["file", "environment", "option"]  # from the weakest to the strongest
FAR = {"store": "https://far", "transport": "rest", "grpc_port": "443", "tls_ca": "/far/ca.pem"}


def loaded_from(sources: dict[str, str], values: dict[str, str]) -> Settings:
    """Settings with each value from its source."""
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        for name, source in sources.items():
            if source == "environment":
                patch.setenv(variable(name), values[name])
            elif source == "file":
                lines.append(f"{variable(name)}={values[name]}\n")
        ENV_FILE.write_text("".join(lines))
        given = {name: values[name] for name, source in sources.items() if source == "option"}
        return load_settings(given, ENV_FILE)


@pytest.mark.parametrize("of_address", SOURCES)
@pytest.mark.parametrize("of_key", SOURCES)
@pytest.mark.parametrize("name", FAR)
def test_r5_the_key_goes_only_where_its_source_or_a_stronger_one_says(
    name: str, of_key: str, of_address: str
) -> None:
    """For the URL and for everything else that decides who gets the key."""
    sources = {"api_key": of_key, "store": of_key, name: of_address}
    settings = loaded_from(sources, {"store": "https://near", "api_key": HIDDEN, name: FAR[name]})
    if SOURCES.index(of_address) >= SOURCES.index(of_key):
        assert HIDDEN == settings.connection.api_key
        return
    with pytest.raises(UsageError, match=f"^the API key must go only .*{variable(name)} from "):
        _ = settings.connection


def test_r5_an_option_replaces_the_server_of_a_file() -> None:
    """The advice of the error works."""
    sources = {"api_key": "environment", "store": "file"}
    values = {"api_key": HIDDEN, "store": "https://far"}
    settings = loaded_from(sources, values)
    with pytest.raises(UsageError, match=r"pass --store$") as caught:
        _ = settings.connection
    assert HIDDEN not in str(caught.value)
    assert HIDDEN == loaded_from(sources | {"store": "option"}, values).connection.api_key


def test_r5_a_directory_gets_no_key() -> None:
    """A file may name a directory, whoever has a key."""
    values = {"api_key": HIDDEN, "store": "./here"}
    settings = loaded_from({"api_key": "environment", "store": "file"}, values)
    assert HIDDEN == settings.connection.api_key


@pytest.mark.parametrize("reference", ["${MSMARCO_QDRANT_API_KEY}", "${HOME:-x}"])
def test_r5_a_file_cannot_put_the_environment_into_a_url(
    reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reference to another variable is refused, as it could be a secret of the environment."""
    monkeypatch.setenv(variable("api_key"), HIDDEN)
    ENV_FILE.write_text(f"OTHER={reference}\n{variable('store')}=https://far/{reference}\n")
    with pytest.raises(UsageError, match=f"must not refer to others .*{variable('store')}"):
        load_settings({}, ENV_FILE)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.yml", "docker-compose.yaml"])
def test_r5_a_file_beside_a_compose_file_is_found(name: str) -> None:
    """Only if the compose file has variables of this package."""
    folder = Path.cwd()
    assert find_env_file(folder) is None
    (folder / ".env").touch()
    assert find_env_file(folder) is None
    (folder / name).write_text("services: {web: {image: nginx}}\n")
    assert find_env_file(folder) is None
    (folder / name).write_text("services: {x: {environment: {MSMARCO_QDRANT_STORE: here}}}\n")
    assert folder / ".env" == find_env_file(folder)
