"""Batch norm at rest: the one part of the network that sees more than one sample, held still.

Run as a script it is the `brats` command with batch norm at rest, for torchrun.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def frozen_batchnorm() -> Iterator[None]:
    """Within it batch norm uses its running statistics in training too."""
    plain = torch.nn.BatchNorm2d.forward

    def forward(module: torch.nn.BatchNorm2d, images: torch.Tensor) -> torch.Tensor:
        was, module.training = module.training, False
        try:
            return plain(module, images)
        finally:
            module.training = was

    torch.nn.BatchNorm2d.forward = forward  # type: ignore[method-assign]
    try:
        yield
    finally:
        torch.nn.BatchNorm2d.forward = plain  # type: ignore[method-assign]


if __name__ == "__main__":
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from brats_train.cli.main import main

    with frozen_batchnorm():
        main()
