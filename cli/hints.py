"""What is suggested for a command or an option that does not exist: one that differs by a slip, and nothing else."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    """A command that suggests an option only for a slip in its name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer's, but for what the error suggests."""
        try:
            return super().parse_args(ctx, args)
        except Exception as error:
            if hasattr(error, "possibilities") and hasattr(error, "option_name"):
                options = {option for param in self.params for option in (*param.opts, *param.secondary_opts)}
                error.possibilities = []
                error.message += _hint(error.option_name, sorted(options))  # type: ignore[attr-defined]
            raise


class Group(TyperGroup):
    """A group of commands that suggests one only for a slip in its name."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer's, but for what the error suggests."""
        self.suggest_commands = False
        try:
            return super().resolve_command(ctx, args)
        except Exception as error:
            if hasattr(error, "message"):
                error.message = error.message.rstrip(".") + _hint(args[0], list(self.commands))
            raise


def _hint(name: str, known: list[str]) -> str:
    from imae.prototxt_like.text import did_you_mean  # which loads protobuf

    return did_you_mean(name, known)
