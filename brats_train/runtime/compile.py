"""torch.compile that falls back to eager mode where it fails."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import click
import torch
from torch import nn

from brats_cache.common.errors import printable

__all__ = ["CompileMode", "compile_model", "compiling"]

CompileMode = bool | Literal["reduce-overhead"]
"""False for eager mode; "reduce-overhead" replays the compiled passes as CUDA graphs."""


def compile_model(model: nn.Module, mode: CompileMode) -> nn.Module:
    """Compiles a model; parts that the compiler fails on run eagerly, with a warning of one line.

    Args:
        model: The network.
        mode: Returns the network itself where it is False.

    Returns:
        The compiled model, which shares its parameters with `model`.
    """
    if not mode:
        return model
    import torch._dynamo
    import torch._functorch.config

    torch._dynamo.config.suppress_errors = True
    # Else the backward pass is compiled at its first use, where an error is not suppressed.
    torch._functorch.config.force_non_lazy_backward_lowering = True
    logging.getLogger("torch._dynamo.convert_frame").addFilter(_OneWarning())
    # Each shape by itself: code for any shape is slower, and is compiled at the second shape.
    name = None if mode is True else mode
    return torch.compile(model, dynamic=False, mode=name)  # type: ignore[return-value]


def compiling(is_wanted: bool) -> AbstractContextManager[object]:
    """A context in which compiled models run compiled, or else eagerly.

    Compiling takes a minute, and longer than all the steps of a shape that comes once an epoch.
    """
    return nullcontext() if is_wanted else torch.compiler.set_stance("force_eager")


class _OneWarning(logging.Filter):
    """Prints the first compilation error as one line, in place of a traceback for each."""

    is_printed = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info is None or record.exc_info[1] is None:
            return True
        if not self.is_printed:
            self.is_printed = True
            paragraph = str(record.exc_info[1]).split("\n\n")[0]
            reason = printable(" ".join(paragraph.split()).removesuffix("."))
            click.echo(f"Warning: --compile goes on without compiling ({reason}).", err=True)
        return False
