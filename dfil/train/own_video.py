"""One's own videos: from a file to a probability per video and per snippet, through the same faces and snippets as everything else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from dfil.datasets.records import VideoRecord
from dfil.faces.preprocess import preprocess
from dfil.faces.store import Crops, CropStore
from dfil.models import Detector
from dfil.system.errors import RunError
from dfil.train.runs import load_weights
from dfil.train.scoring import pick_device, place, precision, video_logits
from dfil.train.snippets import normalise, snippet_starts

STRETCH = 16  # frames kept around each snippet, so that disk and memory stay bounded however long a video is


def score_videos(
    paths: Sequence[Path], weights: Path, snippets: int | None = None, detector: str | None = None
) -> Iterator[dict]:
    """Score each file with the weights of a run; yields one dict per file as soon as it is done, in order.

    Keys: video, status ("ok" or why not), reason, frames, frames_with_face, score (probability of being forged), snippets (list of
    first_frame, last_frame, score), people, trained_on, synthetic_training. An unreadable file or one without a face has score None and
    does not stop the others. A snippet's score is the sigmoid of the mean logit of its frames, so a person's logit is the mean of theirs;
    it is None for a method that judges a video as a whole.

    Everybody in the video is scored, and one forged face makes a forged video: people is a list of frames_with_face, score and snippets,
    the largest face first; the video's score is the highest of theirs, and its frames_with_face and snippets are that person's. Somebody
    who is shown again after a cut counts as another person.

    snippets: U (default: the weights' own). detector: "dlib" or "mtcnn" (default: the one of the training data). Raises RunError if the
    weights cannot be loaded, or their model cannot take that many snippets.
    """
    model, config = load_weights(weights)
    place(model, pick_device())
    sampling = config["sampling"]
    count = snippets or sampling["snippets"]
    reach = max(STRETCH, (sampling["frames"] - 1) * sampling["stride"] + 1)
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory(prefix="dfil-") as folder:
            record = VideoRecord(
                "own", "video", 0, "", "", "", path
            )  # the label is a placeholder that nothing reads
            store = preprocess(
                [record],
                folder,
                sampling["size"],
                detector or sampling["detector"],
                jobs=1,
                progress=False,
                tracks="all",
                reach=reach,
                stretches=(count, reach),
            )
            row = store.index.iloc[0]
            result = {
                "video": str(path),
                "status": row["status"],
                "reason": row["reason"],
                "frames": int(row["frames"]),
            }
            result |= {
                "frames_with_face": int(row["faces"]),
                "score": None,
                "snippets": [],
                "people": [],
            }
            result |= {
                "trained_on": config["trained_on"],
                "synthetic_training": config["synthetic"],
            }
            if row["status"] == "ok":
                result |= _score_people(model, store, sampling, count)
        yield result


def _score_people(model: Detector, store: CropStore, sampling: dict, count: int) -> dict:
    """What is known of a video from everybody in it who is seen long enough; status "too short" if nobody is."""
    tracks = [store.open("video", track) for track in range(store.index["tracks"].iloc[0])]
    span = (sampling["frames"] - 1) * sampling["stride"] + 1
    long_enough = [crops for crops in tracks if max(length for _, length in crops.runs) >= span]
    skipped = len(tracks) - len(long_enough)
    reason = "; ".join(
        filter(
            None,
            [
                store.index["reason"].iloc[0],
                f"{skipped} people seen for less than {span} frames" * (skipped > 0),
            ],
        )
    )
    if not long_enough:
        return {"status": "too short", "reason": reason}
    people = [_score(model, crops, sampling, count) for crops in long_enough]
    return max(people, key=lambda person: person["score"]) | {"people": people, "reason": reason}


@torch.no_grad()
def _score(model: Detector, crops: Crops, sampling: dict, count: int) -> dict:
    """frames_with_face, score and snippets of one person."""
    starts = snippet_starts(crops.runs, count, sampling["frames"], sampling["stride"])
    clip_uthwc = np.stack(
        [
            crops.snippet(int(s), sampling["frames"], sampling["size"], stride=sampling["stride"])
            for s in starts
        ]
    )
    device = next(model.parameters()).device
    with precision(device):
        x = normalise(torch.from_numpy(clip_uthwc).permute(0, 1, 4, 2, 3)[None].to(device))
        try:
            score = float(
                torch.sigmoid(video_logits(model, x, sampling.get("views", 1)).float())[0]
            )
        except ValueError as error:
            raise RunError(
                f"these weights cannot score {count} snippets: {error}; leave --snippets away"
            ) from error
        try:
            per_snippet = torch.sigmoid(model.snippet_logits(x).float())[0].tolist()
        except NotImplementedError:  # a method that judges a video as a whole
            per_snippet = [None] * count
    last = starts + (sampling["frames"] - 1) * sampling["stride"]
    return {
        "frames_with_face": len(crops.frames),
        "score": score,
        "snippets": [
            {"first_frame": int(a), "last_frame": int(b), "score": p}
            for a, b, p in zip(starts, last, per_snippet, strict=True)
        ],
    }
