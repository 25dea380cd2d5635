"""What later detectors have and the paper does not, given to DIL: does it help, and what is seen?

Rows are DIL as it is and with a switch of its own each, trained on all four manipulations of
FaceForensics++ at c23, where there is room above DIL. An addition is kept if the decision finds it
to help, and not otherwise. The queries' map is measured beside the U-T map of Figure 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from dfil.explain import activation, localisation, no_forgery
from dfil.explain.localisation import PartlyForged
from dfil.faces.store import CropStore
from dfil.paper import ALL_MANIPULATIONS, AUC, Table, Videos
from dfil.profiles import Profile
from dfil.results import located, tables
from dfil.train.devices import pick_device
from dfil.train.runs import RunSpec, RunStore

TITLE = "Two additions to DIL: AUC at c23"
# row -> DIL's switches. The number of queries is a reading, the weights are GenD's.
ADDED: dict[str, dict[str, object]] = {
    "dil": {},
    "query pooling": {"queries": 4},
    "alignment and uniformity": {"alignment": 0.1, "uniformity": 0.5},
}
ASKED = {f"{name} improves DIL": (name, "dil") for name in ADDED if name != "dil"}
# dataset and compression. At c40 trainings are six times as long, and DIL's AUC is .995 in the
# study, where at c23 it is .948.
TRAINED = "ffpp", "c23"
MAP, UT = "query map", "U–T map"
ASKED_IN_TIME = {
    "The query map is higher in forged frames (AUC of a video's own frames)": (MAP, 0.5),
    "It tells them better than the U–T map of Figure 5": (MAP, UT),
}


def specs(profile: Profile, seed: int) -> dict[str, RunSpec]:
    """The run behind each row; "dil" is that of Table 1."""
    what = "table1", "dil", *TRAINED, ALL_MANIPULATIONS
    return {
        name: RunSpec.of_table(profile, *what, switches=tuple(sorted(own.items())), seed=seed)
        for name, own in ADDED.items()
    }


def tests(store: CropStore) -> dict[str, Videos]:
    """The columns: each manipulation's test videos at that quality, where there are any."""
    found = no_forgery.tests({TRAINED[0]: store})
    return {name: videos for name, videos in found.items() if videos.compression == TRAINED[1]}


def response(runs: RunStore, stores: Mapping[str, CropStore]) -> no_forgery.Results:
    """What feeds each cell, trained or found again, on each manipulation's test videos at c23;
    nothing where a tree has none."""
    columns = tests(stores[TRAINED[0]])
    if not columns:
        return {}
    wanted = [specs(runs.profile, seed) for seed in runs.profile.seeds_for("table1")]
    return no_forgery.scored(runs, stores, wanted, columns)


def layout(results: no_forgery.Results) -> Table:
    """The table that the results fill."""
    columns = dict.fromkeys(column for _, column in results) or (TRAINED[1],)
    return tables.grid("additions", TITLE, AUC, list(ADDED), list(columns))


def decisions(results: no_forgery.Results) -> pd.DataFrame:
    """Whether each addition helps, pooled over the columns and decided together, a line each."""
    return no_forgery.decided(results, ASKED if results else {})


def in_time(runs: RunStore, store: CropStore, clips: PartlyForged | str) -> pd.DataFrame:
    """`localisation.measure_in_time` of Figure 5's model and of the same one trained with queries,
    now if it is not there yet. store: what Figure 5's was trained on. clips: of partly_forged."""
    if isinstance(clips, str) or not clips.truth:
        print("There are no clips whose forged frames are known, so no map is measured.")
        return localisation.measure_in_time("", [])
    switches = tuple(ADDED["query pooling"].items())
    with_queries = runs.get(replace(clips.run.spec, switches=switches), store)
    models = {"": clips.run.model(), ", with queries": with_queries.model()}
    models = {name: model.to(pick_device()) for name, model in models.items()}

    def maps(x):
        found = activation.query_map(models[", with queries"], x)
        for name, model in models.items():
            stages = activation.ut_maps(model, x)
            found[f"{UT}{name}"] = stages[max(stages)]  # of the last that has one, as in Figure 5
            found[f"frame probability{name}"] = activation.frame_probabilities(model, x)
        return found

    return localisation.measure_in_time(clips, [maps])


def found(measured: pd.DataFrame) -> pd.DataFrame:
    """`in_time`'s lines by map, each the mean over n clips: AUC of the clip's own frames; how often
    the highest frame is forged (hit), and is so while the U-T map's is not (beyond); and how often
    a random frame is (chance)."""
    own, highest = localisation.own_auc(measured), localisation.highest_in_time(measured)
    auc = own.groupby("row", sort=False)["value"].agg(auc="mean", n="size")
    first = highest[highest["row"] == UT].set_index("video_id")["hit"]
    beyond = (highest["hit"] - highest["video_id"].map(first)).clip(lower=0)
    shares = highest.assign(beyond=beyond).groupby("row")[["hit", "beyond", "chance"]].mean()
    return auc.join(shares)[["auc", "hit", "beyond", "chance", "n"]]


def decisions_in_time(measured: pd.DataFrame, clips: PartlyForged | str) -> pd.DataFrame:
    """Whether the query map finds forged frames, and more of them than the U-T map, decided as the
    claims about figures are: a line each, none where nothing was measured."""
    if measured.empty:
        return no_forgery.lines([], [])
    own, highest = localisation.own_auc(measured), localisation.highest_in_time(measured)
    over = highest.assign(value=highest["hit"] - highest["chance"])
    people, made = clips.store.index.set_index("video_id")["person"], []
    for values, chance in ((own, 0.5), (over, 0.0)):
        by_person = values.assign(person=values["video_id"].map(people))
        made += [located.compare(by_person, MAP, than) for than in (chance, UT)]
    rest = "above chance", "above the U–T map"
    claims = [f"query map, {what} {how}" for what in ("AUC", "highest frame") for how in rest]
    return no_forgery.lines(made, claims)
