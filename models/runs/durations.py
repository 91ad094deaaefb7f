"""How long a run took, in whichever of three ways it is said: as Go writes it, as ISO 8601 does, or in milliseconds."""

import re
from decimal import Decimal
from typing import Final

from models.errors import Fault

MOST_MS: Final = 366 * 24 * 3600 * 1000

_GO_PART: Final = re.compile(r"(\d{1,12}(?:\.\d{1,12})?|\.\d{1,12})(ns|us|µs|μs|ms|s|m|h)")
_GO: Final = re.compile(rf"(?:{_GO_PART.pattern})+", re.ASCII)
_GO_MS: Final = {
    "ns": Decimal("0.000001"),
    "us": Decimal("0.001"),
    "µs": Decimal("0.001"),
    "μs": Decimal("0.001"),
    "ms": Decimal(1),
    "s": Decimal(1000),
    "m": Decimal(60_000),
    "h": Decimal(3_600_000),
}
_NUMBER: Final = r"(\d{1,12}(?:[.,]\d{1,12})?)"
# Weeks, days and times; months and years are not so many milliseconds.
_ISO: Final = re.compile(
    rf"P(?:{_NUMBER}W)?(?:{_NUMBER}D)?(?:T(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?", re.ASCII
)
_ISO_MS: Final = (604_800_000, 86_400_000, 3_600_000, 60_000, 1000)
_LONGEST: Final = 64


def milliseconds(text: str) -> int | None:
    """Read a duration as Go writes it (`5m30s`, `1h2m3.5s`, `350ms`) or as ISO 8601 does (`PT5M30S`).

    Gives whole milliseconds, the last half rounded to even; None for what is neither, or negative.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    if text in {"0", "+0"}:
        return 0
    plain = text.removeprefix("+")
    if _GO.fullmatch(plain):
        return round(sum(Decimal(number) * _GO_MS[unit] for number, unit in _GO_PART.findall(plain)))
    if (found := _ISO.fullmatch(plain.upper())) and any(found.groups()) and not plain.upper().endswith("T"):
        parts = zip(found.groups(), _ISO_MS, strict=True)
        return round(sum(Decimal(number.replace(",", ".")) * each for number, each in parts if number))
    return None


def settle(text: str | None, given_ms: int | None) -> int | Fault | None:
    """Settle how long a run took from what is said of it; a fault where nothing can be made of it."""
    if given_ms is not None and not 0 <= given_ms <= MOST_MS:
        return Fault(("duration_ms",), f"A run takes 0 to {MOST_MS} ms.")
    if text is None:
        return given_ms
    read = milliseconds(text)
    if read is None:
        return Fault(("time_taken",), "Write a duration as 5m30s, 1h2m3.5s, 350ms or PT5M30S.")
    if read > MOST_MS:
        return Fault(("time_taken",), f"A run takes 0 to {MOST_MS} ms.")
    if given_ms is not None and given_ms != read:
        return Fault(("time_taken",), f"`timeTaken` is {read} ms, `durationMs` says {given_ms}. Send one, or the same.")
    return read
