"""`dfil study` and `dfil verify`."""

from __future__ import annotations

import argparse

from dfil import profiles
from dfil.results import page
from dfil.system import paths
from dfil.tools import verify as verifying
from dfil.tools.study import Study
from dfil.train import experiments


def study(a: argparse.Namespace) -> int:
    profile = profiles.get(a.profile)
    experiments.methods(profile, a.methods)  # an unknown one is named before anything else
    work = Study(profile, a.methods)
    if a.list:
        for item in work.items:
            done = "done" if work.is_done(item) else "to do"
            what = " ".join(f"{name}={value}" for name, value in item.spec.switches)
            name = f"{item.spec.method} {what}".strip()
            tables = ", ".join(item.tables)
            print(f"{done:6} {name:28} seed {item.spec.seed}  {item.spec.videos:40} {tables}")
        print(work.forecast(work.todo()))
        return 0
    if not a.publish:
        added = work.go_on(a.hours)
        print(f"{added} runs were added.")
    folder = paths.published(a.profile)
    if not verifying.write(work, folder):
        print("No run is trained yet, so there is nothing to publish.")
        return 0
    print(f"Tables: {folder / 'tables'}\nReport: {page.build(folder)}")
    return 0


def verify(a: argparse.Namespace) -> int:
    work = Study(profiles.get(a.profile))
    done = len(work.items) - len(work.todo())
    wrong = verifying.differences(work, paths.published(a.profile))
    old = verifying.stale(work)
    for line in (*wrong, *old):
        print(line)
    said = f"{done} of {len(work.items)} runs have a record"
    print(f"{said}; {len(wrong)} published files differ from them, {len(old)} records are stale.")
    return 1 if wrong or old else 0
