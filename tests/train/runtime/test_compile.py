"""--compile where the compiler fails."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import nn
from torch._dynamo.backends.common import aot_autograd

from brats_train.runtime.compile import compile_model


def fail(*_: Any) -> Any:
    raise RuntimeError("no compiler here")


def succeed(graph: Any, _: Any) -> Any:
    return make_boxed_func(graph.forward)


@pytest.mark.parametrize("forward", [fail, succeed])
def test_a_failing_compiler_is_said_in_one_line_and_gone_without(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fresh_compiler: None,
    forward: Any,
) -> None:
    """Of both passes, or of the backward pass alone."""
    backend = aot_autograd(fw_compiler=forward, bw_compiler=fail)
    monkeypatch.setattr(
        "torch._inductor.compile_fx.compile_fx",
        lambda graph, inputs, **_: backend(graph, inputs),
    )
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model = compile_model(plain, True)
    images = torch.randn(5, 3)
    for _ in range(2):
        outputs = model(images)
        torch.testing.assert_close(outputs, plain(images))
        outputs.sum().backward()
    said = capsys.readouterr().err
    assert said.count("goes on without compiling") == 1
    assert "no compiler here" in said
    assert "Traceback" not in said
