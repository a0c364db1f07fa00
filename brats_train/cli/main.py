"""The `brats` command: the table of its subcommands, and error messages and exit codes.

A subcommand's module is imported when it is called, so `brats --help` needs neither torch nor
numpy. Exit codes: 0 done, 1 the data or the run failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import difflib
import faulthandler
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from brats_cache import __version__
from brats_cache.common.errors import BratsError, first_line, print_message
from brats_cache.common.memory import is_out_of_gpu_memory, is_out_of_memory
from brats_cache.common.os_errors import refused_by_system
from brats_train.cli.environment import name_variables, unknown_variables

__all__ = ["cli", "main"]

COMMANDS = {
    "build-cache": (
        "brats_cache.cli.build_cache",
        "build_cache",
        "Convert NIfTI cases into one cache file.",
    ),
    "scan": (
        "brats_cache.cli.scan",
        "scan",
        "List the cases that are found, as a table to correct.",
    ),
    "info": ("brats_cache.cli.info", "info", "Describe a cache."),
    "verify": (
        "brats_train.cli.verify",
        "verify",
        "Compare every byte of caches and checkpoints with its checksum.",
    ),
    "link": ("brats_cache.cli.link", "link", "One HDF5 view over several caches, for h5py users."),
    "phantom": (
        "brats_cache.cli.phantom",
        "phantom",
        "Make synthetic cases in the layout of BraTS 2020.",
    ),
    "train": ("brats_train.cli.train", "train", "Train the U-Net on a cache."),
    "eval": ("brats_train.cli.evaluate", "evaluate", "Score a run on a split of its cache."),
    "predict": ("brats_train.cli.predict", "predict", "Segment scans: NIfTI in, NIfTI out."),
    "export": (
        "brats_train.cli.export",
        "export",
        "Write a model to share: ONNX, or Hugging Face's layout.",
    ),
    "report": (
        "brats_train.cli.report",
        "report",
        "Make the figures and the report page of a run.",
    ),
    "compare": ("brats_train.cli.compare", "compare", "Compare runs: settings, curves, scores."),
    "tune": ("brats_train.cli.tune", "tune", "Search for better hyper-parameters."),
    "view": ("brats_train.cli.view", "view", "Show a scan and its masks in the browser."),
    "demo": ("brats_train.cli.demo", "demo", "Run the whole pipeline on synthetic cases."),
    "bench": ("brats_train.cli.bench", "bench", "Benchmark a part of the pipeline."),
    "doctor": ("brats_train.cli.doctor", "doctor", "Check what this machine has and lacks."),
}


# What other programs call an option of ours, where the spelling alone is no help.
_OTHER_WORDS = {
    "--learning-rate": "--lr",
    "--bs": "--batch-size",
    "--gpus": "--nproc",
    "--gpu": "--device",
    "--output": "--out",
    "--max-epochs": "--epochs",
    "--num-workers": "--workers",
    "--pretrained": "--encoder-weights",
    "--augment": "--set augment.FIELD",
}
_OTHER_COMMANDS = {"version": "--version", "evaluate": "eval", "test": "eval", "infer": "predict"}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if not any(parameter.name == "debug" for parameter in command.params):
            command.params.append(_debug_option(allow_from_autoenv=False))
            name_variables(cmd_name, command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name.lower().replace("_", "-"), COMMANDS, n=1)
            meant = _OTHER_COMMANDS.get(name.lower()) or (near[0] if near else None)
            hint = f" Did you mean brats {meant}?" if meant else " brats --help lists them."
            ctx.fail(f"No such command {name!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in COMMANDS.items()])


def _debug_option(*, allow_from_autoenv: bool) -> click.Option:
    return click.Option(
        ["--debug"],
        is_flag=True,
        expose_value=False,
        allow_from_autoenv=allow_from_autoenv,
        help="Show the traceback of a failure.",
    )


@click.group(
    cls=LazyGroup,
    params=[_debug_option(allow_from_autoenv=True)],  # BRATS_DEBUG
    context_settings={
        "auto_envvar_prefix": "BRATS",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 80,
    },
)
@click.version_option(__version__, prog_name="brats")
def cli() -> None:
    """Train and evaluate a brain-tumour segmenter on BraTS MRI.

    Every option can come from the environment, as BRATS_TRAIN_EPOCHS=5 does for train --epochs.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves the process with its exit code."""
    if not sys.platform.startswith("linux"):
        sys.exit("Error: brats runs on Linux; on Windows, use it inside WSL2.")
    if not faulthandler.is_enabled():
        with suppress(RuntimeError, OSError):  # there is no standard error
            # For deaths that cannot be caught, as by a file that is cut while it is copied.
            faulthandler.enable()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    words = [_with_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    rank = int(os.environ.get("RANK", 0))
    if rank == 0:  # every process under torchrun has the same words and variables
        _warn_of_unknown_variables()
    try:
        code = cli.main(words, prog_name="brats", standalone_mode=False)
    except click.NoSuchOption as error:
        if rank == 0:
            _show_usage(error)
            meant = _OTHER_WORDS.get(error.option_name)
            if meant and _has_option(error.ctx, meant.split()[0]):
                print_message(f"Did you mean {meant}?")
        sys.exit(error.exit_code)
    except click.ClickException as error:
        if rank == 0:
            _show_usage(error)
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        is_debugging = "--debug" in words or _is_on(os.environ.get("BRATS_DEBUG", ""))
        message = _message_of(error)
        if message is None:
            raise
        if is_debugging:
            traceback.print_exc()
        # What fails before the ranks have joined fails on all of them; one message is enough.
        if rank == 0 or message.rank is not None or message is not error:
            where = f" (rank {message.rank})" if message.rank else ""
            print_message(message, prefix=f"Error{where}: ")
        sys.exit(message.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _has_option(context: click.Context | None, flag: str) -> bool:
    return context is not None and any(flag in one.opts for one in context.command.params)


def _with_home(word: str) -> str:
    """`--out=~/x` as shells read `--out ~/x`, which would otherwise make a folder called ~."""
    option, sign, value = word.partition("=")
    if option.startswith("--") and (value == "~" or value.startswith("~/")):
        return f"{option}{sign}{Path(value).expanduser()}"
    return word


def _message_of(error: Exception) -> BratsError | None:
    """What a person reads of an error, None where it is a defect of this program."""
    if isinstance(error, BratsError):
        return error
    if is_out_of_gpu_memory(error):
        return BratsError(
            f"The memory of the GPU ran out ({first_line(error)}). Close what else uses it, or add "
            "--device cpu; what is finished is kept."
        )
    if is_out_of_memory(error):
        return BratsError(
            f"The memory ran out ({first_line(error)}). Close what else uses it or raise its limit "
            "(ulimit -v, or that of the job); what is finished is kept."
        )
    return refused_by_system(error)


def _warn_of_unknown_variables() -> None:
    context = click.Context(cli)

    def get_command(name: str) -> click.Command:
        command = cli.get_command(context, name)
        assert command is not None, "the name comes from COMMANDS"
        return command

    for line in unknown_variables(os.environ, COMMANDS, get_command):
        print_message(line, prefix="Warning: ")


def _show_usage(error: click.ClickException) -> None:
    """Prints what click says of wrong usage, whose long lines it leaves to the terminal to cut."""
    text = io.StringIO()
    error.show(text)
    print_message(text.getvalue().rstrip("\n"))


def _is_on(text: str) -> bool:
    """What click takes for a flag that is set; it has refused what is neither on nor off."""
    return text.strip().lower() in ("1", "true", "t", "yes", "y", "on")
