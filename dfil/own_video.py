"""One's own videos: from a file to a probability per video and per snippet, through the same faces and snippets as everything else."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from dfil.datasets.records import VideoRecord
from dfil.faces.preprocess import preprocess
from dfil.faces.store import CropStore
from dfil.models import Detector
from dfil.runs import load_weights
from dfil.scoring import pick_device, precision
from dfil.snippets import normalise, snippet_starts

STRETCH = 16  # frames kept around each snippet, so that disk and memory stay bounded however long a video is


def score_videos(paths: Sequence[Path], weights: Path, snippets: int | None = None, detector: str | None = None) -> Iterator[dict]:
    """Score each file with the weights of a run; yields one dict per file as soon as it is done, in order.

    Keys: video, status ("ok" or why not), reason, frames, frames_with_face, score (probability of being forged), snippets (list of
    first_frame, last_frame, score), trained_on, synthetic_training. An unreadable file or one without a face has score None and does
    not stop the others. A snippet's score is the sigmoid of the mean logit of its frames, so the video's logit is the mean of theirs.

    snippets: U (default: the weights' own). detector: "dlib" or "mtcnn" (default: the one of the training data). The largest face of
    each video is scored. Raises RunError if the weights cannot be loaded.
    """
    model, config = load_weights(weights)
    model.to(pick_device(), memory_format=torch.channels_last)
    sampling = config["sampling"]
    count = snippets or sampling["snippets"]
    reach = max(STRETCH, (sampling["frames"] - 1) * sampling["stride"] + 1)
    for path in map(Path, paths):
        with tempfile.TemporaryDirectory(prefix="dfil-") as folder:
            record = VideoRecord("own", "video", 0, "", "", "", path)  # the label is a placeholder that nothing reads
            store = preprocess(
                [record],
                folder,
                sampling["size"],
                detector or sampling["detector"],
                jobs=1,
                progress=False,
                reach=reach,
                stretches=(count, reach),
            )
            row = store.index.iloc[0]
            result = {"video": str(path), "status": row["status"], "reason": row["reason"], "frames": int(row["frames"])}
            result |= {"frames_with_face": int(row["faces"]), "score": None, "snippets": []}
            result |= {"trained_on": config["trained_on"], "synthetic_training": config["synthetic"]}
            if row["status"] == "ok":
                result |= _score(model, store, sampling, count)
        yield result


@torch.no_grad()
def _score(model: Detector, store: CropStore, sampling: dict, count: int) -> dict:
    """score and snippets of the store's one video."""
    crops = store.open("video")
    starts = snippet_starts(crops.runs, count, sampling["frames"], sampling["stride"])
    clip_uthwc = np.stack([crops.snippet(int(s), sampling["frames"], sampling["size"], stride=sampling["stride"]) for s in starts])
    device = next(model.parameters()).device
    with precision(device):
        x = normalise(torch.from_numpy(clip_uthwc).permute(0, 1, 4, 2, 3)[None].to(device))
        per_snippet = model.frame_logits(x).float().mean(2)[0]  # U
        score = torch.sigmoid(model(x).float())[0]
    last = starts + (sampling["frames"] - 1) * sampling["stride"]
    return {
        "score": float(score),
        "snippets": [
            {"first_frame": int(a), "last_frame": int(b), "score": float(p)}
            for a, b, p in zip(starts, last, torch.sigmoid(per_snippet), strict=True)
        ],
    }
