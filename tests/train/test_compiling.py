"""--compile where the compiler fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from brats_train.compiling import compiled


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def test_a_failing_compiler_is_said_in_one_line_and_gone_without(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no compiler here")

    monkeypatch.setattr("torch._inductor.compile_fx.compile_fx", fail)
    plain = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    model = compiled(plain)
    images = torch.randn(5, 3)
    for _ in range(2):
        outputs = model(images)
        torch.testing.assert_close(outputs, plain(images))
        outputs.sum().backward()
    said = capsys.readouterr().err
    assert said.count("goes on without compiling") == 1
    assert "no compiler here" in said
    assert "Traceback" not in said
