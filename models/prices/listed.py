"""The list of prices that is shipped: list prices of model makers' own APIs, for calls of ordinary length."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any, Final

ON: Final = date(2026, 10, 24)
"""As of when the list is right."""

_ALWAYS: Final = datetime(2000, 1, 1, tzinfo=UTC)
"""Where a model has had one price since it came out."""

_O3_CUT: Final = datetime(2025, 6, 10, tzinfo=UTC)
_LUNA_CUT: Final = datetime(2026, 7, 30, tzinfo=UTC)
_SOL_CUT: Final = datetime(2026, 8, 21, tzinfo=UTC)
_SONNET_CUT: Final = datetime(2026, 10, 7, tzinfo=UTC)

# Of each prefix: from when, then US dollars per million tokens for prompt, completion, cached and cache-write tokens.
# None where the maker has no price of its own for them. Cache writes are those that last five minutes; prompts above
# some hundred thousand tokens, batches and priority cost otherwise with some makers, and are not told apart here.
_LINES: Final[tuple[tuple[str, datetime, str, str, str | None, str | None], ...]] = (
    # Anthropic
    ("claude-fable-5-1", _ALWAYS, "10", "50", "0.25", "12.5"),
    ("claude-fable-5", _ALWAYS, "10", "50", "1", "12.5"),
    ("claude-opus-5-5", _ALWAYS, "4", "20", "0.2", "5"),
    ("claude-opus-5", _ALWAYS, "5", "25", "0.5", "6.25"),
    ("claude-opus-4-8", _ALWAYS, "5", "25", "0.5", "6.25"),
    ("claude-opus-4-7", _ALWAYS, "5", "25", "0.5", "6.25"),
    ("claude-opus-4-6", _ALWAYS, "5", "25", "0.5", "6.25"),
    ("claude-opus-4-5", _ALWAYS, "5", "25", "0.5", "6.25"),
    ("claude-opus-4", _ALWAYS, "15", "75", "1.5", "18.75"),
    ("claude-3-opus", _ALWAYS, "15", "75", "1.5", "18.75"),
    ("claude-sonnet-5-5", _ALWAYS, "2", "10", "0.2", "2.5"),
    ("claude-sonnet-5-5", _SONNET_CUT, "2", "10", "0.1", "2.5"),
    ("claude-sonnet-5", _ALWAYS, "2", "10", "0.2", "2.5"),
    ("claude-sonnet-4", _ALWAYS, "3", "15", "0.3", "3.75"),
    ("claude-3-7-sonnet", _ALWAYS, "3", "15", "0.3", "3.75"),
    ("claude-3-5-sonnet", _ALWAYS, "3", "15", "0.3", "3.75"),
    ("claude-haiku-5-5", _ALWAYS, "0.1", "0.5", "0.01", "0.125"),
    ("claude-haiku-4-5", _ALWAYS, "1", "5", "0.1", "1.25"),
    ("claude-3-5-haiku", _ALWAYS, "0.8", "4", "0.08", "1"),
    ("claude-3-haiku", _ALWAYS, "0.25", "1.25", "0.03", "0.3"),
    # OpenAI
    ("gpt-6-astra", _ALWAYS, "10", "50", "1", None),
    ("gpt-5.6", _ALWAYS, "5", "30", "0.5", "6.25"),
    ("gpt-5.6", _SOL_CUT, "4", "20", "0.4", "5"),
    ("gpt-5.6-terra", _ALWAYS, "2.5", "15", "0.25", "3.125"),
    ("gpt-5.6-terra", _LUNA_CUT, "2", "12", "0.2", "2.5"),
    ("gpt-5.6-luna", _ALWAYS, "1", "6", "0.1", "1.25"),
    ("gpt-5.6-luna", _LUNA_CUT, "0.2", "1.2", "0.02", "0.25"),
    ("gpt-5.5", _ALWAYS, "5", "30", "0.5", None),
    ("gpt-5.5-pro", _ALWAYS, "30", "180", None, None),
    ("gpt-5.4", _ALWAYS, "2.5", "15", "0.25", None),
    ("gpt-5.4-pro", _ALWAYS, "30", "180", None, None),
    ("gpt-5.4-mini", _ALWAYS, "0.75", "4.5", "0.075", None),
    ("gpt-5.4-nano", _ALWAYS, "0.2", "1.25", "0.02", None),
    ("gpt-5.3", _ALWAYS, "1.75", "14", "0.175", None),
    ("gpt-5.2", _ALWAYS, "1.75", "14", "0.175", None),
    ("gpt-5.2-pro", _ALWAYS, "21", "168", None, None),
    ("gpt-5.1", _ALWAYS, "1.25", "10", "0.125", None),
    ("gpt-5", _ALWAYS, "1.25", "10", "0.125", None),
    ("gpt-5-pro", _ALWAYS, "15", "120", None, None),
    ("gpt-5-mini", _ALWAYS, "0.25", "2", "0.025", None),
    ("gpt-5-nano", _ALWAYS, "0.05", "0.4", "0.005", None),
    ("gpt-4.1", _ALWAYS, "2", "8", "0.5", None),
    ("gpt-4.1-mini", _ALWAYS, "0.4", "1.6", "0.1", None),
    ("gpt-4.1-nano", _ALWAYS, "0.1", "0.4", "0.025", None),
    ("gpt-4o", _ALWAYS, "2.5", "10", "1.25", None),
    ("gpt-4o-mini", _ALWAYS, "0.15", "0.6", "0.075", None),
    ("o3", _ALWAYS, "10", "40", "2.5", None),
    ("o3", _O3_CUT, "2", "8", "0.5", None),
    ("o3-pro", _ALWAYS, "20", "80", None, None),
    ("o3-mini", _ALWAYS, "1.1", "4.4", "0.55", None),
    ("o4-mini", _ALWAYS, "1.1", "4.4", "0.275", None),
    # Google
    ("gemini-3.5-flash", _ALWAYS, "1.5", "9", "0.15", None),
    ("gemini-3.1-pro", _ALWAYS, "2", "12", "0.2", None),
    ("gemini-3.1-flash-lite", _ALWAYS, "0.25", "1.5", "0.025", None),
    ("gemini-3-pro", _ALWAYS, "2", "12", "0.2", None),
    ("gemini-3-flash", _ALWAYS, "0.5", "3", "0.05", None),
    ("gemini-2.5-pro", _ALWAYS, "1.25", "10", "0.125", None),
    ("gemini-2.5-flash", _ALWAYS, "0.3", "2.5", "0.03", None),
    ("gemini-2.5-flash-lite", _ALWAYS, "0.1", "0.4", "0.01", None),
    # Mistral
    ("mistral-medium-3-5", _ALWAYS, "1.5", "7.5", None, None),
    ("mistral-medium-3.5", _ALWAYS, "1.5", "7.5", None, None),
)


def lines() -> Iterator[dict[str, Any]]:
    """Give the list line by line, as admins would write them."""
    for prefix, start, prompt, completion, cached, cache_write in _LINES:
        yield {
            "model_prefix": prefix,
            "valid_from": start,
            "prompt": prompt,
            "completion": completion,
            "cached": cached,
            "cache_write": cache_write,
        }
