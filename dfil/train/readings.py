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


def _readings(text: str) -> tuple[Reading, ...]:
    """Three lines each: where, question and [switch]; the reading; the alternative."""
    found, lines = [], text.strip().splitlines()
    for at in range(0, len(lines), 3):
        head, reading, alternative = (line.strip() for line in lines[at : at + 3])
        (where, _, asked), (_, _, switch) = head.partition(": "), head.partition(" [")
        question = asked.partition(" [")[0]
        found.append(Reading(where, question, reading, alternative, switch.removesuffix("]")))
    return tuple(found)


READINGS = _readings("""
Instantiation: Where in a residual block do the modules sit?
    after the first 1x1, right before the 3x3
    around the block
Instantiation: Which convolution of a block makes the map smaller?
    the 3x3, as in torchvision's ResNet; the first block of a stage has its module before that
    the first 1x1, as He et al. wrote it; that module works at half the resolution
Table 6: What does alternating mean across stages? [alternate]
    Intra, Inter, Intra, ... anew in every stage: 9 + 7 blocks
    one parity through the whole network: 8 + 8
Table 4: Where does a single module go? [single]
    at its own alternate places, the blocks between are plain
    into every block
Table 5: What is left without a part? [bp, ca, lk]
    one direction; one attention map of the plain difference; one kernel for all videos
    other reduced forms
Table 5: Where does the kernel for all videos start?
    at the identity, (0, 1, 0); the made ones start near a mean of three frames
    at random
Eq. 6: How is the input split?
    plain halves of the channels, the first passes untouched
    a learnt split
Eq. 1: What is r, and how small may the squeezed map be? [reduction, min_channels]
    r = 16, but at least 4 channels
    no floor: 2 channels in stage 1
Eq. 1: Is the squeeze followed by a ReLU?
    no, by batch normalisation only
    yes, as in TEA
Eq. 1: Which frame does a backward difference belong to?
    to the later one, F_t - conv(F_t-1), with a zero at the first frame
    to the earlier one; then the two directions cancel into one symmetric term
Eq. 1: Do both directions share their convolution?
    yes, one depthwise 3x3
    one each
Eq. 2-3: When are the directions averaged?
    before the two views: all that follows is linear up to batch normalisation
    after them, at twice the cost
Eq. 2-3: Do the views share their 3x3?
    no, one per view; its two directions share it
    one for all
Eq. 3: Is the attention centred?
    a plain sigmoid
    sigmoid - 0.5, as in TDN
Eq. 4: Is the hidden layer of the kernels normalised? [kernel_bn]
    no
    batch normalisation, as TAM has
Eq. 4: How wide is the hidden layer, how long the kernel? [gamma, kernel_size]
    gamma = 2, k = 3
    other widths and lengths
Eq. 7-10: How many convolutions along a snippet's frames are there?
    two: a full one makes the features, a depthwise one lies in the differences
    one for both
Eq. 7: Is there a ReLU between the two convolutions?
    none is written, so none
    a ReLU
Eq. 8-10: Which differences are taken?
    between snippets, after a convolution along the frames of each
    between frames
Eq. 11: What is the convolution along the snippets? [conv_u]
    depthwise, starting as the identity
    a full C x C x 3 convolution
Figure 5: What is the U-T map?
    F1 times F2, the mean over channels
    one channel of it
Loss: What is averaged into a video's score?
    the logits of all frames
    probabilities, as the frame baselines do
Training: When does the learning rate fall? [patience, plateau_on, lowest_lr]
    to a tenth in the 4th epoch in a row without a smaller validation loss, down to 1e-6
    another patience, or by the validation AUC
Training: How are frames sampled?
    a random start in each of U segments; in testing the centred one
    segments jittered in testing
Training: Which frames of a real video are there to sample?
    four stretches of 16, for the disk's sake; all with `dfil preprocess --whole`
    all
Preprocessing: What is cropped? [box]
    one square box per snippet, the union of its frames' boxes, times 1.3
    a box per frame
Preprocessing: Which boxes do forged videos of FaceForensics++ use?
    those of their real target video
    their own
Preprocessing: How often is a face detected?
    in every 8th frame; between, its box is followed
    in every frame
DFDC: Whom of several people is a video's score of?
    of the one most likely to be forged
    of the largest face
Table 3: Of which quality are the test videos of FaceForensics++?
    LQ, as the training videos
    HQ
Baselines: How do frame models score a video?
    mean probability of its frames
    mean logit
Training: What of unequal classes? [balance]
    videos come once an epoch, as many as there are of each class
    as many of both, the rarer ones several times
Selection: Which epoch is kept? [keep, best_by, averaged]
    the best AUC of validation videos, carved by identity where there are none
    the best loss or accuracy of them, the last epoch, the mean of the last ones
""")

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
    found = {}
    for name, (switches, box) in SWITCHED.items():
        how = {"switches": tuple(sorted(switches.items())), "box": box}
        found[name] = RunSpec.of_table(profile, "table1", "dil", *videos, **how)
    return found
