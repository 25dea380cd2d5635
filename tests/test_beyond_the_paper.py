"""DIL's switches that are later than the paper, against loops written from their equations; how
switches are typed.
"""

import itertools
import re

import numpy as np
import pytest
import torch

from dfil import models, profiles
from dfil.models.alignment import alignment_and_uniformity
from dfil.models.query_pooling import QueryPooling
from dfil.system.errors import RunError
from dfil.tools.verbs.train import switches
from dfil.train.spec import RunSpec

SMALL = {"depth": (2, 2, 2, 2), "width": 8, "stem": "small"}
LATER = {"queries": 3, "alignment": 0.1, "uniformity": 0.5}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def dil(**switches):
    torch.manual_seed(0)
    return models.build("dil", **SMALL, **switches)


def clips(b=4, u=2):
    x = torch.randn(b, u, 4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0.0, 1.0, 1.0, 0.0])[:b]


def pooled(x_utchw, queries_kc):
    """z, a and the frames' features of one video, position by position."""
    u, t, c, h, w = x_utchw.shape
    places = list(itertools.product(range(u), range(t), range(h), range(w)))
    weights = dict.fromkeys(places, 0.0)
    for query in queries_kc:
        score = {
            (a, b, i, j): sum(query[n] * x_utchw[a, b, n, i, j] for n in range(c)) / np.sqrt(c)
            for a, b, i, j in places
        }
        total = sum(np.exp(value) for value in score.values())
        for place in places:
            weights[place] += np.exp(score[place]) / total / len(queries_kc)
    z, parts = np.zeros(c), np.zeros((u, t, c))
    for a, b, i, j in places:
        for n in range(c):
            z[n] += weights[a, b, i, j] * x_utchw[a, b, n, i, j]
            parts[a, b, n] += u * t * weights[a, b, i, j] * x_utchw[a, b, n, i, j]
    return z, weights, parts


def test_query_pooling_is_its_equation(rng):
    maps, queries = rng.normal(size=(2, 3, 4, 5, 2, 3)), 3 * rng.normal(size=(3, 5))
    module, kept = QueryPooling(5, 3).double(), {}
    module.queries_kc.data = torch.from_numpy(queries)
    features = module(torch.from_numpy(maps), kept)
    assert features.shape == (2, 3, 4, 5) and kept["query_map"].shape == (2, 3, 4, 2, 3)
    for video, found, seen in zip(maps, features, kept["query_map"], strict=True):
        z, weights, parts = pooled(video, queries)
        np.testing.assert_allclose(found.mean((0, 1)).detach(), z, rtol=1e-12)
        np.testing.assert_allclose(found.detach(), parts, rtol=1e-12)
        for place, weight in weights.items():
            assert seen[place].item() == pytest.approx(weight, rel=1e-12)


def test_queries_of_zero_are_average_pooling_and_new_ones_are_near_it(rng):
    maps = torch.from_numpy(rng.random((2, 3, 4, 64, 2, 2))).float()
    module = QueryPooling(64, 4)
    average = maps.mean((4, 5))
    torch.testing.assert_close(module(maps), average, rtol=0.05, atol=0.02)
    assert len(module.queries_kc.unique(dim=0)) == 4, "equal queries stay equal"
    module.queries_kc.data.zero_()
    torch.testing.assert_close(module(maps), average)


def test_query_poolings_gradients_are_those_of_differences(rng):
    module = QueryPooling(3, 2).double()
    module.queries_kc.data = torch.from_numpy(rng.normal(size=(2, 3)))
    maps = torch.from_numpy(rng.normal(size=(2, 2, 2, 3, 2, 2))).requires_grad_()

    def features(maps, queries):
        return torch.func.functional_call(module, {"queries_kc": queries}, (maps,))

    assert torch.autograd.gradcheck(features, (maps, module.queries_kc))


def terms(embeddings_bc, labels_b):
    """Alignment and uniformity, pair by pair."""
    z = [row / np.sqrt(sum(value**2 for value in row)) for row in embeddings_bc]
    same, every = [], []
    for i in range(len(z)):
        for j in range(i + 1, len(z)):
            squared = sum((a - b) ** 2 for a, b in zip(z[i], z[j], strict=True))
            every.append(np.exp(-2 * squared))
            if labels_b[i] == labels_b[j]:
                same.append(squared)
    return np.mean(same) if same else 0.0, np.log(np.mean(every)) if every else 0.0


@pytest.mark.parametrize("labels", [[0, 1, 0, 1, 1], [0, 1], [1], [1, 1, 1]])
def test_alignment_and_uniformity_are_their_equations(rng, labels):
    embeddings = rng.normal(size=(len(labels), 6))
    found = alignment_and_uniformity(torch.from_numpy(embeddings), torch.tensor(labels))
    np.testing.assert_allclose(found, terms(embeddings, labels), rtol=1e-12, atol=1e-15)


def test_the_two_terms_gradients_are_those_of_differences(rng):
    z, labels = (
        torch.from_numpy(rng.normal(size=(5, 3))).requires_grad_(),
        torch.tensor([0, 1, 0, 1, 1]),
    )
    assert torch.autograd.gradcheck(lambda z: alignment_and_uniformity(z, labels), z)


def test_the_two_terms_draw_a_class_together_and_all_videos_apart(rng):
    labels = torch.tensor([0, 0, 1, 1])
    for number in (0, 1):
        z = torch.from_numpy(rng.normal(size=(4, 3))).requires_grad_()
        before = alignment_and_uniformity(z, labels)[number]
        (gradient,) = torch.autograd.grad(before, z)
        after = alignment_and_uniformity(z - 0.01 * gradient, labels)[number]
        assert after < before


def test_the_loss_keeps_its_value_and_takes_the_gradients_of_the_terms():
    model, (x, y) = dil(**LATER).eval(), clips()
    parameters = list(model.parameters())
    loss = model.loss(x, y)
    found = torch.autograd.grad(loss, parameters)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(model(x), y)
    assert loss.item() == entropy.item()
    alignment, uniformity = alignment_and_uniformity(model.frame_features(x).mean((1, 2)), y)
    wanted = torch.autograd.grad(entropy + 0.1 * alignment + 0.5 * uniformity, parameters)
    torch.testing.assert_close(found, wanted)
    plain = torch.autograd.grad(
        torch.nn.functional.binary_cross_entropy_with_logits(model(x), y), parameters
    )
    assert any(not torch.allclose(a, b) for a, b in zip(found, plain, strict=True))


def test_switched_off_dil_is_what_it_was():
    before, after = dil(), dil(queries=0, alignment=0.0, uniformity=0.0)
    assert list(before.state_dict()) == list(after.state_dict())
    assert not any("pool" in name for name in before.state_dict())
    x, y = clips()
    assert torch.equal(before.train().loss(x, y), after.train().loss(x, y))
    assert torch.equal(before.eval()(x), before.frame_logits(x).mean((1, 2)))
    assert "query_map" not in before.explain(x)


def test_switched_on_all_other_weights_begin_as_without():
    before, after = dil().state_dict(), dil(**LATER).state_dict()
    assert set(after) - set(before) == {"pool.queries_kc"}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_every_weight_learns_with_all_switched_on():
    model, (x, y) = dil(**LATER).train(), clips()
    model.loss(x, y).backward()
    for name, p in model.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all() and p.grad.any(), name


def test_a_model_with_queries_keeps_to_the_contract():
    model, (x, _) = dil(queries=3).eval(), clips(u=3)
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))
    torch.testing.assert_close(model.frame_logits(x).mean((1, 2)), model(x))
    named = model.explain(x)
    assert named["query_map"].shape == (4, 3, 4, 2, 2)
    torch.testing.assert_close(named["query_map"].flatten(1).sum(1), torch.ones(4))
    torch.testing.assert_close(named["logits"], model(x))


@pytest.mark.parametrize("name", LATER)
def test_a_switch_below_zero_is_refused(name):
    with pytest.raises(ValueError, match=name):
        dil(**{name: -1})


def test_switches_are_typed_as_arguments_and_what_is_usual_leaves_the_tables_run():
    found = switches("dil", ["queries=4", "bp=False", "stages=1,2", "alignment=1"], SMALL)
    assert found == (("alignment", 1.0), ("bp", False), ("queries", 4), ("stages", (1, 2)))
    assert isinstance(dict(found)["alignment"], float)
    usual = switches("dil", ["queries=0", "uniformity=0", "conv_u=depthwise"], SMALL)
    what = "table1", "dil", "ffpp", "c40"
    plain = RunSpec.of_table(profiles.SMOKE, *what)
    assert RunSpec.of_table(profiles.SMOKE, *what, switches=usual) == plain


@pytest.mark.parametrize(
    "method, given, sentence",
    [
        ("dil", "query=4", "dil has no switch 'query'; it has intra, inter"),
        ("dil", "frames=8", "dil has no switch 'frames'"),
        ("dil", "queries", "queries=: give a int"),
        ("dil", "queries=many", "queries=many: give a int, for example queries=0"),
        ("dil", "bp=1", "bp=1: give a bool"),
        ("dil", "conv_u=half", "conv_u is 'depthwise' or 'full'"),
        ("dil", "queries=-1", "queries, alignment and uniformity are not below 0"),
        ("resnet50", "queries=4", "resnet50 has no switch 'queries'; it has none"),
    ],
)
def test_a_switch_that_does_not_fit_is_one_sentence(method, given, sentence):
    with pytest.raises(RunError, match=re.escape(sentence)):
        switches(method, [given], SMALL)
