"""Partially forged clips: the layout, the truth, and that the frames outside the span are the
real clip's.
"""

import json

import numpy as np
import pytest

from dfil.datasets import is_synthetic, load_records
from dfil.datasets.truth import forged_frames
from dfil.faces.video import read_frames
from dfil.synthetic import SETTINGS, partial, render_target
from dfil.system.errors import DataError


@pytest.fixture(scope="module")
def tree(tiny_tree, tmp_path_factory):
    return partial.write_partial(
        tmp_path_factory.mktemp("partial") / "tree", tiny_tree, jobs=1, progress=False
    )


def test_the_tree_reads_as_faceforensics_and_holds_test_people_only(tree):
    records = load_records("ffpp", tree)
    assert is_synthetic(tree) and {r.split for r in records} == {"test"}
    assert sorted(r.video_id for r in records if r.label) == [
        f"c23/{m}/{pair}" for m in ("Deepfakes", "FaceSwap") for pair in ("006_007", "007_006")
    ]
    assert sum(r.label == 0 for r in records) == 2 and all(
        r.boxes_from and r.masks for r in records if r.label
    )


def test_truth_says_which_frames_are_forged(tree):
    truth = forged_frames(tree)
    assert {r.video_id for r in load_records("ffpp", tree) if r.label} == set(truth)
    lengths = sorted(int(forged.sum()) for forged in truth.values())
    assert all(8 <= n <= 12 for n in lengths[:2]) and all(
        n == 16 for n in lengths[2:]
    )  # 20 frames: 16 at most
    for record in load_records("ffpp", tree):
        if record.label:
            forged_t = np.array([frame.max() > 127 for frame in read_frames(record.masks)])
            np.testing.assert_array_equal(forged_t, truth[record.video_id])


def test_frames_outside_the_span_are_the_real_clips():
    first, stop = partial.forged_span(0, 6, "Deepfakes", "short", 20)
    real, fake = render_target(
        6, 7, SETTINGS["temporal-only"], methods=("Deepfakes",), frames=20, span=(first, stop)
    )
    same = [np.array_equal(a, b) for a, b in zip(real.frames_thwc, fake.frames_thwc, strict=True)]
    assert same == [not first <= t < stop for t in range(20)]


def test_spans_have_their_lengths_and_leave_real_frames():
    for kind, (low, high) in partial.SPANS.items():
        spans = [partial.forged_span(0, n, "Deepfakes", kind, 40) for n in range(200)]
        lengths = {stop - first for first, stop in spans}
        assert lengths == set(range(low, high + 1)) and all(
            0 <= first and stop <= 40 for first, stop in spans
        )
        assert len({first for first, _ in spans}) > 10
    first, stop = partial.forged_span(0, 0, "Deepfakes", "long", 12)
    assert stop - first == 12 - partial.REST


def test_kinds_alternate_over_people_and_manipulations():
    assert [[partial.kind_of(n, m) for m in (0, 1)] for n in (0, 1)] == [
        ["short", "long"],
        ["long", "short"],
    ]


def test_a_second_call_renders_nothing_and_a_lost_clip_comes_back_the_same(
    tree, tiny_tree, monkeypatch
):
    before = {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    lost = next(path for path in before if "FaceSwap/c23" in str(path))
    lost.unlink()
    partial.write_partial(tree, tiny_tree, jobs=1, progress=False)
    assert {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()} == before

    def never(*args, **kwargs):
        raise AssertionError("rendered again")

    monkeypatch.setattr(partial, "render_target", never)
    partial.write_partial(tree, tiny_tree, jobs=1, progress=False)


def test_refusals(tree, tiny_tree, tmp_path):
    with pytest.raises(DataError, match="real data"):
        partial.write_partial(tmp_path / "a", tmp_path)
    with pytest.raises(DataError, match="other parameters"):
        partial.write_partial(tree, tiny_tree, manipulations=("Face2Face",))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "file").write_text(json.dumps([]))
    with pytest.raises(DataError, match="not empty"):
        partial.write_partial(tmp_path / "b", tiny_tree)
