"""Figures with sliders and switches in a notebook opened by hand, one still figure elsewhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from IPython.core.pylabtools import print_figure
from matplotlib.figure import Figure

from dfil.system.progress import by_hand

if TYPE_CHECKING:
    from ipywidgets import VBox

Draw = Callable[..., Figure]


def choose(draw: Draw, still: Figure, **choices: Sequence) -> Figure | Interactive:
    """A control for each of `choices` (name -> values) above the picture that `draw` makes of them.

    draw: takes one value by each name. still: says the same in one picture; shown where nobody can
    move a control, in a notebook that papermill executes, on a printed page, without ipywidgets.
    """
    if by_hand() and find_spec("ipywidgets"):
        return Interactive(controls(draw, choices), still)
    return still


class Interactive:
    """Widgets that carry a still picture along, for pages that cannot show widgets."""

    def __init__(self, box: VBox, still: Figure):
        self.box, self.still = box, still

    def _repr_mimebundle_(self, **_) -> dict[str, object]:
        picture = b64encode(print_figure(self.still, "png")).decode()
        return {**self.box._repr_mimebundle_(), "image/png": picture}


def controls(draw: Draw, choices: dict[str, Sequence]) -> VBox:
    """The controls and, as last child, the picture; each is drawn once, when it is first asked for.

    True and False make a switch, other values a slider over them; both begin with the first value.
    """
    import ipywidgets as widgets

    inputs, drawn = {}, {}
    for name, values in choices.items():
        if set(values) == {True, False}:
            inputs[name] = widgets.Checkbox(values[0], description=name, indent=False)
        else:
            options = [(str(value), value) for value in values]
            inputs[name] = widgets.SelectionSlider(options=options, description=name)
    picture = widgets.Image(format="png", layout={"max_width": "100%", "object_fit": "contain"})

    def show(_=None) -> None:
        chosen = {name: control.value for name, control in inputs.items()}
        key = tuple(chosen.values())
        if key not in drawn:
            drawn[key] = print_figure(draw(**chosen), "png")
        picture.value = drawn[key]

    for control in inputs.values():
        control.observe(show, "value")
    show()
    return widgets.VBox([widgets.HBox(list(inputs.values())), picture])
