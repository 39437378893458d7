"""Callbacks of command-line options that several commands share."""

import unicodedata

import click
from click.core import ParameterSource

__all__ = ["comma_separated", "node_name", "word"]

_EMPTY = (
    "{!r} is empty. If the value comes from an environment variable, set the variable; "
    "otherwise leave the option out."
)


def word(
    context: click.Context, param: click.Parameter, value: str | tuple[str, ...] | None
) -> str | tuple[str, ...] | None:
    """Refuse an empty value on the command line: a shell passes one where a variable is not set.

    An option that selects, as `--queue` does, would then select everything.
    """
    is_typed = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    for one in (value,) if isinstance(value, str) else value or ():
        if is_typed and not one.strip():
            raise click.BadParameter(_EMPTY.format(one))
    return value


def comma_separated(
    _context: click.Context, _param: click.Parameter, value: str | None
) -> tuple[str, ...]:
    """Split a comma-separated list of names; blanks around a name do not count, empty names are refused."""
    if value is None:
        return ()
    names = tuple(name.strip() for name in value.split(","))
    if names == ("",):
        raise click.BadParameter(_EMPTY.format(value))
    if "" in names:
        raise click.BadParameter(
            f"name {names.index('') + 1} of {value!r} is empty; separate names by single commas."
        )
    return names


def node_name(context: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """Refuse a worker name with blanks or control characters: such a name breaks log lines and destinations."""
    word(context, param, value)
    for index, character in enumerate(value or ""):
        if character.isspace() or character == "," or unicodedata.category(character) == "Cc":
            raise click.BadParameter(
                f"{value!r} has {character!r} at position {index + 1}; "
                "a worker's name has no blanks, commas or control characters."
            )
    return value
