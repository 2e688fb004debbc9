"""What was measured: kept in JSON, and compared."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass, field

from benchmarks.peers.cases import Claim

Key = tuple[str, str, str]


@dataclass
class Results:
    """The numbers of all rounds.

    Attributes:
        about: the machine, the versions and the date, in words.
        samples: by topic, client and variant; one mapping for each round.
        left_out: clients that could not be measured, and why.
    """

    about: dict[str, str]
    samples: dict[Key, list[dict[str, float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def median(self, key: Key, number: str) -> float:
        """The median of the rounds."""
        return statistics.median(each[number] for each in self.samples[key])

    def spread(self, key: Key, number: str) -> tuple[float, float]:
        """The smallest and the largest number of the rounds."""
        numbers = [each[number] for each in self.samples[key]]
        return min(numbers), max(numbers)

    def ratio(self, claim: Claim) -> tuple[float, float, float] | None:
        """The ratio of the medians, and the smallest and the largest ratio of a round; None if one was not measured."""
        if claim.one not in self.samples or claim.other not in self.samples:
            return None
        pairs = zip(self.samples[claim.one], self.samples[claim.other], strict=False)
        ratios = [one[claim.number] / other[claim.number] for one, other in pairs]
        middle = self.median(claim.one, claim.number) / self.median(claim.other, claim.number)
        return middle, min(ratios), max(ratios)

    def dump(self) -> str:
        """As JSON."""
        flat = [[*key, [_rounded(each) for each in samples]] for key, samples in self.samples.items()]
        lines = ",\n".join(json.dumps(each) for each in flat)
        rest = json.dumps({"about": self.about, "left_out": self.left_out}, indent=1, ensure_ascii=False)
        return f'{rest[:-2]},\n "samples": [\n{lines}\n]}}\n'

    @classmethod
    def load(cls, text: str) -> Results:
        """Read what ``dump`` wrote."""
        read = json.loads(text)
        samples = {(topic, client, variant): numbers for topic, client, variant, numbers in read["samples"]}
        return cls(read["about"], samples, read["left_out"])


def _rounded(numbers: dict[str, float]) -> dict[str, float]:
    return {name: float(f"{number:.5g}") for name, number in numbers.items()}
