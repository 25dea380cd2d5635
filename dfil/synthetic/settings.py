"""What can be set in the built-in benchmark, and the settings the project uses: two for
FaceForensics++, one for each further dataset."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

SIZE = 320  # frame height and width in pixels
FPS = 25
METHODS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures")  # FaceForensics++'s folders
RENDERER = 1  # raised whenever the same seed no longer gives the same frames


@dataclass(frozen=True)
class Setting:
    """How strongly, and in which way, a synthetic fake differs from a real clip.

    tau: share of a fake's nuisances that is drawn anew in each frame, 0 to 1 (see
        `signals.nuisances`).
    artefact: strength of classic single-frame traces (blur, colour cast, chequerboard, lost sensor
        noise); at 0 a single frame carries no information about the label.
    strength: factor per method on the standard deviations of `signals.SIGMA`, real clips included.
        Chosen once with the model-free statistic of `dfil.explain.inconsistency`, never by the
        score of a trained model.
    frames: length of a clip at 25 frames per second.
    crf: H.264 constant rate factor behind each quality folder. FaceForensics++ uses 23 and 40; at
        320 pixels crf 40 smears far more than in its larger frames, so the folder c40 holds 33
        here: the largest of 33, 35 and 37 at which the statistic still separates each of the four
        methods from real clips with an AUC of 0.75, in two samples of 40 people.
    qp: H.264 constant quantiser of the qualities whose frames are coded one by one, in packets of
        one size, instead of by crf. P and B frames code jitter anew, so that it comes out crisper
        than what stands still: at crf 23 eleven features of one frame separate `artefact = 0` with
        an AUC of 0.64, and the sizes of packets with 0.9 and more. Coded so they say nothing
        (tests/test_control.py).
    preset: x264 speed preset.
    version: raised whenever the same sizes no longer give the same files for this setting alone.
    """

    name: str
    tau: float
    artefact: float
    strength: dict[str, float] = field(default_factory=lambda: dict(STRENGTH))
    frames: int = 48
    crf: dict[str, int] = field(default_factory=lambda: {"c23": 23, "c40": 33})
    preset: str = "veryfast"
    qp: dict[str, int] = field(default_factory=dict)
    version: int = 1

    def __post_init__(self):
        if not 0 <= self.tau <= 1:
            raise ValueError(
                f"Setting {self.name!r}: tau must lie between 0 and 1, it is {self.tau}."
            )
        if missing := sorted({*METHODS} - {*self.strength}):
            raise ValueError(f"Setting {self.name!r}: strength has no entry for {missing}.")

    def as_dict(self) -> dict:
        """All fields as plain values, as written to synthetic.json.

        Those of LATER are left out at their defaults, so that a tree from before still is the same.
        """
        return {k: v for k, v in asdict(self).items() if k not in LATER or v != LATER[k]}

    @property
    def qualities(self) -> list[str]:
        """The quality folders for which there is a coding."""
        return [*self.crf, *self.qp]

    @property
    def folder(self) -> str:
        """What a tree of this setting is called: its name, and its version from the second on."""
        return self.name if self.version == 1 else f"{self.name}-{self.version}"

    def coding(self, quality: str) -> dict:
        """How a quality is coded: the keyword arguments of `codec.encode`."""
        how = {"qp": self.qp[quality]} if quality in self.qp else {"crf": self.crf[quality]}
        return how | {"preset": self.preset}


LATER = {"qp": {}, "version": 1}


STRENGTH = {"Deepfakes": 1.4, "Face2Face": 1.3, "FaceSwap": 1.7, "NeuralTextures": 1.3}


def _scaled(factor: float) -> dict[str, float]:
    return {method: round(factor * strength, 4) for method, strength in STRENGTH.items()}


# Trees of the further datasets have one compression each, which has no name; WildDeepfake's draws
# its crf for each source video.
SETTINGS = {
    "temporal-only": Setting(
        "temporal-only", tau=0.8, artefact=0.0, crf={}, qp={"c23": 23, "c40": 33}, version=2
    ),
    "ff-like": Setting("ff-like", tau=0.8, artefact=0.3),
    "celebdf-like": Setting(
        "celebdf-like", tau=0.8, artefact=0.1, strength=_scaled(0.5), frames=40, crf={"": 23}
    ),
    "dfdc-like": Setting("dfdc-like", tau=0.8, artefact=0.3, frames=40, crf={"": 25}),
    "wild-like": Setting("wild-like", tau=0.8, artefact=0.3, frames=40, crf={}),
}
# Added to the seed: the same number is somebody else in every dataset.
PEOPLE = {"temporal-only": 0, "ff-like": 0, "celebdf-like": 1_000_000}
PEOPLE |= {"dfdc-like": 2_000_000, "wild-like": 3_000_000}
