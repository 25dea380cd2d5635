"""Damage is alike in a real clip and its forgery, stays in its stretch, and grows by severity."""

import numpy as np
import pytest

from dfil import profiles
from dfil.explain import robustness
from dfil.explain.robustness import CLEAN, KINDS, SEVERITIES, Damage, DamagedStore
from dfil.synthetic import SETTINGS, render_target, write_ffpp
from dfil.synthetic.codec import decode, encode
from dfil.system.errors import RunError
from dfil.train import data
from dfil.train.experiments import temporal_only_specs
from dfil.train.runs import RunStore

PROFILE = profiles.get("smoke")


@pytest.fixture(scope="module")
def frames():
    (clip,) = render_target(0, 1, SETTINGS["temporal-only"], methods=[], frames=16)
    return decode(encode(clip.frames_thwc, qp=23))


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Crops of a tree of two people in every split."""
    folder = tmp_path_factory.mktemp("robust")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DFIL_DATA", str(folder / "data"))
        sizes = dict(train=2, val=2, test=2, frames=24, qualities=("c23",), jobs=1, progress=False)
        sizes |= {"manipulations": ("Deepfakes",)}
        yield data.crops(PROFILE, write_ffpp(folder / "tree", "temporal-only", **sizes), jobs=1)


@pytest.mark.parametrize("kind", KINDS)
def test_damage_grows_by_severity_and_repeats(kind, frames):
    change = []
    for severity in SEVERITIES:
        first, again = (
            Damage(kind, 16, severity).of(frames, np.random.default_rng(1)) for _ in range(2)
        )
        assert first.shape == frames.shape and first.dtype == np.uint8 and (first == again).all()
        change.append(np.abs(first.astype(float) - frames).mean())
    assert 0 < change[0] and change[0] * 1.1 < change[2], change


def test_a_lost_packet_shows_the_frame_before(frames):
    packets = robustness._packets(frames, 18)
    assert len(packets) == len(frames)
    whole = robustness._decoded(packets, frames)
    assert np.abs(whole.astype(float) - frames).mean() < 4  # each frame at its own place
    packets[5] = b""
    lost = robustness._decoded(packets, frames)
    assert (lost[:5] == whole[:5]).all() and (lost[5] == whole[4]).all()
    assert (lost[6:] != whole[6:]).any()  # and the decoder goes on from there


def test_an_odd_last_row_and_column_stay(frames):
    odd = np.ascontiguousarray(frames[:4, :101, :103])
    found = Damage("re-encoding", 4, 3).of(odd, np.random.default_rng(0))
    assert found.shape == odd.shape and (found[:, 100] == odd[:, 100]).all()


def snippets(store, video_id):
    crops = store.open(video_id)
    return np.stack([crops.snippet(n, 1, 32)[0] for n in crops.frames])


def test_frames_outside_the_stretch_stay_and_both_classes_are_damaged_alike(store, monkeypatch):
    test = store.index.query("split == 'test'")
    assert set(test["label"]) == {0, 1}
    stretches = {}
    for row in test.itertuples():
        clean = snippets(store, row.video_id)
        for kind in ("black", "lost packets"):
            damaged = snippets(DamagedStore(store, Damage(kind, 8, 3)), row.video_id)
            places = np.flatnonzero((damaged != clean).any((1, 2, 3)))
            assert 1 <= len(places) <= 8 and np.ptp(places) < 8
            if kind == "black":
                assert len(places) == 8 and damaged[places].max() == 0
                stretches.setdefault(row.person, set()).add(int(places[0]))
    assert all(len(first) == 1 for first in stretches.values())
    monkeypatch.setitem(KINDS, "black", (lambda frames_thwc, how, rng: frames_thwc, (0, 0, 0)))
    again = DamagedStore(store, Damage("black", 8, 1))
    video_id = test["video_id"].iloc[0]
    assert (snippets(again, video_id) == snippets(store, video_id)).all()


def test_every_damage_gets_an_auc_with_its_interval(store, tmp_path):
    runs = RunStore(tmp_path / "runs", PROFILE)
    run = runs.get(temporal_only_specs(PROFILE)["resnet50"], store)
    df = robustness.response({"resnet50": [run]}, store, lengths=[16])
    assert list(df["column"])[0] == CLEAN and len(df) == 1 + len(KINDS) * len(SEVERITIES)
    assert df["ours"].between(df["ci_low"], df["ci_high"]).all() and (df["n_videos"] == 4).all()
    assert df["note"].str.contains("synthetic").all()
    black = df[df["column"] == Damage("black", 24, 3).column]
    assert black.empty  # only the lengths that were asked for
    assert robustness.figure(df, 16, synthetic=True).axes
    usual = int(store.index.query("split == 'test'")["frames"].median())
    with pytest.raises(RunError, match=f"{usual + 1} frames cannot be damaged.*have {usual}"):
        robustness.response({"resnet50": [run]}, store, lengths=[8, usual + 1])
