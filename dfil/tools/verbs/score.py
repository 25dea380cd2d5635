"""`dfil score`."""

from __future__ import annotations

import csv
import json
import sys
from argparse import Namespace
from pathlib import Path

from dfil import models
from dfil.explain import own_page
from dfil.explain.own_page import Evidence
from dfil.results import verdict
from dfil.train import own_video


def score(a: Namespace) -> int:
    machine = a.json or a.csv
    weights = a.weights or own_video.SHIPPED
    config = models.read(weights)[1]
    if config["synthetic"]:  # first of all: before any number
        print(verdict.WARNING, file=sys.stderr if machine else sys.stdout, flush=True)
    writer = csv.DictWriter(sys.stdout, verdict.ROW, extrasaction="ignore")
    if a.csv:
        writer.writeheader()
    failed, sections = 0, []
    watch = Evidence() if a.report else own_video.unseen
    for result in own_video.score_videos(a.videos, weights, a.snippets, a.detector, watch):
        if result["score"] is None:
            failed += 1
            _print_failure(result)
        elif not machine:
            _print_score(result)
        if a.json:  # a line for each as it comes
            summary = [verdict.WARNING] * result["synthetic_training"] + verdict.sentences(result)
            print(json.dumps(result | {"summary": summary}), flush=True)
        if a.csv:
            writer.writerows(verdict.rows(result))
            sys.stdout.flush()
        if a.report:
            sections.append(own_page.section(result, watch))
            watch.clear()
    if a.report:
        own_page.write(a.report, sections, config)
        print(f"{a.report}: {len(sections)} videos", file=sys.stderr)
    return 1 if failed else 0


def _print_failure(result: dict) -> None:
    video = result["video"]
    why = result["reason"].removeprefix(str(Path(video).absolute()))
    why = why.removeprefix(video).lstrip(": ")
    print(f"dfil: {video}: {result['status']}: {why}", file=sys.stderr)


def _print_score(result: dict) -> None:
    first, *others = verdict.sentences(result)
    print(first, *others, sep="\n  ")
    for s in result["snippets"]:
        frames = f"frames {s['first_frame']:6}-{s['last_frame']:<6}"
        value = "-" if s["score"] is None else f"{s['score']:.3f}"
        print(f"  {s['first_second']:8.2f}-{s['last_second']:<8.2f} s  {frames} {value}")
