"""How runtimes are spread, in a constant size: counts of buckets whose bounds grow by the same factor.

Any value lies within 1 % of what its bucket stands for, so a percentile does too (DDSketch, Masson, Rim and Lee, 2019).
Two histograms are merged by adding their counts, and one is added to by `$inc` alone.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping
from itertools import accumulate
from typing import Final

_ACCURACY: Final = 0.01
_GROWTH: Final = (1 + _ACCURACY) / (1 - _ACCURACY)
_LOG: Final = math.log(_GROWTH)
_ZERO: Final = "z"
"""The bucket of runs that took no time."""


def bucket(milliseconds: int) -> str:
    """Name the bucket of a runtime: at most 1,300 of them hold a year."""
    return str(math.ceil(math.log(milliseconds) / _LOG)) if milliseconds > 0 else _ZERO


class Spread:
    """The counts of one histogram, put in order once for any number of percentiles."""

    def __init__(self, counts: Mapping[str, int]) -> None:
        """Put in order the counts of buckets, by their names."""
        buckets = dict(counts)
        self._zeros = buckets.pop(_ZERO, 0)
        named = sorted(zip(map(int, buckets), buckets.values(), strict=True))
        self._places = [place for place, _ in named]
        self._passed = list(accumulate((count for _, count in named), initial=self._zeros))[1:]

    def percentile(self, share: float) -> float | None:
        """Give the runtime in milliseconds that `share` (0 to 1) of the runs did not exceed; None without any."""
        total = self._passed[-1] if self._passed else self._zeros
        if not total:
            return None
        # Of n values in order the one at place ⌈share · n⌉, the nearest rank.
        rank = max(math.ceil(share * total), 1)
        if self._zeros >= rank:
            return 0.0
        return 2 * _GROWTH ** self._places[bisect_left(self._passed, rank)] / (_GROWTH + 1)
