"""BRATS_* environment variables: their names, and which of those that are set do nothing."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable

import click

__all__ = ["name_variables", "unknown_variables"]

# Read by the program itself, by scripts/setup_env, and by the tests.
_OTHERS = ("BRATS_DEBUG", "BRATS_PYTHON", "BRATS_REAL_DATA", "BRATS_VENV")


def name_variables(name: str, command: click.Command) -> None:
    """Gives each option of a command the environment variables named after its flags.

    `--run` and `--run-dir` of `brats train` can then come from BRATS_TRAIN_RUN and
    BRATS_TRAIN_RUN_DIR.

    Args:
        name: The command, as it is typed.
        command: Its options are changed in place.
    """
    for option in command.params:
        if isinstance(option, click.Option) and option.name != "debug":
            flags = [flag for flag in option.opts if flag.startswith("--")]
            option.envvar = [_variable(f"{name}{flag[1:]}") for flag in flags]


def unknown_variables(
    names: Iterable[str], commands: Iterable[str], get_command: Callable[[str], click.Command]
) -> list[str]:
    """Finds BRATS_* variables that no option reads.

    Args:
        names: Names of all environment variables.
        commands: The commands there are.
        get_command: Gives a command with its variables named; called for those that a variable
            could belong to.

    Returns:
        A line for each variable: its name, and the nearest known one.
    """
    found = sorted(name for name in names if name.startswith("BRATS_") and name not in _OTHERS)
    lines = []
    for name in found:
        known = [
            variable
            for command in commands
            if name.startswith(_variable(f"{command}-"))
            for variable in _variables(command, get_command(command))
        ]
        if name in known:
            continue
        near = difflib.get_close_matches(name, [*known, *_OTHERS], n=1, cutoff=0.8)
        hint = f" Did you mean {near[0]}?" if near else ""
        lines.append(f"{name}: no option reads this environment variable.{hint}")
    return lines


def _variable(text: str) -> str:
    return f"BRATS_{text}".replace("-", "_").upper()


def _variables(name: str, command: click.Command) -> list[str]:
    """What the command's options can come from; click itself knows them by their Python names."""
    options = [one for one in command.params if isinstance(one, click.Option) and one.name]
    by_python_name = [_variable(f"{name}-{one.name}") for one in options if one.allow_from_autoenv]
    return by_python_name + [one for option in options for one in option.envvar or ()]
