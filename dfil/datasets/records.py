"""What every dataset adapter yields: one VideoRecord per video of the official tree."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

REAL = "real"


@dataclass(frozen=True)
class VideoRecord:
    """One video as its dataset's owners distribute it.

    video_id is unique inside the dataset and safe as a relative file name: `c23/Deepfakes/003_044`.
    label is 1 for fake and 0 for real, whatever the owner's own convention.
    manipulation is `real` or the owner's name.
    compression is `c23`, `c40`, ... or an empty string.
    split is `train`, `val`, `test`, or empty where no split lists it.
    target names the person or video whose geometry the clip has; a real clip and its fakes share
    it, and training pairs them by it.
    boxes_from is the video_id of the real video with the same geometry, whose face boxes this one
    reuses; empty for none.
    masks is the file with the forged region's ground truth, None where there is none.
    person is what intervals and tests take as one independent unit, as well as it is known: for
    FaceForensics++ the pair of the official split ("003_044"), for Celeb-DF the target identity
    (a video of YouTube-real itself), for the DFDC preview the target actor, for the full DFDC the
    original video, for WildDeepfake the source video (category and shard). Empty: not known.
    """

    dataset: str
    video_id: str
    label: int
    manipulation: str
    compression: str
    split: str
    path: Path
    target: str = ""
    boxes_from: str = ""
    masks: Path | None = None
    person: str = ""

    @property
    def group(self) -> str:
        """What stays on one side of a split: the person, or the best that is known of it."""
        return self.person or self.target or self.video_id
