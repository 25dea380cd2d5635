"""What the paper leaves open, how it is read here, and what else it could have meant.

The code's defaults are these readings.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from dfil import models, paper
from dfil.profiles import Profile
from dfil.train.runs import RunSpec


@dataclass(frozen=True)
class Reading:
    """One open point.

    where: part of the paper. switch: the argument that holds the reading, empty where nothing can
    be switched.
    """

    where: str
    question: str
    reading: str
    alternative: str
    switch: str = ""


READINGS = (
    Reading(
        "Instantiation", "Where in a residual block do the modules sit?",
        "after the first 1x1, right before the 3x3", "around the block",
    ),
    Reading(
        "Table 6", "What does alternating mean across stages?",
        "Intra, Inter, Intra, ... anew in every stage: 9 + 7 blocks",
        "one parity through the whole network: 8 + 8", "alternate",
    ),
    Reading(
        "Table 4", "Where does a single module go?",
        "at its own alternate places, the blocks between are plain", "into every block", "single",
    ),
    Reading(
        "Eq. 6", "How is the input split?",
        "plain halves of the channels, the first passes untouched", "a learnt split",
    ),
    Reading(
        "Eq. 1", "What is r, and how small may the squeezed map be?",
        "r = 16, but at least 4 channels", "no floor: 2 channels in stage 1",
        "reduction, min_channels",
    ),
    Reading(
        "Eq. 1", "Is the squeeze followed by a ReLU?", "no, by batch normalisation only",
        "yes, as in TEA",
    ),
    Reading(
        "Eq. 1", "Which frame does a backward difference belong to?",
        "to the later one, F_t - conv(F_t-1), with a zero at the first frame",
        "to the earlier one; then the two directions cancel into one symmetric term",
    ),
    Reading(
        "Eq. 1", "Do both directions share their convolution?", "yes, one depthwise 3x3",
        "one each",
    ),
    Reading(
        "Eq. 2-3", "When are the directions averaged?",
        "before the two views: all that follows is linear up to batch normalisation",
        "after them, at twice the cost",
    ),
    Reading(
        "Eq. 2-3", "Do the views share their 3x3?",
        "no, one per view; its two directions share it", "one for all",
    ),
    Reading(
        "Eq. 3", "Is the attention centred?", "a plain sigmoid", "sigmoid - 0.5, as in TDN",
    ),
    Reading(
        "Eq. 4", "Is the hidden layer of the kernels normalised?", "no",
        "batch normalisation, as TAM has", "kernel_bn",
    ),
    Reading(
        "Eq. 4", "How wide is the hidden layer, how long the kernel?", "gamma = 2, k = 3",
        "other widths and lengths", "gamma, kernel_size",
    ),
    Reading(
        "Eq. 7", "Is there a ReLU between the two convolutions?", "none is written, so none",
        "a ReLU",
    ),
    Reading(
        "Eq. 8-10", "Which differences are taken?",
        "between snippets, after a convolution along the frames of each", "between frames",
    ),
    Reading(
        "Eq. 11", "What is the convolution along the snippets?",
        "depthwise, starting as the identity", "a full C x C x 3 convolution", "conv_u",
    ),
    Reading(
        "Figure 5", "What is the U-T map?", "F1 times F2, the mean over channels",
        "one channel of it",
    ),
    Reading(
        "Loss", "What is averaged into a video's score?", "the logits of all frames",
        "probabilities, as the frame baselines do",
    ),
    Reading(
        "Training", "When does the learning rate fall?",
        "to a tenth after 3 epochs without a smaller validation loss, down to 1e-6",
        "another patience, or by the validation AUC", "patience, plateau_on, lowest_lr",
    ),
    Reading(
        "Training", "How are frames sampled?",
        "a random start in each of U segments; in testing the centred one",
        "segments jittered in testing",
    ),
    Reading(
        "Preprocessing", "What is cropped?",
        "one square box per snippet, the union of its frames' boxes, times 1.3", "a box per frame",
        "box",
    ),
    Reading(
        "Preprocessing", "Which boxes do forged videos of FaceForensics++ use?",
        "those of their real target video", "their own",
    ),
    Reading(
        "Baselines", "How do frame models score a video?", "mean probability of its frames",
        "mean logit",
    ),
    Reading(
        "Training", "What of unequal classes?",
        "videos come once an epoch, as many as there are of each class",
        "as many of both, the rarer ones several times", "balance",
    ),
    Reading(
        "Selection", "Which epoch is kept?",
        "the best AUC of validation videos, carved by identity where there are none",
        "the best loss or accuracy of them, the last epoch, the mean of the last ones",
        "keep, best_by, averaged",
    ),
)  # fmt: skip

# What can be switched by one argument and is not an ablation of the paper's: name -> (the model's
# switches, the crop's box).
SWITCHED: dict[str, tuple[dict[str, object], str]] = {
    "as read here": ({}, "snippet"),
    "alternate = network": ({"alternate": "network"}, "snippet"),
    "min_channels = 2": ({"min_channels": 2}, "snippet"),
    "min_channels = 8": ({"min_channels": 8}, "snippet"),
    "kernel_bn": ({"kernel_bn": True}, "snippet"),
    "gamma = 1": ({"gamma": 1}, "snippet"),
    "conv_u = full": ({"conv_u": "full"}, "snippet"),
    "a box per frame": ({}, "frame"),
}


def frame() -> pd.DataFrame:
    """READINGS as a table, with the default of each switch as DIL's constructor has it."""
    return pd.DataFrame([vars(reading) for reading in READINGS], index=range(1, len(READINGS) + 1))


def specs(profile: Profile, compression: str = "c23") -> dict[str, RunSpec]:
    """The runs behind SWITCHED, DIL on all four manipulations at a compression.

    Raises ValueError if DIL lacks a switch.
    """
    for switches, _ in SWITCHED.values():
        models.build("dil", depth=(1, 1, 1, 1), width=16, **switches)
    videos = "ffpp", compression, paper.ALL_MANIPULATIONS
    return {
        name: RunSpec.of_table(
            profile, "table1", "dil", *videos, switches=tuple(sorted(switches.items())), box=box
        )
        for name, (switches, box) in SWITCHED.items()
    }
