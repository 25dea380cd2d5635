"""`bench growth`: the powers, the work that is measured, and the text and plot of it."""

from pathlib import Path

import numpy as np
import pytest

from dfil.tools.bench import growth
from dfil.tools.bench.common import peak_bytes


def found():
    def lines(power):
        return [{"amount": n, "seconds": 0.1 * n**power, "mib": 5.0} for n in (2, 4, 8)]

    ways = {
        way: {"lines": lines(1 + k), "powers": {"seconds": 1 + k, "mib": 0}, "mib of nothing": 900}
        for k, way in enumerate(growth.WAYS)
    }
    return {"cores": 2, "ways": ways, "plot": "growth.png"}


@pytest.mark.parametrize("power", [0, 0.5, 1, 2])
def test_a_power_law_gives_its_power(power):
    amounts = np.array([2, 4, 8, 16])
    assert growth._power(amounts, 3 * amounts**power) == pytest.approx(power, abs=1e-9)


def test_the_text_has_every_amount_and_the_plot_every_way():
    text = growth.table(found())
    assert all(way in text for way in growth.WAYS.values()) and text.count("to the power") == 3
    figure = growth.plot(found())
    assert len(figure.axes) == 6
    assert [ax.get_xlabel() for ax in figure.axes[3:]] == list(growth.WAYS.values())


def _little(given) -> None:
    """A work of next to nothing, for a process of its own."""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="asks Linux's kernel")
def test_a_process_does_not_have_the_peak_of_the_one_that_started_it():
    _, before = growth._alone(_little, None)
    held = np.ones(int(1.5 * before) * 2**17)  # numbers of eight bytes
    assert peak_bytes() > held.nbytes
    _, mib = growth._alone(_little, None)
    assert mib < 1.3 * before < held.nbytes / 2**20


def test_what_is_measured_is_the_work_itself(tmp_path):
    clip = growth._clip(tmp_path / "clip.mp4", 60)
    seconds, mib = growth._watched(growth._preprocess, [clip, clip])
    assert seconds > 0 and mib > 50
    assert growth._watched(growth._score, 2)[0] > 0


def test_more_snippets_take_a_process_of_their_own_more_time():
    few, many = (growth._alone(growth._score, n) for n in (1, 64))
    assert many[0] > few[0]
