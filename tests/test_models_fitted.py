"""The methods of hand-made features, which scikit-learn fits: their features against slow
references written from the description, and their way through the run store."""

import dataclasses

import numpy as np
import pytest
import torch
from sklearn.ensemble import AdaBoostClassifier
from sklearn.linear_model import LogisticRegression

from dfil import models, paper
from dfil.models.baselines import co_motion, va_logreg
from dfil.models.baselines.fitted import FittedDetector, to_grey
from dfil.profiles import SMOKE
from dfil.system.errors import RunError
from dfil.tools import plan
from dfil.train import experiments, rates
from dfil.train.runs import RunSpec, RunStore
from dfil.train.snippets import normalise

FITTED = ["va-logreg", "co-motion-70"]


def uint8(*shape, seed=0):
    numbers = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return torch.from_numpy(numbers)


def clips(name, b=2, size=32, seed=0):
    how = models.sampling(name)
    return normalise(uint8(b, how.train, how.frames, 3, size, size, seed=seed))


def test_what_is_fitted_and_what_is_not():
    assert [name for name in models.available() if models.is_fitted(name)] == FITTED
    with pytest.raises(ValueError, match="no method is called"):
        models.is_fitted("va")


def test_grey_is_that_of_the_pixels():
    pixels = uint8(2, 3, 5, 4)
    by_hand = np.einsum("nchw,c->nhw", pixels.numpy().astype(float), (0.299, 0.587, 0.114))
    np.testing.assert_allclose(to_grey(normalise(pixels)).numpy(), by_hand, atol=1e-4)


# ---- VA-LogReg


def mirrored(i, n):
    return -i if i < 0 else 2 * (n - 1) - i if i >= n else i


def filtered(picture, mask, before):
    """A direct sum over the mask around every pixel, `before` of it above and to the left."""
    h, w = picture.shape
    found = np.zeros((h, w))
    for y, x, i, j in np.ndindex(h, w, *mask.shape):
        found[y, x] += (
            mask[i, j] * picture[mirrored(y + i - before, h), mirrored(x + j - before, w)]
        )
    return found


def test_laws_energies_are_those_of_a_direct_convolution():
    flat = np.random.default_rng(1).uniform(-90, 90, (17, 19))
    found = va_logreg.energies(torch.from_numpy(flat)[None, None])[0].numpy()
    for name, map_hw in zip(va_logreg.ENERGIES, found, strict=True):
        a, b = (np.array(va_logreg.LAWS[letter], float) for letter in name)
        both = [np.abs(filtered(flat, np.outer(*pair), 2)) for pair in ((a, b), (b, a))]
        np.testing.assert_allclose(map_hw, sum(both) / 2, rtol=1e-9, atol=1e-9, err_msg=name)


def test_features_are_the_means_of_the_energies_around_the_pixels_of_the_two_regions():
    pixels = uint8(1, 1, 1, 3, 24, 24)
    luma = (0.299, 0.587, 0.114)
    grey = np.einsum("chw,c->hw", pixels[0, 0, 0].numpy().astype(float), luma)
    flat = grey - filtered(grey, np.full((15, 15), 1 / 225), 7)
    maps = va_logreg.energies(torch.from_numpy(flat)[None, None])[0].numpy()
    means = np.stack([filtered(map_hw, np.full((10, 10), 1 / 100), 5) for map_hw in maps])
    for pipeline in va_logreg.PIPELINES:
        model = models.build("va-logreg", pipeline=pipeline)
        found = model.part_features(normalise(pixels))[0, 0].reshape(2, 9)
        for region, features in zip(va_logreg.regions(pipeline, 24, 24), found, strict=True):
            assert 0 < region.sum() < 24 * 24
            by_hand = means[:, region.numpy().astype(bool)].mean(1)
            np.testing.assert_allclose(features, by_hand, rtol=1e-4)


def test_regions_lie_where_a_face_has_them():
    eyes, mouth = va_logreg.regions("deepfake", 100, 100)
    nose, face = va_logreg.regions("face2face", 100, 100)
    assert eyes[36, 35] and eyes[36, 65] and not eyes[60, 50] and mouth[70, 50] and nose[50, 50]
    assert face[50, 50] and not face[5, 5]
    for part in (eyes, mouth, nose):
        assert (part <= face + 1e-9).float().mean() > 0.99 and not (eyes * mouth).any()


def test_the_published_numbers_are_taken_unchanged():
    for pipeline, (intercept, *coefficients) in va_logreg.PUBLISHED.items():
        model = models.build("va-logreg", weights="published", pipeline=pipeline)
        x = clips("va-logreg", b=2)
        f = model.part_features(x)
        by_hand = f.numpy() @ np.concatenate(coefficients) + intercept
        np.testing.assert_allclose(model.decide(f).detach().numpy(), by_hand, rtol=1e-9)
        assert len(np.concatenate(coefficients)) + 1 == 19 and len(set(coefficients)) == 2
        assert (f >= 0).all() and (f <= 255).all()  # 8 bits


def test_va_logreg_finds_what_scikit_learn_finds_whatever_the_features_sizes():
    rng = np.random.default_rng(2)
    features = rng.standard_normal((60, 18)) * np.logspace(0, 3, 18) + np.logspace(0, 4, 18)
    labels = (rng.random(60) < 0.5).astype(float)
    model = models.build("va-logreg")
    model.fit(features, labels)
    other = LogisticRegression(C=1.0, tol=1e-12, max_iter=100_000)  # by another algorithm
    centred = (features - features.mean(0)) / features.std(0)
    weights = model.fc.weight[0].detach().numpy()
    logits = features @ weights + model.fc.bias.item()
    p = 1 / (1 + np.exp(-logits))
    gradient = features.T @ (p - labels) + weights  # of the regularised loss: nothing at its least
    assert np.abs(gradient / np.abs(features).sum(0)).max() < 1e-6
    other.fit(centred, labels)
    assert ((logits > 0) == (other.decision_function(centred) > 0)).mean() > 0.9


# ---- Co-motion


def moving(v_tp2, side=64):
    """Grey frames (T + 1, H, W) of which each part's texture moves by v, (T, 8, 2), and the rest
    stays."""
    y, x = np.mgrid[:side, :side].astype(float)
    where = co_motion.boxes(co_motion.PARTS, side, side).numpy().astype(bool)
    frames = []
    for shift_p2 in np.concatenate([np.zeros((1, 8, 2)), v_tp2.cumsum(0)]):
        picture = np.zeros((side, side))
        for part, (dx, dy) in zip([~where.any(0), *where], [(0, 0), *shift_p2], strict=True):
            a, b = x - dx, y - dy
            waves = np.sin(a / 1.7 + b / 4) + np.sin(b / 1.9 - a / 5) + np.sin((a + b) / 3)
            picture[part] = (128 + 30 * waves)[part]
        frames.append(picture)
    return torch.from_numpy(np.stack(frames))


def test_the_motion_of_parts_and_its_correlation_are_those_of_the_synthetic_motion():
    rng = np.random.default_rng(0)
    common, own = rng.standard_normal((15, 1, 2)), rng.standard_normal((15, 8, 2))
    together = np.array([0.0, 0.0, 0.9, 0.9, 0.9, 0.5, 0.5, 1.0])[:, None]
    v_tp2 = 0.25 * (together * common + np.sqrt(1 - together**2) * own)
    found = co_motion.motions(moving(v_tp2))
    assert np.corrcoef(found.numpy().ravel(), v_tp2.ravel())[0, 1] > 0.95
    r = co_motion.correlations(found).numpy()
    flat = (v_tp2 - v_tp2.mean(0)).transpose(1, 0, 2).reshape(8, -1)
    expected = flat @ flat.T / np.sqrt((flat**2).sum(1)[:, None] * (flat**2).sum(1))
    assert np.abs(r - expected).max() < 0.2 and np.abs(r - expected).mean() < 0.05


def test_a_face_that_moves_as_a_whole_is_correlated_with_itself_and_a_still_one_is_not():
    v_t2 = 0.3 * np.random.default_rng(1).standard_normal((15, 1, 2))
    y, x = np.mgrid[:64, :64].astype(float)
    shifts = np.concatenate([np.zeros((1, 1, 2)), v_t2.cumsum(0)])[:, 0]
    frames = [np.sin((x - dx) / 2) * np.cos((y - dy) / 3) * 50 + 128 for dx, dy in shifts]
    found = co_motion.motions(torch.from_numpy(np.stack(frames)))
    np.testing.assert_allclose(found, np.broadcast_to(v_t2, (15, 8, 2)), rtol=0.08, atol=0.01)
    assert co_motion.correlations(found).min() > 0.99
    still = torch.from_numpy(frames[0]).expand(16, 64, 64)
    assert co_motion.correlations(co_motion.motions(still)).abs().max() < 1e-6


def test_correlations_are_those_of_loops():
    motion = torch.randn(2, 5, 8, 2, dtype=torch.float64)
    found = co_motion.correlations(motion)
    for n, i, j in np.ndindex(2, 8, 8):
        a, b = (motion[n, :, part] - motion[n, :, part].mean(0) for part in (i, j))
        by_hand = sum(float(a[t] @ b[t]) for t in range(5))
        by_hand /= float(a.square().sum().sqrt() * b.square().sum().sqrt())
        assert float(found[n, i, j]) == pytest.approx(by_hand)


def test_co_motion_says_what_scikit_learns_adaboost_says():
    rng = np.random.default_rng(3)
    features = rng.uniform(-1, 1, (80, 28))
    labels = (features[:, 3] + features[:, 9] > rng.normal(0, 0.5, 80)).astype(float)
    for x, y in ((features, labels), (features, (features[:, 5] > 0).astype(float))):
        model = models.build("co-motion-70")
        model.fit(x, y)  # the second one needs a single stump
        theirs = AdaBoostClassifier(n_estimators=50, random_state=0).fit(x, y)
        ours = model.decide(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(ours, theirs.decision_function(x), atol=1e-9)
        p = theirs.predict_proba(x)[:, 1]
        np.testing.assert_allclose(torch.sigmoid(torch.from_numpy(ours)), p, atol=1e-9)


def test_co_motion_sees_the_course_of_motion_and_not_its_direction_in_time():
    x = clips("co-motion-70")
    model = models.build("co-motion-70")
    f = model.part_features(x)
    torch.testing.assert_close(model.part_features(x.flip(2)), f)
    mixed = x[:, :, torch.randperm(16, generator=torch.Generator().manual_seed(0))]
    assert (model.part_features(mixed) - f).abs().max() > 0.1


# ---- what they share


class Halves(FittedDetector):
    """The mean of a frame; frames that are dark cannot be judged."""

    def part_features(self, x):
        means = x.mean((3, 4, 5)).flatten(1)[..., None].double()
        return torch.where(means > 0, means, torch.nan)

    def decide(self, features):
        return features.squeeze(-1) - 1


def test_parts_that_cannot_be_judged_are_left_out():
    x = torch.ones(3, 4, 1, 3, 8, 8) * torch.tensor([3.0, -1, 2, -1]).reshape(4, 1, 1, 1, 1)
    x[1] = -1
    logits = Halves()(x).double()
    p = (torch.sigmoid(torch.tensor([2.0, 1.0]))).mean()
    torch.testing.assert_close(torch.sigmoid(logits[0]), p.double(), atol=1e-6, rtol=1e-6)
    assert logits[1] == 0 and logits[2] == logits[0]


@pytest.mark.parametrize("name", FITTED)
def test_a_fitted_method_goes_through_the_run_store(name, tiny_store, tmp_path):
    runs = RunStore(tmp_path / "runs", SMOKE)
    spec = RunSpec.of_table(SMOKE, "table1", name, "ffpp", "c23", ("Deepfakes",))
    run = runs.get(spec, tiny_store)
    assert run.is_trained and len(run.history) == 1 and run.history["kept"].all()
    scores = run.scores(tiny_store, "c23")
    assert len(scores) == 4 and np.isfinite(scores["logit"]).all() and scores["logit"].nunique() > 1
    again = RunStore(tmp_path / "again", SMOKE).get(spec, tiny_store)
    assert again.scores(tiny_store, "c23").equals(scores)
    assert run.fingerprint() == run.record["made"]["fingerprint"]
    fitted, fresh = run.model(), run.build()
    assert any(
        not torch.equal(a, b)
        for a, b in zip(fitted.state_dict().values(), fresh.state_dict().values(), strict=True)
    )


def test_nothing_to_fit_is_one_sentence(tiny_store, tmp_path, monkeypatch):
    blind = lambda self, x: torch.full((len(x), x.shape[1], 18), torch.nan).double()  # noqa: E731
    monkeypatch.setattr(va_logreg.VALogReg, "part_features", blind)
    spec = RunSpec.of_table(SMOKE, "table1", "va-logreg", "ffpp", "c23", ("Deepfakes",))
    with pytest.raises(RunError, match="0 frames or clips of the training videos can be judged"):
        RunStore(tmp_path, SMOKE).get(spec, tiny_store)


def test_what_is_fitted_has_no_learning_rate_and_one_epoch(tiny_store, tmp_path):
    runs = RunStore(tmp_path, SMOKE)
    assert rates.wanted(runs, tiny_store, "va-logreg") == []
    assert rates.decided(runs, tiny_store, ["va-logreg"]) == {}
    longer = dataclasses.replace(SMOKE, training=dataclasses.replace(SMOKE.training, epochs=9))
    made = plan.make(longer, ["va-logreg"])["runs"]
    assert made and {run["epochs"] for run in made} == {1}


def test_table_3_has_the_published_numbers_beside_the_fitted_ones(tiny_store, tmp_path):
    rows = {row.name: row for row in paper.TABLES["table3"].rows}
    published = rows["va-logreg-published"]
    assert published.method == "va-logreg" and dict(published.switches) == {"weights": "published"}
    cell = paper.TABLES["table3"].cell("va-logreg-published", "Celeb-DF")
    (spec,) = experiments.specs(cell, SMOKE, tiny_store)
    assert dict(spec.switches) == {"weights": "published"}
    spec = dataclasses.replace(spec, compression="c23", manipulations=("Deepfakes",))
    run = RunStore(tmp_path, SMOKE).get(spec, tiny_store)
    kept, given = run.model().state_dict(), run.build().state_dict()
    assert all(torch.equal(kept[name], given[name]) for name in given)
    assert run.is_trained and not run.at_chance and np.isnan(run.history["train_loss"]).all()
    assert np.isfinite(run.scores(tiny_store, "c23")["logit"]).all()
