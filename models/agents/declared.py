"""What the file of an organism declares of an agent: to whom it speaks, and what may be sent to it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ConfigDict

from models.errors import Conflict
from models.store.database import Key


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadType:
    """One kind of message that an agent takes.

    `schema` (JSON Schema, Draft 2020-12) and `example` are JSON text: MongoDB's own meaning of `$` is not theirs.
    """

    name: str
    description: str = ""
    schema: str
    example: str | None = None


class Declaration(BaseModel):
    """An agent's place in the organism; `description` is the file's, that of the agent may have been edited since."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    is_agent: bool = True
    description: str = ""
    peers: list[Key] = []
    payload_types: list[PayloadType] = []
    endpoint: str | None = None
    capabilities: list[str] = []
    retired_at: datetime | None = None


def is_part(agent: Mapping[str, Any]) -> bool:
    """Whether an agent, as stored, is declared and not retired."""
    declared = agent.get("declared")
    return declared is not None and declared["retired_at"] is None


def is_agent(agent: Mapping[str, Any]) -> bool:
    """Whether an agent, as stored, is none that is declared as a plain listener, which answers nobody."""
    declared = agent.get("declared")
    return declared is None or bool(declared["is_agent"])


def is_retired(agent: Mapping[str, Any]) -> bool:
    """Whether an agent, as stored, was declared once and is no more: nothing may be sent to it."""
    declared = agent.get("declared")
    return declared is not None and declared["retired_at"] is not None


def without_secrets(url: str) -> str:
    """Give scheme, host, port and path of a URL: credentials stand in what is left out."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def refuse_part(agent: Mapping[str, Any], *, field: str) -> None:
    """Raise `Conflict` for an agent that the organism's file names: the file and its peers know it by that name."""
    if is_part(agent):
        raise Conflict(
            "This agent is declared by the organism's file. Change the file and reload it instead.", field=field
        )


def refuse_retired(agent: Mapping[str, Any], *, field: str) -> None:
    """Raise `Conflict` for an agent that the organism's file named once and names no more."""
    if is_retired(agent):
        raise Conflict(
            "This agent is retired: the organism's file names it no more. Nothing is sent to it or by it.", field=field
        )
