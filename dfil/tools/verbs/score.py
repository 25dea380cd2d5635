"""`dfil score`."""

from __future__ import annotations

import csv
import json
import os
import sys
from argparse import Namespace
from pathlib import Path

from dfil.results import verdict
from dfil.system.errors import RunError
from dfil.system.paths import writable
from dfil.tools import found
from dfil.train import own_video
from dfil.train.origin import refuse_other_code

TITLE = "<title>How likely forged"  # of a page by `--report`, which may be written again


def score(a: Namespace) -> int:
    if a.json and a.csv:
        raise RunError("--json and --csv both write to the screen; give one of them")
    if a.report:
        _check_page(a.report)
    weights = os.path.expanduser(a.weights or own_video.SHIPPED)  # the shell leaves --weights=~ so
    config, failed, sections = own_video.described(weights), 0, []
    if run := found.read(Path(weights) if Path(weights).is_dir() else Path(weights).parent):
        refuse_other_code(run.run)
    if config["synthetic"]:  # first of all: before any number
        print(verdict.WARNING, file=sys.stderr if a.json or a.csv else sys.stdout, flush=True)
    show = _json if a.json else _table() if a.csv else _say
    watch = own_video.unseen
    if a.report:  # what draws takes memory and a second, which an answer in words does not need
        from dfil.explain.own_page import Evidence, section, write

        watch = Evidence()
    try:
        for result in own_video.score_videos(a.videos, weights, a.snippets, a.detector, watch):
            if a.report:
                sections.append(section(result, watch))
                watch.clear()
            failed += result["score"] is None
            show(result)
            _name_failure(result)
    finally:  # also of what there is when somebody stops it
        if sections:
            write(a.report, sections, config)
            print(f"{a.report}: {len(sections)} of the videos", file=sys.stderr)
    return 1 if failed else 0


def _check_page(file: Path) -> None:
    """Raises RunError, before an hour of scoring, if no page can be written there or the file holds
    something else: whoever forgets the page's name names a video there."""
    if file.suffix.lower() not in (".html", ".htm"):
        raise RunError(f"{file}: is no name of a page; give one such as report.html after --report")
    try:
        with file.open("rb") as there:
            ours = TITLE.encode() in there.read(2000)
    except FileNotFoundError:
        ours = True
    if not ours:
        raise RunError(
            f"{file}: is there and no report of this command; give another name after --report"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    if not writable(file.parent):
        raise RunError(f"{file.parent}: nothing can be written there; give another name")


def _json(result: dict) -> None:
    """A line for each video as it comes."""
    summary = [verdict.WARNING] * result["synthetic_training"] + verdict.sentences(result)
    print(json.dumps(result | {"summary": summary}), flush=True)


def _table():
    writer = csv.DictWriter(sys.stdout, verdict.ROW, extrasaction="ignore")
    writer.writeheader()
    return lambda result: writer.writerows(verdict.rows(result))


def _say(result: dict) -> None:
    if result["score"] is None:
        return
    first, *others = verdict.sentences(result)
    print(first, *others, sep="\n  ")
    for s in result["snippets"]:
        frames = f"frames {s['first_frame']:6}-{s['last_frame']:<6}"
        value = "-" if s["score"] is None else f"{s['score']:.3f}"
        print(
            f"  {s['first_second']:8.2f}-{s['last_second']:<8.2f} s  {frames} {value}", flush=True
        )


def _name_failure(result: dict) -> None:
    if result["score"] is not None:
        return
    video = result["video"]
    why = result["reason"].removeprefix(str(Path(video).absolute()))
    why = why.removeprefix(video).lstrip(": ")
    print(f"dfil: {video}: {result['status']}: {why}", file=sys.stderr)
