"""What stands beside a cell: short texts in code, joined by "; " in the CSV's column `note`.

Only this file knows that form. The note of an empty cell is one sentence, the reason, and no list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

SYNTHETIC = "synthetic data"
EARLIER = "found by an earlier call, with the same data and settings"
_BEFORE = "found by an earlier call"
FROM_STUDY = "from the study's records"
_PER_SEED, _SEPARATOR = "per seed ", "; "


@dataclass(frozen=True)
class Notes:
    """The note of a filled cell. earlier: where its number is not this call's; else empty."""

    texts: tuple[str, ...] = ()
    synthetic: bool = False
    per_seed: tuple[float, ...] = ()
    earlier: str = ""

    @classmethod
    def parse(cls, note: str) -> Notes:
        notes, texts = cls(), []
        for text in filter(None, note.split(_SEPARATOR)):
            if text == SYNTHETIC:
                notes = replace(notes, synthetic=True)
            elif text.startswith(_PER_SEED):
                values = tuple(map(float, text.removeprefix(_PER_SEED).split()))
                notes = replace(notes, per_seed=values)
            elif text.startswith((_BEFORE, FROM_STUDY)):
                notes = replace(notes, earlier=text)
            else:
                texts.append(text)
        return replace(notes, texts=tuple(texts))

    def format(self) -> str:
        seeds = " ".join(f"{value:.4f}" for value in self.per_seed)
        said = [SYNTHETIC * self.synthetic, *self.texts, seeds and _PER_SEED + seeds, self.earlier]
        return _SEPARATOR.join(filter(None, said))

    @property
    def footnotes(self) -> tuple[str, ...]:
        """The texts as they stand under a table: all but the values per seed."""
        return tuple(filter(None, (SYNTHETIC * self.synthetic, *self.texts, self.earlier)))


def earlier(reason: str, same: bool) -> str:
    """That a number is an earlier call's. same: with today's data and settings; else it is not
    known whether, and `reason` says why this call has none."""
    return EARLIER if same else f"{_BEFORE}, perhaps with other data or settings (now: {reason})"
