"""torch.compile that falls back to eager mode where it fails."""

from __future__ import annotations

import logging

import click
from torch import nn

from brats_cache.common.errors import printable

__all__ = ["compile_model"]


def compile_model(model: nn.Module) -> nn.Module:
    """Compiles a model; parts that the compiler fails on run eagerly, with a warning of one line.

    Returns:
        The compiled model, which shares its parameters with `model`.
    """
    import torch._dynamo
    import torch._functorch.config

    torch._dynamo.config.suppress_errors = True
    # Else the backward pass is compiled at its first use, where an error is not suppressed.
    torch._functorch.config.force_non_lazy_backward_lowering = True
    logging.getLogger("torch._dynamo.convert_frame").addFilter(_OneWarning())
    return torch.compile(model)  # type: ignore[return-value]


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
