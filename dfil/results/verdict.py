"""What scoring one's own video has found, in words that can be passed on, and as rows.

Takes the results of dfil.train.own_video.score_videos.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dfil.results.metrics import wilson
from dfil.train.calibration import Calibration

WARNING = (
    "These weights have seen synthetic clips only: on a real video their numbers mean nothing."
)
LIMITS = (
    "It is no evidence by itself: detectors err more on kinds of forgery and compression that they"
    " have not been trained on."
)
MOST = 3  # stretches of time that a sentence names


def sentences(result: Mapping) -> list[str]:
    """The verdict, a sentence at a time, the most important first; WARNING is not among them."""
    video, reason = result["video"], result["reason"]
    if result["score"] is None:
        return [f"{video}: {result['status']}, so there is no score. {_sentence(reason)}".strip()]
    said = [*_number(result), *_who(result), _when(result), _share(result), _no_face(result)]
    return [sentence for sentence in (*said, _sentence(reason), LIMITS) if sentence]


def _number(result: Mapping) -> list[str]:
    video, score, calibrated = result["video"], result["score"], result["calibrated"]
    drawn = result["synthetic_training"]  # said in the sentence itself, which may travel alone
    if calibrated is None:
        why = "no validation scores of these weights are there that would calibrate it"
        real = "; they have seen synthetic clips only, so on a real video it means nothing" * drawn
        return [f"{video}: the detector says {score:.2f} for forged (1 is sure); {why}{real}."]
    scale = Calibration(**result["calibration"])
    as_high = scale.as_high(result["logit"])
    count = sum(n for _, n in as_high.values())
    shares = " and ".join(
        f"{_of(*as_high[kind], scale.people)} {kind} ones" for kind in ("real", "forged")
    )
    probable = f"forged with a probability of {percent(calibrated)}"
    condition = "if it is a synthetic clip, and half of such clips are" if drawn else ""
    return [
        f"{video}: {probable}, {condition or 'if half of such videos are'} (calibrated by"
        f" {count} {scale.videos}, of {scale.people} people or pairs; the detector itself says"
        f" {score:.2f}).",
        f"Of these validation videos {shares} come out as high or higher.",
    ]


def _of(k: int, n: int, people: int) -> str:
    """A share with its interval, which is that of so many people: cautious, as their videos are not
    independent."""
    low, high = wilson(k / n, min(n, people))
    return f"{k} of {n} (95 % interval {low:.0%} to {high:.0%})"


def _who(result: Mapping) -> list[str]:
    people, suspect = result["people"], result["suspect"]
    who = people[suspect]
    seen = f"{where(who)}, seen {spans(who['seen'])}"
    if len(people) == 1:
        return [f"One person is in it, {seen}."]
    others = ", ".join(
        f"person {k} ({where(person)}) has {person['score']:.2f}"
        for k, person in enumerate(people, 1)
        if k != suspect + 1
    )
    first = f"Of {len(people)} people the most suspicious is person {suspect + 1}, {seen}"
    return [f"{first}, with {who['score']:.2f}; {others}."]


def _when(result: Mapping) -> str:
    snippets = [s for s in result["snippets"] if s["score"] is not None]
    if not snippets:
        return "This method judges a person as a whole and cannot say which seconds are suspicious."
    highest = max(snippets, key=lambda s: s["score"])
    when = f"{seconds(highest['first_second'])} to {seconds(highest['last_second'])}"
    said = f"Its most suspicious moment is {when} ({highest['score']:.2f})"
    if found := stretches(result["snippets"]):
        return f"{said}; above one half it is {spans(found)}."
    return f"{said}; no moment comes out above one half."


def stretches(snippets: Sequence[Mapping], least: float = 0.5) -> list[list[float]]:
    """From when to when neighbouring snippets score above `least`, with what lies between them."""
    found: list[list[float]] = []
    before = False
    for snippet in sorted(snippets, key=lambda s: s["first_frame"]):
        above = snippet["score"] is not None and snippet["score"] > least
        if above and before:
            found[-1][1] = max(found[-1][1], snippet["last_second"])
        elif above:
            found.append([snippet["first_second"], snippet["last_second"]])
        before = above
    return found


def _share(result: Mapping) -> str:
    whole = f"{result['frames']} frames ({seconds(result['seconds'])})"
    return f"{result['examined']:.0%} of its {whole} were examined."


def _no_face(result: Mapping) -> str:
    if not result["no_face"]:
        return "There is a face in every frame."
    return f"No face was found {spans(result['no_face'])}."


def where(person: Mapping) -> str:
    """Left, middle or right of the picture."""
    across = person["place"][0]
    return "on the left" if across < 0.4 else "on the right" if across > 0.6 else "in the middle"


def spans(found: Sequence[Sequence[float]]) -> str:
    """Stretches of time in words, the longest ones if there are many."""
    longest = sorted(found, key=lambda span: span[0] - span[1])[:MOST]
    named = [f"from {seconds(a)} to {seconds(b)}" for a, b in sorted(longest)]
    if more := len(found) - len(named):
        left = sum(b - a for a, b in found) - sum(b - a for a, b in longest)
        named.append(f"in {more} shorter stretches of {seconds(left)} together")
    return " and ".join(filter(None, (", ".join(named[:-1]), named[-1])))


def percent(share: float) -> str:
    """A probability in percent that never claims to be certain."""
    return "under 1%" if share < 0.01 else "over 99%" if share > 0.99 else f"{share:.0%}"


def seconds(value: float) -> str:
    """12.3 s; beyond two minutes with minutes beside."""
    beside = f" ({int(value // 60)}:{int(value % 60):02d})" if value >= 120 else ""
    return f"{value:.1f} s{beside}"


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


ROW = (
    "video", "status", "reason", "trained_on", "synthetic_training", "seconds", "frames",
    "examined", "score", "calibrated", "no_face_seconds", "person", "place", "first_second",
    "last_second", "person_score", "person_calibrated", "person_examined", "highest_first_second",
    "highest_last_second", "highest_score",
)  # fmt: skip


def rows(result: Mapping) -> list[dict]:
    """A row for each person, with the columns of ROW; one with empty cells where there is none."""
    video = {name: result.get(name) for name in ROW}
    video["no_face_seconds"] = round(sum(b - a for a, b in result["no_face"]), 3)
    found = []
    for number, person in enumerate(result["people"], 1):
        first, last = person["seen"][0][0], person["seen"][-1][1]
        row = video | {"person": number, "place": where(person).rpartition(" ")[2]}
        row |= {"first_second": first, "last_second": last, "person_score": person["score"]}
        row["person_calibrated"] = person["calibrated"]
        row["person_examined"] = person["examined"]
        judged = [s for s in person["snippets"] if s["score"] is not None]
        if judged:
            highest = max(judged, key=lambda s: s["score"])
            row |= {f"highest_{k}": highest[k] for k in ("first_second", "last_second", "score")}
        found.append(row)
    return found or [video]
