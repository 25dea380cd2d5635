"""`dfil score`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

from dfil.train.own_video import score_videos


def score(a: Namespace) -> int:
    results = []
    for result in score_videos(a.videos, a.weights, a.snippets, a.detector):
        results.append(result)
        video = result["video"]
        if result["score"] is None:
            why = result["reason"].removeprefix(str(Path(video).absolute()))
            why = why.removeprefix(video).lstrip(": ")
            print(f"dfil: {video}: {result['status']}: {why}", file=sys.stderr)
        elif not a.json:
            _print_score(result)
    if a.json:
        print(json.dumps(results, indent=1))
    return 0 if all(result["score"] is not None for result in results) else 1


def _print_score(result: dict) -> None:
    print(f"{result['video']}: {result['score']:.3f} probability of being forged")
    seen = f"{result['frames_with_face']} of {result['frames']} frames kept"
    print(f"  a face in {seen}; {result['reason'] or 'nothing skipped'}")
    if (people := len(result["people"])) > 1:
        others = ", ".join(f"{person['score']:.3f}" for person in result["people"])
        print(f"  {people} people, the largest face first: {others}; below, the highest")
    for snippet in result["snippets"]:
        score = "-" if snippet["score"] is None else f"{snippet['score']:.3f}"
        print(f"  frames {snippet['first_frame']:6}-{snippet['last_frame']:<6} {score}")
    if result["synthetic_training"]:
        print(
            "  These weights were trained on synthetic clips: on a real video the number means"
            " nothing."
        )
