"""Which media type a client wants back, by the q-values of its Accept header; which one it sent."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

GRAPHQL: Final = "application/graphql-response+json"
JSON: Final = "application/json"
EVENT_STREAM: Final = "text/event-stream"
HTML: Final = "text/html"

# Who names both JSON types with the same weight gets the one that speaks by status codes; who names neither ("*/*")
# is a browser's address bar or a shell's curl, and gets the one that every tool reads.
_NAMED: Final = (GRAPHQL, JSON, EVENT_STREAM, HTML)
_UNNAMED: Final = (JSON, GRAPHQL, EVENT_STREAM, HTML)
_EXACT: Final = 2


@lru_cache(maxsize=256)
def preferred(accept: str, offers: tuple[str, ...]) -> str | None:
    """Choose among `offers` what `accept` weighs highest; None when nothing fits. An empty header wants JSON.

    A stream or a page is chosen only where it is wanted more than either JSON type: some clients list every type they
    can read on each request.
    """
    ranges = _parsed(accept) or [("*/*", 1.0)]
    best: tuple[float, int, int] | None = None
    choice = None
    for offer in offers:
        exactness, weight = _match(offer, ranges)
        order = _NAMED if exactness == _EXACT else _UNNAMED
        score = (weight, exactness, -order.index(offer))
        if weight > 0 and (best is None or score > best):
            best, choice = score, offer
    return choice


def _match(offer: str, ranges: Sequence[tuple[str, float]]) -> tuple[int, float]:
    wanted = dict(reversed(ranges))
    candidates = ("*/*", f"{offer.partition('/')[0]}/*", offer)
    for exactness in (_EXACT, 1, 0):
        if (weight := wanted.get(candidates[exactness])) is not None:
            return exactness, weight
    return 0, 0.0


def _parsed(accept: str) -> Sequence[tuple[str, float]]:
    ranges = []
    for part in accept.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        if name:
            ranges.append((name, _weight(parameters)))
    return ranges


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 0.0
    return 1.0


def is_json(content_type: str) -> bool:
    """Whether a Content-Type names JSON in UTF-8, the only body that is read.

    A page on another site can send any other type without asking first; so there is nothing to forge here.
    """
    name, *parameters = (piece.strip().lower() for piece in content_type.split(";"))
    charsets = {value.strip('" ') for key, _, value in (each.partition("=") for each in parameters) if key == "charset"}
    return name == JSON and charsets <= {"utf-8", "utf8"}
