"""Warps of real faces: what they change and what they leave, and the row of Table 3 that is trained
on them."""

import cv2
import numpy as np
import pytest

from dfil import paper
from dfil.profiles import SMOKE
from dfil.system.errors import RunError
from dfil.tools import found
from dfil.train import experiments
from dfil.train.runs import RunSpec, RunStore
from dfil.train.self_blended import SelfBlended
from dfil.train.self_warped import SelfWarped, warped

SIDE, MARGIN = 64, 1.3


def clip(snippets=3, frames=4):
    """The same picture, full of detail, in every frame."""
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return np.broadcast_to(picture, (snippets, frames, SIDE, SIDE, 3)).copy()


def detail(frame_hwc):
    return np.abs(cv2.Laplacian(frame_hwc.astype(np.float32), cv2.CV_32F))[24:40, 24:40].mean()


def test_a_warp_takes_detail_from_the_face_and_nothing_from_beside_it():
    before, made = clip(), clip()
    masks = SelfWarped().make(made, np.random.default_rng(0), MARGIN)
    assert (made[masks == 0] == before[masks == 0]).all() and 0.2 < (masks > 0).mean() < 0.7
    edge = round(SIDE * (1 - 1 / MARGIN) / 2) - 1
    assert (masks[:, :, :edge] == 0).all() and (masks[..., :edge] == 0).all()
    assert np.allclose(masks[..., 32, 32], 1)
    for frames_before, frames_made in zip(before, made, strict=True):
        for one, other in zip(frames_before, frames_made, strict=True):
            assert detail(other) < 0.8 * detail(one)


def test_the_smaller_the_face_the_less_is_left():
    picture = clip()[0, 0]
    left = [detail(warped(picture, share)) for share in (0.3, 0.5, 0.8, 1.0)]
    assert left == sorted(left) and left[0] < left[-1] / 2
    flat = np.full_like(picture, 77)
    assert (warped(flat, 0.4) == flat).all()


def test_rectangles_and_outlines_both_occur_and_every_frame_has_its_own_warp():
    made = clip(10)
    masks = SelfWarped().make(made, np.random.default_rng(1), MARGIN)
    sizes = {round(float(mask.sum())) for mask in masks.reshape(-1, SIDE, SIDE)}
    assert len(sizes) == 2 and max(sizes) > 1.15 * min(sizes)
    assert len(np.unique(made.reshape(40, -1), axis=0)) > 25  # sizes are whole pixels
    rigid = clip(2)
    SelfWarped(jitter=0.0).make(rigid, np.random.default_rng(1), MARGIN)
    assert (rigid == rigid[0, 0]).all()
    with pytest.raises(RunError, match="jitter"):
        SelfWarped(jitter=2)


def test_table_3s_d_fwa_is_a_run_of_its_own_that_sees_no_forgery(tiny_store, tmp_path):
    cell = paper.TABLES["table3"].cell("d-fwa", "Celeb-DF")
    (spec,) = experiments.specs(cell, SMOKE, tiny_store)
    supervised = paper.TABLES["table2"].cell("d-fwa", "Celeb-DF")
    assert cell.method == supervised.method == "d-fwa" and cell.run != supervised.run
    assert spec.fakes == SelfWarped() and spec.manipulations == () and spec.training.paired
    assert experiments.remarks(cell, [spec], SMOKE) == (experiments.WARPED, paper.QUOTED_VALUE)
    assert paper.quoted_methods() >= {"d-fwa"}

    runs = RunStore(tmp_path, SMOKE)
    of_reals = {"fakes": SelfWarped(), "table": "table3"}
    spec = RunSpec.of_reals(SMOKE, "d-fwa", "ffpp", "c23", **of_reals)
    blended = RunSpec.of_reals(SMOKE, "d-fwa", "ffpp", "c23", fakes=SelfBlended(1.0))
    assert runs.key(spec, tiny_store).startswith("d-fwa-ffpp-c23-self-warped-")
    assert runs.key(spec, tiny_store) != runs.key(blended, tiny_store)
    assert found._spec(runs.describe(spec, tiny_store)) == spec
    for split in ("train", "val"):
        rows = spec.select(tiny_store, split)
        assert set(rows["manipulation"]) == {"real", "self-warped"}
    run = runs.get(spec, tiny_store)
    scores = run.scores(tiny_store, "c23")
    assert set(scores["manipulation"]) == {"real", "Deepfakes"}  # tested on forgeries
