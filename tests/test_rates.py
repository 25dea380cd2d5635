"""The search for a learning rate: three values, on to a neighbour where the best is at an edge."""

import pandas as pd
import pytest

from dfil.profiles import SMOKE
from dfil.system.errors import DivergedError
from dfil.train import rates
from dfil.train.runs import Run, RunStore


@pytest.fixture
def searched(tmp_path, monkeypatch, tiny_store):
    """A search in which a run counts as trained when it was asked for; returns what was asked
    for.
    """
    auc, asked = {1e-4: 0.5, 1e-3: 0.6, 3e-3: 0.7, 1e-2: 0.8, 3e-2: 0.75}, []
    runs = RunStore(tmp_path, SMOKE)
    monkeypatch.setattr(Run, "is_trained", property(lambda run: run.spec.training.lr in asked))
    history = property(
        lambda run: pd.DataFrame(
            {"kept": [False, True], "val_auc": [1.0, auc[run.spec.training.lr]], "val_loss": 0.5}
        )
    )
    monkeypatch.setattr(Run, "history", history)
    monkeypatch.setattr(
        runs, "get_all", lambda specs, store: asked.extend(s.training.lr for s in specs)
    )
    return runs, asked


def test_the_best_rate_is_not_at_an_edge_and_is_judged_by_the_weights_kept(searched, tiny_store):
    runs, asked = searched
    assert rates.decided(runs, tiny_store, ["dil"]) == {}
    while todo := rates.wanted(runs, tiny_store, "dil"):
        runs.get_all(todo, tiny_store)
    assert asked == [1e-3, 3e-3, 1e-2, 3e-2]
    assert rates.decided(runs, tiny_store, ["dil"]) == {"dil": 1e-2}
    shown = rates.table(runs, tiny_store, ["dil"])
    assert shown.loc[shown["chosen"], "rate"].tolist() == [1e-2] and len(shown) == 4


def test_a_rate_that_diverged_was_tried_whoever_asks_and_when(searched, tiny_store):
    runs, asked = searched
    asked += [1e-3, 3e-3, 1e-2]
    (last,) = rates.wanted(runs, tiny_store, "dil")
    assert rates.decided(runs, tiny_store, ["dil"]) == {} and last.training.lr == 3e-2
    runs.run(last, tiny_store).diverged(DivergedError("the training loss is nan"))
    later = RunStore(runs.folder, SMOKE)
    assert rates.wanted(later, tiny_store, "dil") == []
    assert rates.applied(later, tiny_store, ["dil"]).rates["dil"] == 1e-2
    asked.append(3e-2)  # it was trained after all
    assert not later.run(last, tiny_store).has_diverged


def test_where_the_first_rates_all_diverge_smaller_ones_are_tried(searched, tiny_store):
    runs, asked = searched
    tried = []
    while todo := rates.wanted(runs, tiny_store, "dil"):
        for each in todo:
            tried.append(each.training.lr)
            if each.training.lr > 1e-4:
                runs.run(each, tiny_store).diverged(DivergedError("the training loss is nan"))
            else:
                asked.append(each.training.lr)
                break
        if asked:
            break
    assert tried == [1e-3, 3e-3, 1e-2, 3e-4, 1e-4]
    assert rates.wanted(runs, tiny_store, "dil") == []
    assert rates.decided(runs, tiny_store, ["dil"]) == {"dil": 1e-4}


def test_a_search_takes_a_seed_that_no_table_uses():
    from dfil.profiles import PROFILES

    assert all(
        rates.SEED not in p.seeds_for(t) for p in PROFILES.values() for t in ("", *p.seeds_of)
    )
