"""The control `temporal-only`: neither a single frame nor a size may tell real from forged."""

import io
import json

import av
import cv2
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dfil.synthetic import SETTINGS, render_target, write_ffpp
from dfil.synthetic.codec import PACKET, decode, encode

CONTROL, FF_LIKE = SETTINGS["temporal-only"], SETTINGS["ff-like"]
PAIRS, FRAMES = 40, 7
FACE, BACKGROUND, CENTRE = np.s_[90:250, 95:225], np.s_[:60], np.s_[130:230, 120:200]


def packets(video: bytes) -> list[int]:
    with av.open(io.BytesIO(video)) as container:
        return [packet.size for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("quality", ["c23", "c40"])
def test_a_frame_of_the_control_is_coded_without_its_neighbours_and_in_one_size(quality):
    clips = list(render_target(3, 2, CONTROL, methods=["FaceSwap"], frames=4))
    files = [encode(clip.frames_thwc, **CONTROL.coding(quality)) for clip in clips]
    assert len({len(file) for file in files}) == 1
    assert len({tuple(packets(file)) for file in files}) == 1
    for clip, file in zip(clips, files, strict=True):
        alone = [
            decode(encode(frame_hwc[None], **CONTROL.coding(quality)))[0]
            for frame_hwc in clip.frames_thwc
        ]
        np.testing.assert_array_equal(decode(file), alone)
        assert np.abs(decode(file).astype(int) - clip.frames_thwc).mean() < 5
        assert encode(clip.frames_thwc, **CONTROL.coding(quality)) == file


def test_a_frame_that_needs_more_than_a_packet_takes_two():
    noise_thwc = np.random.default_rng(0).integers(0, 256, (2, 320, 320, 3), dtype=np.uint8)
    video = encode(noise_thwc, qp=23)
    assert all(size >= 2 * PACKET and size % PACKET <= 1 for size in packets(video))
    assert len(decode(video)) == 2


def test_only_the_control_is_coded_so():
    assert CONTROL.qualities == FF_LIKE.qualities == ["c23", "c40"]
    assert FF_LIKE.coding("c40") == {"crf": 33, "preset": "veryfast"}
    assert not {"qp", "version"} & set(FF_LIKE.as_dict())  # trees from before stay valid
    assert CONTROL.as_dict()["version"] == 2 and CONTROL.folder == "temporal-only-2"


def test_the_tree_of_the_control_says_how_it_is_coded(tmp_path):
    sizes = dict(train=2, val=0, test=0, frames=3, manipulations=["Deepfakes"], progress=False)
    root = write_ffpp(tmp_path / "tree", "temporal-only", jobs=1, **sizes)
    assert json.loads((root / "synthetic.json").read_text())["setting"]["qp"]["c23"] == 23
    clips = list((root).glob("*/*/c23/videos/*.mp4"))
    assert len(clips) == 4 and len({path.stat().st_size for path in clips}) == 1


def sharpness(frame_hwc: np.ndarray) -> list[float]:
    """Eleven features of one frame: edges of face, centre and background, contrast, flat areas."""
    grey = cv2.cvtColor(frame_hwc, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = cv2.Laplacian(grey, cv2.CV_32F)
    coarse = cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 1.5), cv2.CV_32F)
    parts = ((fine, FACE), (fine, BACKGROUND), (fine, CENTRE), (coarse, FACE), (coarse, CENTRE))
    edges = [np.log(np.mean(image[part] ** 2) + 1e-3) for image, part in parts]
    flat = np.abs(fine[FACE])
    quantiles = [np.log(np.quantile(flat, q) + 0.1) for q in (0.5, 0.9)]
    levels = [grey[FACE].std(), grey[FACE].mean(), np.mean(flat < 1), np.mean(flat < 0.5)]
    return edges + levels + quantiles


def test_features_of_one_frame_tell_nothing_in_the_control_and_something_after_crf():
    """By people, and within a pair. 40 pairs: the standard error of the share of pairs is 0.08."""
    shares = {}
    codings = {"control": CONTROL.coding("c23"), "crf": FF_LIKE.coding("c23")}
    features = {name: ([], []) for name in codings}
    for person in range(1000, 1000 + PAIRS):
        clips = render_target(person, person ^ 1, CONTROL, methods=["FaceSwap"], frames=FRAMES)
        for label, clip in enumerate(clips):
            for name, coding in codings.items():
                shown_thwc = decode(encode(clip.frames_thwc, **coding))[1::2]
                features[name][label].append([sharpness(frame) for frame in shown_thwc])
    for name, both in features.items():
        x = np.array(both).reshape(-1, 11)  # (label, person, frame) in rows
        y = np.repeat([0, 1], len(x) // 2)
        people = np.tile(np.repeat(np.arange(PAIRS) // 2, FRAMES // 2), 2)
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=3000))
        cut = dict(groups=people, cv=GroupKFold(5), method="decision_function")
        logits = cross_val_predict(model, x, y, **cut)
        real, fake = logits.reshape(2, PAIRS, -1).mean(2)
        shares[name] = roc_auc_score(y, logits), np.mean(fake > real)
    assert abs(shares["control"][0] - 0.5) < 0.1 and abs(shares["control"][1] - 0.5) < 0.25
    assert shares["crf"][1] > 0.75, shares  # so the features would see it
