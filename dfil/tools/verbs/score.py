"""`dfil score`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from dfil.train.own_video import score_videos


def score(a: Namespace) -> int:
    failed = 0
    for result in score_videos(a.videos, a.weights, a.snippets, a.detector):
        video = result["video"]
        if result["score"] is None:
            failed += 1
            why = result["reason"].removeprefix(str(Path(video).absolute()))
            why = why.removeprefix(video).lstrip(": ")
            print(f"dfil: {video}: {result['status']}: {why}", file=sys.stderr)
        elif not a.json:
            _print_score(result)
        if a.json:  # a line for each as it comes
            print(json.dumps(result), flush=True)
    return 1 if failed else 0


def _print_score(result: dict) -> None:
    print(f"{result['video']}: {result['score']:.3f} probability of being forged")
    print(f"  {result['examined']:.0%} of its {result['frames']} frames looked at{_also(result)}")
    if (people := len(result["people"])) > 1:
        print(f"  {people} people, the largest face first; below, the highest score")
    for person in result["people"]:
        looked_at = f"{person['examined']:.0%} of {person['frames_with_face']} frames"
        print(f"  {person['score']:.3f} for a face of which {looked_at} were looked at")
    for snippet in result["snippets"]:
        score = "-" if snippet["score"] is None else f"{snippet['score']:.3f}"
        print(f"  frames {snippet['first_frame']:6}-{snippet['last_frame']:<6} {score}")
    if result["synthetic_training"]:
        print(
            "  These weights were trained on synthetic clips: on a real video the number means"
            " nothing."
        )


def _also(result: dict) -> str:
    return f"; {result['reason']}" * bool(result["reason"])
