"""Figure 2 says what the built model is: every block, shape and parameter count is read back
from the model itself.
"""

import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.patches import FancyBboxPatch
from matplotlib.text import Text

from dfil import models
from dfil.explain import drawing
from dfil.system.errors import RunError

SMALL = {"depth": (2, 1, 1, 1), "width": 8, "stem": "small"}


def words(fig) -> str:
    return "\n".join(text.get_text() for text in fig.findobj(Text))


def test_summary_of_the_papers_size():
    model = models.build("dil")
    parts = drawing.summary(model, 224)
    assert parts["parameters"].sum() == sum(p.numel() for p in model.parameters())
    assert (parts["kind"] == "Intra-SI").sum() == 9 and (parts["kind"] == "Inter-SI").sum() == 7
    assert parts.loc["stem", "shape"] == (64, 56, 56) and parts.loc["layer4.2", "shape"] == (
        2048,
        7,
        7,
    )
    plain = models.build("resnet50")
    assert parts["added"].sum() == sum(p.numel() for p in model.parameters()) - sum(
        p.numel() for p in plain.parameters()
    )


def test_shapes_are_those_of_a_real_pass():
    model = models.build("dil", **SMALL).eval()
    seen = {}
    for name, block in model.backbone.blocks():
        block.register_forward_hook(
            lambda module, args, output, name=name: seen.update({name: tuple(output.shape[1:])})
        )
    with torch.no_grad():
        model(torch.zeros(1, 2, 4, 3, 48, 48))
    parts = drawing.summary(model, 48)
    assert {name: parts.loc[name, "shape"] for name in seen} == seen and len(seen) == 5


def test_the_model_itself_is_not_touched():
    model = models.build("dil", **SMALL)
    drawing.summary(model, 32)
    assert model.training and all(p.device.type == "cpu" for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_drawing_says_the_built_numbers():
    model = models.build("dil")
    text = words(drawing.architecture(model, 224, snippets=4))
    first, second = model.backbone.layer1[0].intra, model.backbone.layer1[1].inter
    assert f"Intra-SIM of layer1.0: {sum(p.numel() for p in first.parameters())} parameters" in text
    assert (
        f"Inter-SIM of layer1.1: {drawing.number(sum(p.numel() for p in second.parameters()))} "
        "parameters" in text
    )
    assert (
        "squeeze 1×1, BN\n32→4, 136" in text
        and "FC 4→8, ReLU\n32" in text
        and "2048 × 7 × 7" in text
    )
    assert text.split("\n").count("Intra") == 9 and text.split("\n").count("Inter") == 7
    for stage, blocks in enumerate(model.backbone.stages(), 1):
        assert (
            f"stage {stage}: {drawing.number(sum(p.numel() for p in blocks.parameters()))}" in text
        )


def test_switches_change_the_drawing():
    full = words(drawing.architecture(models.build("dil", **SMALL), 32))
    assert "F(t−1)" in full and "T×W" in full and "softmax" in full and "depthwise" in full
    bare = words(
        drawing.architecture(
            models.build("dil", **SMALL, bp=False, ca=False, lk=False, conv_u="full"), 32
        )
    )
    assert (
        "F(t−1)" not in bare
        and "T×W" not in bare
        and "softmax" not in bare
        and "static kernel" in bare
        and "full" in bare
    )
    wide = words(drawing.architecture(models.build("dil", **SMALL, reduction=2, frames=6), 32))
    assert "FC 6→12" in wide and "T = 6" in wide and "4→4" in wide


def test_plain_blocks_are_drawn_plain():
    text = words(drawing.architecture(models.build("dil", **SMALL, stages=(1,)), 32))
    assert text.split("\n").count("plain") == 3 and text.split("\n").count("Intra") == 1


@pytest.mark.parametrize("switches", [{}, SMALL | {"bp": False, "ca": False, "lk": False}])
def test_nothing_is_written_outside_its_box_and_no_box_touches_another(switches):
    fig = drawing.architecture(models.build("dil", **switches), 224)
    FigureCanvasAgg(fig).draw()
    for ax in fig.axes:
        boxes = [p.get_window_extent() for p in ax.patches if isinstance(p, FancyBboxPatch)]
        for i, one in enumerate(boxes):
            assert not any(one.padded(-1).overlaps(other) for other in boxes[i + 1 :])
        for text in ax.texts:
            said = text.get_window_extent()
            assert said.x0 >= 0 and said.x1 <= fig.bbox.width, text.get_text()
            middle = (said.x0 + said.x1) / 2, (said.y0 + said.y1) / 2
            for box in boxes:
                if text.get_text() and box.contains(*middle):
                    assert box.x0 + 1 < said.x0 and said.x1 < box.x1 - 1, text.get_text()
                    assert box.y0 < said.y0 and said.y1 < box.y1, text.get_text()


def test_a_model_without_both_modules_is_refused():
    with pytest.raises(RunError, match="no Inter-SI block"):
        drawing.architecture(models.build("dil", **SMALL, inter=False), 32)


@pytest.mark.parametrize(
    ("count", "said"), [(408, "408"), (5168, "5.17 k"), (23_512_130, "23.5 M"), (0, "0")]
)
def test_counts_in_three_digits(count, said):
    assert drawing.number(count) == said
