"""What people and programs are told of an alert: the e-mail in text and HTML, and the webhook's body."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from html import escape
from typing import Any, Final

from models.alerts import rules
from models.alerts.rules import AlertMetric, AlertWindow
from models.store.database import Row, global_id

_UNITS: Final = {AlertMetric.MESSAGES.value: "messages", AlertMetric.COST.value: "US dollars"}
_WINDOWS: Final = {
    AlertWindow.LIFETIME.value: "since it is known",
    AlertWindow.HOUR.value: "in the hour that began {start}",
    AlertWindow.DAY.value: "in the day that began {start}",
    AlertWindow.WEEK.value: "in the week that began {start}",
    AlertWindow.MONTH.value: "in the month that began {start}",
}


@dataclass(frozen=True, slots=True)
class Letter:
    """An e-mail without its addresses."""

    subject: str
    text: str
    html: str


@dataclass(frozen=True, slots=True)
class Notice:
    """An alert with what it is about."""

    alert: Row
    agent: Row
    rule: Row

    @property
    def value(self) -> Decimal:
        """What was measured."""
        return rules.shown(self.alert["metric"], self.alert["value"])

    @property
    def threshold(self) -> Decimal:
        """The threshold at that moment."""
        return rules.shown(self.alert["metric"], self.alert["threshold"])


def letter(notice: Notice) -> Letter:
    """Write the e-mail. Names are escaped in HTML, and on one line in the subject."""
    alert, agent = notice.alert, " ".join(notice.agent["name"].split())
    unit = _UNITS.get(alert["metric"], "tokens")
    start = alert["window_start"]
    window = _WINDOWS[alert["window"]].format(start=_time(start) if start else "")
    facts = {
        "Agent": agent,
        "Measured": f"{_number(notice.value)} {_metric(alert['metric'])}, {window}",
        "Threshold": f"{_number(notice.threshold)} {unit}, at {alert['percent']} %",
        "Rule": " ".join(notice.rule["name"].split()),
        "Raised": _time(alert["raised_at"]),
        "Alert": global_id("Alert", alert["_id"]),
    }
    subject = f"{agent} has reached {alert['percent']} % of {_number(notice.threshold)} {unit}"
    closing = "You receive this as an admin of AgentHub. Acknowledge the alert there, or change its rule."
    lines = "\n".join(f"{name + ':':<11}{value}" for name, value in facts.items())
    rows = "".join(
        f'<tr><td style="padding:4px 16px 4px 0;color:#666">{escape(name)}</td>'
        f'<td style="padding:4px 0">{escape(value)}</td></tr>'
        for name, value in facts.items()
    )
    page = (
        f'<!doctype html><html><body style="font-family:sans-serif;color:#222">'
        f'<h2 style="font-size:18px">{escape(subject)}</h2><table>{rows}</table>'
        f'<p style="color:#666">{escape(closing)}</p></body></html>'
    )
    return Letter(subject, f"{subject}\n\n{lines}\n\n{closing}\n", page)


def body(notice: Notice) -> Mapping[str, Any]:
    """Write the webhook: ids as in GraphQL, amounts as strings so that none is rounded."""
    alert = notice.alert
    return {
        "type": "alert.raised",
        "timestamp": _iso(alert["raised_at"]),
        "data": {
            "alert": global_id("Alert", alert["_id"]),
            "agent": {"id": global_id("Agent", notice.agent["_id"]), "name": notice.agent["name"]},
            "rule": {"id": global_id("AlertRule", notice.rule["_id"]), "name": notice.rule["name"]},
            "metric": alert["metric"],
            "window": alert["window"],
            "windowStart": _iso(alert["window_start"]) if alert["window_start"] else None,
            "threshold": f"{notice.threshold:f}",
            "percent": alert["percent"],
            "value": f"{notice.value:f}",
        },
    }


def _metric(metric: str) -> str:
    return metric.lower().replace("_", " ") if metric != AlertMetric.COST else "US dollars"


def _number(value: Decimal) -> str:
    return f"{value.normalize():,f}"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def _iso(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
