"""The list of readings agrees with the code it speaks of."""

import inspect

from dfil import models
from dfil.faces.crops import Crops
from dfil.models.dil import DIL
from dfil.models.resnet import ResNet
from dfil.profiles import DEMO, Training
from dfil.train import readings


def test_every_named_switch_is_an_argument_somewhere():
    known = set()
    for function in (DIL, ResNet, Training, Crops.snippet):
        known |= set(inspect.signature(function).parameters)
    named = {name for reading in readings.READINGS for name in reading.switch.split(", ") if name}
    assert named and named <= known
    assert (
        len({(r.where, r.question) for r in readings.READINGS})
        == len(readings.READINGS)
        == len(readings.frame())
    )


def test_switched_runs_differ_from_each_other_and_the_first_is_the_default():
    specs = readings.specs(DEMO)
    assert len(set(specs.values())) == len(specs) == len(readings.SWITCHED)
    first = next(iter(specs.values()))
    assert first.switches == () and first.box == "snippet"
    defaults = {name: p.default for name, p in inspect.signature(DIL).parameters.items()}
    for spec in specs.values():
        assert all(defaults[name] != value for name, value in spec.switches)
        models.build(spec.method, depth=(1, 1, 1, 1), width=16, **dict(spec.switches))
