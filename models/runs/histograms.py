"""How runtimes are spread, in a constant size: counts of buckets whose bounds grow by the same factor.

Any value lies within 1 % of what its bucket stands for, so a percentile does too (DDSketch, Masson, Rim and Lee, 2019).
Two histograms are merged by adding their counts, and one is added to by `$inc` alone.
"""

import math
from collections.abc import Mapping
from typing import Final

_ACCURACY: Final = 0.01
_GROWTH: Final = (1 + _ACCURACY) / (1 - _ACCURACY)
_LOG: Final = math.log(_GROWTH)
_ZERO: Final = "z"
"""The bucket of runs that took no time."""


def bucket(milliseconds: int) -> str:
    """Name the bucket of a runtime: at most 1,300 of them hold a year."""
    return str(math.ceil(math.log(milliseconds) / _LOG)) if milliseconds > 0 else _ZERO


def percentile(counts: Mapping[str, int], share: float) -> float | None:
    """Give the runtime in milliseconds that `share` (0 to 1) of the runs did not exceed; None without any."""
    total = sum(counts.values())
    if not total:
        return None
    # Of n values in order the one at place ⌈share · n⌉, the nearest rank.
    rank = max(math.ceil(share * total), 1)
    passed = counts.get(_ZERO, 0)
    if passed >= rank:
        return 0.0
    for place in sorted(int(name) for name, count in counts.items() if name != _ZERO and count):
        passed += counts[str(place)]
        if passed >= rank:
            return 2 * _GROWTH**place / (_GROWTH + 1)
    return None
