"""Where torch.compile cannot help, a run goes on without it and says why."""

import pytest
import torch
from torch import nn

from wavespark.engine.machine.compiling import compile_model

CPU = torch.device("cpu")


def compiled(wanted="on"):
    said, model = [], nn.Linear(2, 2)
    compile_model(model, wanted, CPU, said.append)
    return model, said


def test_a_torch_whose_compiler_fails_within_is_not_asked(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda f: asked.append(f) or f)
    monkeypatch.setattr(torch, "__version__", "2.4.1+cu121")
    _, said = compiled()
    assert not asked
    assert said == [
        "run.compile: goes on without, because the compiler of torch 2.4.1+cu121 cannot trace visible cells"
    ]
    monkeypatch.setattr(torch, "__version__", "2.13.0a0+git12")
    _, said = compiled()
    assert len(asked) == 1 and not said


def test_a_compiler_that_fails_is_left_out_and_another_error_is_the_runs(monkeypatch):
    fails = torch._dynamo.exc.Unsupported("no such thing")

    def broken(plain):
        def run(x):
            raise fails

        return run

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    model, said = compiled()
    x = torch.ones(1, 2)
    assert torch.equal(model(x), nn.functional.linear(x, model.weight, model.bias))
    model(x)
    assert len(said) == 1 and "Unsupported: no such thing" in said[0]
    fails = ValueError("of the model")
    model, said = compiled()
    with pytest.raises(ValueError, match="of the model"):
        model(x)
    assert not said


def test_a_processor_compiles_only_where_it_is_asked(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda f: pytest.fail("compiled"))
    for wanted in ("off", "auto"):
        assert compiled(wanted)[1] == []
