"""A method from outside the tree, and what `import dfil.models` takes along."""

import subprocess
import sys

import pytest
import torch
from torch import nn

from dfil import cli, models
from dfil.models import About, Detector
from dfil.system.errors import RunError
from dfil.train.scoring import score
from dfil.train.snippets import SnippetDataset


class Toy(Detector):
    """The mean colour of all frames, weighed."""

    about = About("Toy", 2026, "frames", "nowhere", "scratch")

    def __init__(self, *, frames: int = 4, scale: float = 1.0):
        super().__init__()
        self.scale, self.fc = scale, nn.Linear(3, 1)

    def frame_logits(self, x):
        return self.scale * self.fc(x.mean((4, 5))).squeeze(-1)

    def forward(self, x):
        return self.frame_logits(x).mean((1, 2))


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(models, "_methods", dict(models.BUILT_IN))
    models.register("toy", Toy)


def test_a_registered_method_is_built_trained_and_shown(toy, capsys, monkeypatch):
    assert models.available() == [*models.BUILT_IN, "toy"]
    assert models.about("toy").title == "Toy" and models.sampling("toy") is None
    model = models.build("toy", scale=3.0)
    reals, fakes = torch.zeros(4, 2, 4, 3, 8, 8), torch.ones(4, 2, 4, 3, 8, 8)
    x, y = torch.cat([reals, fakes]), torch.tensor([0.0] * 4 + [1.0] * 4)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(40):
        loss = model.loss(x, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert ((model(x) > 0) == (y > 0)).all()
    with pytest.raises(ValueError, match="toy.*width"):
        models.build("toy", width=8)
    monkeypatch.setattr("dfil.tools.costs.milliseconds", lambda *args, **switches: 1.0)
    cli.main(["models"])
    assert "toy" in capsys.readouterr().out


def test_a_name_means_one_method(toy):
    models.register("toy", Toy)  # again, as when a notebook's cell is run twice
    with pytest.raises(ValueError, match="dil: this name is taken by DIL"):
        models.register("dil", Toy)
    for wrong in (nn.Linear, Toy(), type("Nameless", (Detector,), {})):
        with pytest.raises(ValueError, match="subclass of Detector with `about`"):
            models.register("wrong", wrong)
    with pytest.raises(ValueError, match="no method is called 'tyo'; there are resnet50.*toy"):
        models.build("tyo")


class Point:
    """An installed package's entry point."""

    name, value, dist = "other", "package:Other", None

    def __init__(self, found):
        self.found = found

    def load(self):
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


def test_packages_bring_methods_by_entry_point(monkeypatch):
    monkeypatch.setattr(models, "_methods", dict(models.BUILT_IN))
    monkeypatch.setattr("dfil.system.plugins.entry_points", lambda group: [Point(Toy)])
    assert isinstance(models.build("other"), Toy) and "other" in models.available()


@pytest.mark.parametrize("found", [ImportError("no such module"), nn.Linear])
def test_a_package_that_cannot_be_loaded_is_named(found, monkeypatch):
    monkeypatch.setattr(models, "_methods", dict(models.BUILT_IN))
    monkeypatch.setattr("dfil.system.plugins.entry_points", lambda group: [Point(found)])
    with pytest.raises(RunError, match="method other of package:Other cannot be loaded"):
        models.available()
    assert models.build("dil", depth=(1, 1, 1, 1), width=4)  # and harms no other


def test_importing_the_models_loads_no_video_and_no_store():
    code = (
        "import sys, dfil.models\n"
        "print(sorted({'cv2', 'av', 'pyarrow', 'dfil.faces.store'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_name_that_is_taken_is_no_packages(monkeypatch):
    """One of the two would be trained under the other's name."""
    point = Point(Toy)
    point.name = "xception"
    monkeypatch.setattr("dfil.system.plugins.entry_points", lambda group: [point])
    with pytest.raises(RunError, match="method xception of package:Other.*name is taken"):
        models.available()


def test_a_method_says_where_it_comes_from_in_a_form_that_is_read(monkeypatch):
    monkeypatch.setattr(models, "_methods", dict(models.BUILT_IN))
    with pytest.raises(ValueError, match="its `about` is a dfil.models.About, not 'a paper'"):
        models.register("mine", type("Mine", (Toy,), {"about": "a paper"}))


def test_a_switch_of_two_positions_takes_no_text():
    with pytest.raises(ValueError, match="bp is True or False, not 'False'"):
        models.build("dil", depth=(1, 1, 1, 1), width=4, bp="False")
    with pytest.raises(ValueError, match="lk is True or False, not 'off'"):
        models.build("dil", depth=(1, 1, 1, 1), width=4, lk="off")


def test_logits_of_another_number_than_the_videos_are_refused(tiny_store):
    class PerSnippet(Toy):
        def forward(self, x):
            return self.frame_logits(x).mean(2).flatten()

    clips = SnippetDataset(tiny_store, tiny_store.index[:4], snippets=2, frames=4, size=32)
    with pytest.raises(RunError, match=r"PerSnippet: \[8\] logits of 4 videos, not one each"):
        score(PerSnippet(), clips)
