"""Command groups whose errors name options where the library names keyword arguments."""

from __future__ import annotations

import re

import click

from msmarco_qdrant.cli.help import Command, write_examples
from msmarco_qdrant.cli.program import as_typed
from msmarco_qdrant.core.escape import escape_controls
from msmarco_qdrant.errors import MsmarcoQdrantError, UsageError

# Keyword arguments whose option has another name.
_OPTIONS = {
    "meta_filter": "--filter",
    "payload_indexes": "--index",
    "max_passages": "--limit",
    "others": "--compare",
}
_BOTH = re.compile(r"(--[a-z-]+(?: [^\s(]+)?) \([a-z_]+=[^()]*\)")
_RULE = re.compile(r"^(?:pass either )?[a-z_]+(?: (?:\+|or) [a-z_]+)?(?= must |, not both$)")
_KEYWORD = re.compile(r"(?<![\w.&?/-])([a-z_]+)=(True\b|(?=\S))")


class _WrongUsage(click.ClickException):
    exit_code = 2


class CommandGroup(click.Group):
    """Commands that fail with one line and a status: 2 for wrong usage, 1 for all else."""

    command_class = Command

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first example of each subcommand, unless it is the program itself."""
        if ctx.parent is not None:
            self.format_examples(ctx, formatter)
        super().format_epilog(ctx, formatter)

    def format_examples(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the first example of each subcommand."""
        commands = [self.commands[name] for name in self.list_commands(ctx)]
        examples = [
            f"{command.name} {command.examples[0]}"
            for command in commands
            if isinstance(command, Command) and command.examples
        ]
        write_examples(formatter, ctx.command_path, examples)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error of this package becomes click's."""
        try:
            return super().invoke(ctx)
        except MsmarcoQdrantError as exc:
            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            failure = _WrongUsage if isinstance(exc, UsageError) else click.ClickException
            message = as_typed(name_options(str(exc), command))
            raise failure(escape_controls(message)) from exc


def name_options(message: str, command: click.Command | None) -> str:
    """Write a library's message for the command line: `model=x` becomes `--model x`.

    So does the parameter that a rule begins with: `order_by must` becomes `--order-by must`.

    Of an option with its keyword, such as `--yes (yes=True)`, only the option stays. Keywords
    that the command has no option for stay as they are.
    """
    params = command.get_params(click.Context(command)) if command else []
    flags = {option for param in params for option in param.opts}

    def option(found: re.Match[str]) -> str:
        name, value = found.groups()
        flag = "--" + name.replace("_", "-")
        flag = flag if flag in flags else _OPTIONS.get(name, flag)
        if flag not in flags:
            return found[0]
        return flag if value == "True" else f"{flag} "

    def subject(found: re.Match[str]) -> str:
        words = ((word, "--" + word.replace("_", "-")) for word in found[0].split(" "))
        return " ".join(flag if flag in flags else word for word, flag in words)

    return _KEYWORD.sub(option, _BOTH.sub(r"\1", _RULE.sub(subject, message)))
