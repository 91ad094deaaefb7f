"""What the file of an organism may say: its agents, capabilities, budget and alert rules; every fault with its line."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    StrictBool,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from models import payloads, text
from models.agents.declared import PayloadType
from models.alerts import rules
from models.budgets.accounts import MOST_TOKENS
from models.errors import BadInput, Path
from models.organism.reading import Node, Reader, plain, told
from models.threads.warnings import PAYLOAD_TYPE

MOST_AGENTS: Final = 500
MOST_PER_AGENT: Final = 50
MOST_CAPABILITIES: Final = 200
MOST_ALERT_RULES: Final = 100

Name = Annotated[str, text.Line(200)]
Words = Annotated[str, text.Lines(10_000)]
Names = Annotated[list[Name], Field(max_length=MOST_PER_AGENT)]


def _url(value: str) -> str:
    TypeAdapter(HttpUrl).validate_python(value)
    return value


class _Part(BaseModel):
    """Keys are spelled as in the schema of the API; one that is not known is a mistake."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, frozen=True, hide_input_in_errors=True)


class _Payload(_Part):
    name: Annotated[str, text.Line(100)]
    description: Words = ""
    schema_: Any = Field(alias="schema")
    example: Any = None

    def kept(self) -> PayloadType:
        """Write it as stored."""
        return PayloadType(
            name=self.name,
            description=self.description,
            schema=orjson.dumps(self.schema_).decode(),
            example=orjson.dumps(self.example).decode() if "example" in self.model_fields_set else None,
        )


class _Agent(_Part):
    name: Name
    description: Words = ""
    is_agent: StrictBool = True
    peers: Names = []
    endpoint: Annotated[str, text.Line(2000), AfterValidator(_url)] | None = None
    capabilities: Names = []
    payload_types: Annotated[list[_Payload], Field(max_length=MOST_PER_AGENT)] = []


class _Budget(_Part):
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=MOST_TOKENS)] | None = None


class _AlertRule(rules.AlertRuleFields):
    """A rule as the API takes it, but for its agent, which goes by name here."""

    model_config = ConfigDict(
        extra="forbid", alias_generator=to_camel, arbitrary_types_allowed=True, hide_input_in_errors=True
    )

    agent: Name | None = None  # type: ignore[assignment]  # it has a key only once it is registered

    @model_validator(mode="after")
    def _fits(self) -> Self:
        try:
            self.kept()
        except BadInput as error:
            raise ValueError(error.message) from None
        return self

    def kept(self) -> dict[str, Any]:
        """Write it as stored, but for its agent's name."""
        return rules.kept(self.model_dump())


class _File(_Part):
    name: Name
    description: Words = ""
    budget: _Budget = _Budget()
    agents: Annotated[list[_Agent], Field(max_length=MOST_AGENTS)] = []
    capabilities: Annotated[list[_Payload], Field(max_length=MOST_CAPABILITIES)] = []
    alert_rules: Annotated[list[_AlertRule], Field(max_length=MOST_ALERT_RULES)] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One agent as declared; `peers` by name."""

    name: str
    description: str
    is_agent: bool
    peers: Sequence[str]
    endpoint: str | None
    capabilities: Sequence[str]
    payload_types: Sequence[PayloadType]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """All that a file declares. `budget`: tokens; of an alert rule: its fields as stored, but for its agent's name."""

    name: str
    description: str
    budget: int | None
    agents: Sequence[Member]
    capabilities: Sequence[PayloadType]
    alert_rules: Sequence[Mapping[str, Any]]


def declared(content: bytes) -> Declared:
    """Read a file. Raises `BadInput` with every fault, each with its line."""
    reader = Reader()
    root = reader.read(content)
    faults = list(reader.faults)
    if root is None:
        raise BadInput(told(faults))
    try:
        file = _File.model_validate(plain(root))
    except ValidationError as error:
        file = None
        faults += [_spoken(root, each) for each in error.errors(include_url=False)]
    faults += [(path, root.at(path).line, message) for path, message in _across(root)]
    if faults or file is None:
        raise BadInput(told(faults))
    return Declared(
        name=file.name,
        description=file.description,
        budget=file.budget.max_tokens,
        agents=[
            Member(
                name=each.name,
                description=each.description,
                is_agent=each.is_agent,
                peers=each.peers,
                endpoint=each.endpoint,
                capabilities=each.capabilities,
                payload_types=[payload.kept() for payload in each.payload_types],
            )
            for each in file.agents
        ],
        capabilities=[each.kept() for each in file.capabilities],
        alert_rules=[each.kept() for each in file.alert_rules],
    )


# ---------------------------------------------------------------- faults


def _spoken(root: Node, error: Any) -> tuple[Path, int, str]:  # noqa: ANN401  # pydantic's own record
    path = tuple(error["loc"])
    if error["type"] == "extra_forbidden":
        return path, root.at(path).line, f"There is no key `{path[-1]}` here. Leave it out, or mend its spelling."
    if error["type"] == "missing":
        return path, root.at(path).line, f"`{path[-1]}` is missing here."
    if error["type"] == "model_type":
        return path, root.at(path).line, "A mapping of keys to values is expected here."
    return path, root.at(path).line, str(error["msg"]).removeprefix("Value error, ")


def _across(root: Node) -> Iterator[tuple[Path, str]]:
    """Find what no value shows by itself: what is named twice, names nothing, or does not fit its schema.

    It looks at what stands in the file, whatever else is wrong with it, so that all is told at once.
    """
    agents = {each.text("name") for each in root.items("agents")}
    capabilities = {each.text("name") for each in root.items("capabilities")}
    checked: dict[bytes, list[tuple[Path, str]]] = {}
    for part in ("agents", "capabilities", "alertRules"):
        yield from _twice(root, (part,), (each.text("name") for each in root.items(part)))
    for place, agent in enumerate(root.items("agents")):
        here: Path = ("agents", place)
        yield from _known(agent, (*here, "peers"), agents, kind="agent")
        yield from _known(agent, (*here, "capabilities"), capabilities, kind="capability")
        of_it = agent.items("payloadTypes")
        yield from _twice(root, (*here, "payloadTypes"), (each.text("name") for each in of_it))
        for which, payload in enumerate(of_it):
            if payload.text("name") == PAYLOAD_TYPE:
                message = (
                    f"{PAYLOAD_TYPE!r} is what the service itself tells agents of their budget. Choose another name."
                )
                yield (*here, "payloadTypes", which, "name"), message
            yield from _sound(payload, (*here, "payloadTypes", which), checked)
    for place, capability in enumerate(root.items("capabilities")):
        yield from _sound(capability, ("capabilities", place), checked)
    for place, rule in enumerate(root.items("alertRules")):
        if (name := rule.text("agent")) and name not in agents:
            yield ("alertRules", place, "agent"), f"There is no agent {name!r} in this file."


def _twice(root: Node, path: Path, names: Iterable[str | None]) -> Iterator[tuple[Path, str]]:
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        if name is not None and name in first:
            line = root.at((*path, first[name])).line
            yield (*path, place, "name"), f"{name!r} is declared already, in line {line}."
        elif name is not None:
            first[name] = place


def _known(agent: Node, path: Path, known: Collection[str | None], *, kind: str) -> Iterator[tuple[Path, str]]:
    seen = set()
    for place, each in enumerate(agent.items(str(path[-1]))):
        if not isinstance(each.value, str):
            continue
        name = each.value.strip()
        if name not in known:
            yield (*path, place), f"There is no {kind} {name!r} in this file."
        elif name in seen:
            yield (*path, place), f"{name!r} stands twice in this list."
        seen.add(name)


def _sound(payload: Node, path: Path, checked: dict[bytes, list[tuple[Path, str]]]) -> Iterator[tuple[Path, str]]:
    """Check a schema and its example; one that many agents share is `checked` once (measured: 0.6 ms each)."""
    said = payload.value if isinstance(payload.value, dict) else {}
    if "schema" not in said:
        return
    schema = plain(said["schema"])
    text = orjson.dumps(schema)
    broken = checked[text] = checked[text] if text in checked else payloads.faults(schema)
    yield from (((*path, "schema", *place), message) for place, message in broken)
    if not broken and "example" in said and (unfit := payloads.fault(schema, plain(said["example"]))):
        place, message = unfit
        yield (*path, "example", *place), f"The example does not fit the schema: {message}"
