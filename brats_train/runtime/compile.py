"""torch.compile with a way on where it fails."""

from __future__ import annotations

import logging

import click
from torch import nn

from brats_cache.common.errors import printable

__all__ = ["compiled"]


def compiled(model: nn.Module) -> nn.Module:
    """`model` compiled, going on without where the compiler fails, which it says in one line."""
    import torch._dynamo
    import torch._functorch.config

    torch._dynamo.config.suppress_errors = True
    # Else the backward pass is compiled at its first use, where a failure is no longer caught.
    torch._functorch.config.force_non_lazy_backward_lowering = True
    logging.getLogger("torch._dynamo.convert_frame").addFilter(_InOneLine())
    return torch.compile(model)  # type: ignore[return-value]


class _InOneLine(logging.Filter):
    """Says what was suppressed, the first time, in place of a traceback every time."""

    is_said = False

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info is None or record.exc_info[1] is None:
            return True
        if not self.is_said:
            self.is_said = True
            paragraph = str(record.exc_info[1]).split("\n\n")[0]
            reason = printable(" ".join(paragraph.split()).removesuffix("."))
            click.echo(f"Warning: --compile goes on without compiling ({reason}).", err=True)
        return False
