"""Steps and forward passes recorded on a GPU: the same numbers as operation by operation. On a CPU
nothing is recorded, and the same calls compute."""

import pytest
import torch

from dfil import models
from dfil.train import parallel
from dfil.train.recorded import Gradients, Recorded

TINY = {"depth": (2, 1, 1, 1), "width": 4, "stem": "small"}
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=gpu)]


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """As the study computes on a GPU, so that the two ways can be compared digit by digit."""
    monkeypatch.setattr("dfil.train.devices._full", True)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


def clips(device, batch=4):
    torch.manual_seed(1)
    x = torch.randn(batch, 2, 4, 3, 32, 32, device=device)
    return x, (torch.arange(batch, device=device) % 2).float()


def network(device):
    torch.manual_seed(0)
    return models.build("dil", frames=4, **TINY).to(device).train()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_gradients_are_those_of_backward(device, weight):
    device = torch.device(device)
    ours, theirs = network(device), network(device)
    gradients = Gradients(parallel.shared_loss(ours, device), device)
    for batch in (4, 4, 2, 4):  # the third one has another shape
        x, y = clips(device, batch)
        found = gradients(x, y, weight)
        theirs.zero_grad()
        loss = weight * theirs.loss(x, y)
        loss.backward()
        torch.testing.assert_close(found, loss.detach())
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-5, rtol=1e-4, msg=name)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b)
    assert (gradients.recorded.graph is not None) == (device.type == "cuda" and weight == 1)


@pytest.mark.parametrize("device", DEVICES)
def test_a_forward_pass_takes_every_shape(device):
    model, device = network(device).eval(), torch.device(device)
    recorded = Recorded(model)
    with torch.no_grad():
        for batch in (4, 2, 4):
            x, _ = clips(device, batch)
            found, is_replayed = recorded(x)
            torch.testing.assert_close(found, model(x))
            assert is_replayed == (device.type == "cuda" and batch == 4)


@gpu
def test_what_asks_the_gpu_for_a_number_is_launched_as_before(capsys):
    recorded = Recorded(lambda x: x * float(x.sum()))
    x = torch.arange(3.0, device="cuda")
    for _ in range(2):
        found, is_replayed = recorded(x)
        assert found.tolist() == [0, 3, 6] and not is_replayed
    assert capsys.readouterr().out.count("launched one by one") == 1
