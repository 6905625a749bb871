"""The text of README and of the guides, and what their code blocks and tables contain."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cli.runner import command
from tests.conftest import ROOT
from tests.stand_ins import environment_of_cache

README = (ROOT / "README.md").read_text()
_VARYING = re.compile(r"^(?:time: |rejected rows: |INFO: \S+ runs by )| passages/s")


def page(name: str) -> str:
    """The text of a guide."""
    return (ROOT / "docs" / name).read_text()


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def rows(text: str, head: str) -> list[list[str]]:
    """The cells of the table that starts with a head, without their code marks."""
    table = text.split(f"| {head} |", 1)[1].split("\n\n", 1)[0]
    lines = table.strip().splitlines()[1:]
    lines = [line for line in lines if not line.startswith("| ---")]
    return [[cell.strip().replace("`", "") for cell in line.split("|")[1:-1]] for line in lines]


def output_after(text: str, block: str) -> str:
    """The block without a language that follows a block, "" if there is none."""
    follows = text.split(f"```python\n{block}```\n\n", 1)[-1]
    return follows.removeprefix("```\n").split("```")[0] if follows.startswith("```\n") else ""


def without_last_digits(output: str) -> list[str]:
    """Return the lines with scores cut to two digits, as processors differ in the last one."""
    return re.sub(r"(0\.\d\d)\d+", r"\1", output).splitlines()


def sessions(text: str) -> list[tuple[str, str]]:
    """Return the commands of a text, each with its shown output."""
    shown = "".join(re.findall(r"^```\n(\$ .*?)```", text, flags=re.DOTALL | re.MULTILINE))
    parts = re.split(r"^\$ (.+)\n", shown, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def lasting(output: str) -> list[str]:
    """Return the lines that do not depend on the machine and the time."""
    counts = re.sub(r"; [\d.]+ s, [\d.,]+ passages/s$", "", output.strip(), flags=re.MULTILINE)
    sizes = re.sub(r"[\d.,]+ (MiB|s)\b", r"\1", counts)
    return [line for line in without_last_digits(sizes) if not _VARYING.search(line)]


def check_sessions(text: str) -> None:
    """Run the commands of a page in this process and directory; each prints what is shown."""
    for line, shown in sessions(text):
        if line.startswith("cat > "):
            Path(line.split()[2]).write_text(shown.split("END\n")[0])
        elif line.startswith("mkdir "):
            Path(line.split()[1]).mkdir()
        else:
            assert "msmarco-qdrant" == line.split()[0], line
            assert lasting(shown) == lasting(command(*shlex.split(line)[1:]).out), line


def output_of(line: str, place: Path, home: Path) -> str:
    """Run a command in a shell and return its output."""
    return _run(["/bin/sh", "-c", line], place, home).stdout


def outputs_of(lines: Sequence[str], place: Path, home: Path) -> Sequence[str]:
    """Run commands in one process and return their outputs."""
    program = [sys.executable, "-m", "tests.docs.commands_program", *lines]
    done = _run(program, place, home, PYTHONPATH=str(ROOT))
    assert 0 == done.returncode, done.stdout
    outputs: Sequence[str] = json.loads(done.stdout.splitlines()[-1])
    return outputs


def _run(
    program: Sequence[str], place: Path, home: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    cache = environment_of_cache(home)
    environment = {
        **cache,
        "COLUMNS": "80",
        "HF_HUB_VERBOSITY": "error",  # else it prints a warning each time that it is offline
        "MSMARCO_QDRANT_PRECISION": "float32",  # the same counts on every processor
        "PATH": f"{Path(sys.executable).parent}:{cache['PATH']}",
        **variables,
    }
    return subprocess.run(
        program,
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def without_times(output: str) -> list[str]:
    """Return the lines without durations and without progress lines."""
    lines = re.sub(r"\d+\.\d s$", "s", output.strip(), flags=re.MULTILINE)
    return [line for line in without_last_digits(lines) if " passages/s" not in line]
