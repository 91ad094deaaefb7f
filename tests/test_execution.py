"""The generated executor against graphql-core's own, on generated documents, values and data, errors included."""

import asyncio
import gc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from inspect import isawaitable
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
import pytest
import strawberry
from graphql import (
    GraphQLEnumType,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLObjectType,
    OperationDefinitionNode,
    get_named_type,
    is_composite_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    parse,
    validate,
)
from graphql.execution.values import get_variable_values
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from strawberry.exceptions import StrawberryInputCoercionError
from strawberry.execution import optimized_is_awaitable
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.arguments import convert_argument

from auth.minting import Minting
from auth.passwords import Passwords
from auth.registration import Registration
from auth.signin import SignIn
from auth.tokens import TokenMaker
from auth.viewer import NOBODY, Viewer
from graph.context import Context, Services
from graph.execution.documents import Document
from graph.execution.executor import PlannedExecutor
from graph.execution.inputs import Inputs, Variables, converter
from graph.language.scalars import SCALARS
from graph.schema import build
from models import agents, ratings
from models.alerts.raised import Alert
from models.alerts.signing import Signing
from models.budgets.changing import Budgets
from models.errors import BadInput
from models.keys import ApiKeyScope
from models.organism.file import OrganismFile
from models.prices.keeping import Prices
from models.runs.happenings import Happenings
from models.runs.recording import Recording
from models.store import database
from models.store.commits import Commits
from models.store.database import Database, Key
from models.store.live import Live
from models.threads.events import ControlEvent
from models.threads.inboxes import Inboxes
from models.threads.messaging import Messaging
from models.threads.sending import Terms
from models.usage.counting import Batch, Counting
from models.usage.events import Event, UsageEvent
from models.usage.resets import Resetting
from models.usage.snapshots import Snapshots
from models.users import Role, User
from resolvers import ROOTS

SCHEMA = build(ROOTS)
CORE = SCHEMA._schema  # noqa: SLF001  # Strawberry shows no public way to the schema it built
REFERENCE = strawberry.Schema(*ROOTS, config=StrawberryConfig(scalar_map=SCALARS, disable_field_suggestions=True))
PLAIN = REFERENCE._schema  # noqa: SLF001  # as above
ZONE: Final = ZoneInfo("Europe/Berlin")
NOW: Final = datetime(2026, 5, 20, 22, 30, tzinfo=UTC)

# ---------------------------------------------------------------- a company, and some rows that nobody should ever see


@dataclass(frozen=True)
class Company:
    """What documents are run on."""

    services: Services
    viewers: dict[str, Viewer]


@pytest.fixture
async def company(store: Database) -> AsyncIterator[Company]:
    """Make people, agents, use and ratings, and agents whose rows are broken, each in another place."""
    passwords = Passwords("cheap")
    registration = Registration(passwords)
    people = [
        await registration.create(
            email=f"p{number}@example.com",
            name=f"Person {number}",
            password="correct horse",  # of a test
            role=Role.ADMIN if number == 0 else Role.USER,
            now=NOW,
        )
        for number in range(3)
    ]
    for number in range(6):
        await agents.create(
            {"name": f"Agent {number}", "discipline": "STRATEGY", "tags": ["a", "b"][: number % 3]},
            owner=people[number % 3]["_id"] if number else None,
            by_person=False,
            now=NOW - timedelta(days=number),
        )
    messaging = Messaging(Terms(), stored=lambda: None)
    async with Commits(UsageEvent) as commits, messaging:
        events = [
            Event(
                source="s",
                id=str(number),
                agent=f"Agent {number % 4}",
                at=NOW - timedelta(hours=7 * number),
                model=["", "a", "b"][number % 3] or None,
                prompt_tokens=10 * number,
                completion_tokens=number,
                user=f"u{number % 2}",
            )
            for number in range(12)
        ]
        await commits.submit(Counting(ZONE), Batch(events, NOW), weight=12)
        for number in range(4):
            agent = (await agents.require(f"Agent {number}"))["_id"]
            for person in people[: number + 1]:
                await ratings.rate(agent, by=person["_id"], stars=number + 1, comment=None, now=NOW)
        await _break("Agent 3", {"$set": {"status": "NONSENSE", "tags": ["a", None, 3]}})
        await _break("Agent 4", {"$unset": {"name": ""}, "$set": {"owner": Key()}})
        await _break("Agent 5", {"$set": {"description": 7, "created_at": "yesterday", "usage": {"messages": "many"}}})
        tokens = TokenMaker("0123456789abcdef0123456789abcdef", life=timedelta(hours=1))
        services = Services(
            commits=commits,
            counting=Counting(ZONE),
            snapshots=Snapshots(ZONE),
            prices=Prices(store),
            budgets=Budgets(),
            default_thread_tokens=100_000,
            resetting=Resetting(),
            recording=Recording(ZoneInfo("UTC")),
            happenings=Happenings(),
            live=Live(store, [Alert]),
            messaging=messaging,
            inboxes=Inboxes(Live(store, [ControlEvent]), messaging),
            signin=SignIn(passwords, tokens),
            registration=registration,
            minting=Minting(),
            signing=Signing("0123456789abcdef0123456789abcdef"),
            organism=OrganismFile(None),
            configuration=(),
            stop=lambda: 0,
            zone=ZONE,
        )
        admin, user, _ = (row["_id"] for row in people)
        yield Company(
            services,
            {
                "admin": Viewer(user=admin, role=Role.ADMIN, session=Key()),
                "user": Viewer(user=user, role=Role.USER, session=Key()),
                "key": Viewer(api_key=Key(), scopes=frozenset({ApiKeyScope.READ})),
                "nobody": NOBODY,
            },
        )
    await passwords.__aexit__(None, None, None)
    assert await database.collection(User).count_documents({}) == 3


async def _break(name: str, change: dict[str, Any]) -> None:
    await database.collection(agents.Agent).update_one({"name": name}, change)


# ---------------------------------------------------------------- documents

_ARGUMENTS: Final[dict[str, list[str]]] = {
    "first": ["1", "2", "3", "0", "null", "$few"],
    "last": ["1", "2"],
    "days": ["1", "3", "0", "$few"],
    "hours": ["1", "30"],
    "from": ['"2026-05-01"', "null"],
    "to": ['"2026-05-20"'],
    "search": ['"agent"', '"nothing like it"', "null"],
    "by": ['{name: "Agent 1"}', '{name: "Agent 3"}', '{name: "Nobody"}', '{id: "nonsense"}'],
    "order": ["{field: NAME}", "{field: TOTAL_TOKENS, direction: DESC}", "{field: CREATED_AT}"],
    "filter": ["{status: [ACTIVE]}", "{unclaimed: true}", "null"],
    "agent": ['{name: "Agent 2"}', '{name: "Nobody"}'],
    "id": ['"QWdlbnQ6MQ=="', '"nonsense"'],
}
_CONDITIONS: Final = ("", "", "", " @include(if: $yes)", " @skip(if: $yes)", " @skip(if: $no)", " @include(if: false)")


@st.composite
def selections(draw: st.DrawFn, kind: GraphQLObjectType, *, depth: int) -> str:
    """Select some fields of a type, some of them in fragments, some twice, some on conditions."""
    found = []
    usable = [
        (name, field)
        for name, field in kind.fields.items()
        if not any(is_required_argument(each) and name not in _ARGUMENTS for name, each in field.args.items())
        and (depth or not is_composite_type(get_named_type(field.type)))
        and not name.startswith("__")
    ]
    picked = draw(st.lists(st.sampled_from(usable), min_size=1, max_size=5)) if usable else []
    for place, (name, field) in enumerate(picked):
        # Fields of one name must agree in their arguments: each of them has a name of its own.
        text = f"f{depth}{place}: {name}" if field.args or draw(st.booleans()) else name
        arguments = [
            f"{argument}: {draw(st.sampled_from(_ARGUMENTS[argument]))}"
            for argument, each in field.args.items()
            if argument in _ARGUMENTS and (is_required_argument(each) or draw(st.integers(0, 3)) == 0)
        ]
        text += f"({', '.join(arguments)})" if arguments else ""
        text += draw(st.sampled_from(_CONDITIONS))
        inner = get_named_type(field.type)
        if isinstance(inner, GraphQLObjectType):
            text += f" {{ {draw(selections(inner, depth=depth - 1))} }}"
        elif is_composite_type(inner):
            text += " { __typename id ... on Agent { name } }"
        wrap = draw(st.integers(0, 9))
        if wrap == 0:
            text = f"... on {kind.name}{draw(st.sampled_from(_CONDITIONS))} {{ {text} }}"
        elif wrap == 1:
            text = f"...{draw(st.sampled_from(_CONDITIONS)).replace('...', '')} {{ {text} }}"
        found.append(text)
    if not found or draw(st.integers(0, 4)) == 0:
        found.append("__typename")
    return " ".join(found)


DOCUMENTS = selections(CORE.query_type, depth=5).map(  # type: ignore[arg-type]  # a schema without queries is none
    lambda text: (
        f"query ($yes: Boolean!, $no: Boolean!, $few: Int) {{ {text} kept: __typename @include(if: $yes) "
        "@skip(if: $no) rest: agents(first: $few) { totalCount } }"
    )
)


async def planned(document: str, variables: dict[str, Any], context: Context) -> tuple[Any, list[Any], bool]:
    """Run a document as the service does."""
    tree = parse(document)
    (node,) = tree.definitions
    assert isinstance(node, OperationDefinitionNode)
    prepared = Document(tree).prepare(CORE, node)
    context.kept = prepared.kept
    executor = PlannedExecutor.of(CORE, prepared, given=variables, context=context)
    assert isinstance(executor, PlannedExecutor), executor
    result: Any = executor.execute_operation()
    if isawaitable(result):
        result = await result
    executor.let_go()
    return result.data, _shown(result.errors), executor.surprised


async def plain(document: str, variables: dict[str, Any], context: Context) -> tuple[Any, list[Any]]:
    """Run a document by graphql-core and Strawberry alone."""
    executor = StrawberryGraphQLCoreExecutionContext.build(
        PLAIN,
        parse(document),
        context_value=context,
        raw_variable_values=variables,
        is_awaitable=optimized_is_awaitable,  # type: ignore[arg-type]  # a TypeGuard that says bool
    )
    assert isinstance(executor, StrawberryGraphQLCoreExecutionContext), executor
    result: Any = executor.execute_operation()
    if isawaitable(result):
        result = await result
    return result.data, _shown(result.errors)


def _shown(errors: list[GraphQLError] | None) -> list[Any]:
    # Those of fields side by side come in whatever order their reads end.
    found = [(str(each.path), each.message, str(each.locations)) for each in errors or ()]
    return sorted(found)


# graphql-core drops the coroutines of fields beside one that nulls their parent, some of them before they began.
@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
async def test_answers_are_graphql_cores_byte_for_byte(company: Company) -> None:
    seen = {"sound": 0, "faulty": 0, "unsurprised": 0}

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(document=DOCUMENTS, viewer=st.sampled_from(sorted(company.viewers)), few=st.sampled_from([1, 3, 0, None]))
    def compare(document: str, viewer: str, few: int | None) -> None:
        # Two fields of one name may conflict.
        assume(not validate(CORE, parse(document)))
        found.append((document, viewer, few))

    found: list[tuple[str, str, int | None]] = []
    compare()
    for document, viewer, few in found:
        variables = {"yes": True, "no": False, "few": few}

        def context(who: str = viewer) -> Context:
            return Context(company.services, NOW, request_id="r", address="127.0.0.1", viewer=company.viewers[who])

        data, errors, surprised = await planned(document, variables, context())
        expected, faults = await plain(document, variables, context())
        assert orjson.dumps(data) == orjson.dumps(expected), (viewer, few, document)
        if expected is None:
            # The whole answer is null: of errors side by side those are told that came before that.
            assert set(errors) & set(faults), document
        else:
            assert errors == faults, document
        seen["faulty" if faults else "sound"] += 1
        seen["unsurprised"] += not surprised

    # Or it would show nothing: some run into what is broken, and most need no second try.
    assert min(seen.values()) > 10, seen


PAGE = """{ agents(first: 50) { totalCount pageInfo { endCursor } edges { cursor node { id name
  usage { totalTokens cost } rating { average mine } owner { name } usageTimeline(days: 2) { day cost totalTokens }
  ratings(first: 2) {
  totalCount nodes { stars user { name } agent { name } } } } } } }"""


async def test_what_a_request_has_read_waits_for_no_collector_of_cycles(company: Company) -> None:
    await database.collection(agents.Agent).delete_many({"name": {"$nin": ["Agent 0", "Agent 1", "Agent 2"]}})
    context = Context(company.services, NOW, request_id="r", address="127.0.0.1", viewer=company.viewers["admin"])
    await planned(PAGE, {}, context)
    gc.collect()
    gc.disable()
    try:
        await planned(PAGE, {}, context)
        await asyncio.sleep(0)

        left = [each for each in gc.get_objects() if type(each) is PlannedExecutor]
    finally:
        gc.enable()
    assert not left


async def test_sound_data_is_read_without_a_second_try(company: Company) -> None:
    await database.collection(agents.Agent).delete_many({"name": {"$nin": ["Agent 0", "Agent 1", "Agent 2"]}})
    context = Context(company.services, NOW, request_id="r", address="127.0.0.1", viewer=company.viewers["admin"])

    data, errors, surprised = await planned(PAGE, {}, context)

    assert (len(data["agents"]["edges"]), errors, surprised) == (3, [], False)


@pytest.mark.parametrize("name", sorted(CORE.type_map["Agent"].fields))  # type: ignore[attr-defined]  # an object type
async def test_each_field_alone_is_what_it_is_among_all(company: Company, name: str) -> None:
    """A field that reads more of its row than it says would find nothing there."""
    await database.collection(agents.Agent).delete_many({"name": {"$nin": ["Agent 0", "Agent 1", "Agent 2"]}})
    kind = CORE.type_map["Agent"]
    assert isinstance(kind, GraphQLObjectType)
    inner = get_named_type(kind.fields[name].type)
    leaves = [each for each, field in inner.fields.items() if is_leaf_type(get_named_type(field.type))] if (
        isinstance(inner, GraphQLObjectType)
    ) else []  # fmt: skip
    for text in (
        [name] if not is_composite_type(inner) else [f"{name} {{ {leaf} }}" for leaf in [*leaves, "__typename"]]
    ):
        context = Context(company.services, NOW, request_id="r", address="127.0.0.1", viewer=company.viewers["admin"])
        document = f"{{ agents {{ nodes {{ {text} }} }} }}"

        data, errors, surprised = await planned(document, {}, context)

        assert (errors, surprised) == ([], False), document
        assert data == (await plain(document, {}, context))[0]


# ---------------------------------------------------------------- inputs

INPUTS = sorted(
    name
    for name, kind in CORE.type_map.items()
    if isinstance(kind, GraphQLInputObjectType) and not name.startswith("__")
)
_SOUND: Final[dict[str, st.SearchStrategy[Any]]] = {
    "String": st.text(max_size=5),
    "ID": st.text(max_size=5),
    "Boolean": st.booleans(),
    "Int": st.integers(-3, 3),
    "Float": st.floats(allow_nan=False, allow_infinity=False),
    "BigInt": st.integers(-3, 2**53 - 1),
    "Decimal": st.sampled_from(["12.5", 3, 0.001]),
    "DateTime": st.sampled_from(
        ["2026-05-01T09:30:00Z", "2026-05-01T09:30:00.123456789+02:00", "2026-05-01 09:30Z", "2026-05-01T09:30:00.1Z"]
    ),
    "Date": st.just("2026-05-01"),
    "JSON": st.sampled_from([{"a": [1]}, 3]),
}
_ODD: Final[st.SearchStrategy[Any]] = st.sampled_from(
    [None, 7, 1.5, 2.0, 2**31, 2**53, True, "1", "NaN", 1e300, "2026-05-01T09:30:00", "9999-12-31T23:59:59-14:00",
     "2026-02-30T00:00:00Z", "2026-5-1", [], {}]
)  # fmt: skip


def values(kind: Any, *, depth: int = 3) -> st.SearchStrategy[Any]:
    """Write JSON for an input type: mostly what it wants."""
    if is_non_null_type(kind):
        return st.one_of(*[values(kind.of_type, depth=depth)] * 30, st.none())
    if is_list_type(kind):
        inner = values(kind.of_type, depth=depth - 1)
        return st.one_of(*[st.lists(inner, max_size=2)] * 9, inner)
    if isinstance(kind, GraphQLEnumType):
        return st.one_of(*[st.sampled_from(list(kind.values))] * 30, _ODD)
    if isinstance(kind, GraphQLInputObjectType):
        if depth <= 0:
            return st.just({})
        given_fields = {
            name: values(field.type, depth=depth - 1)
            for name, field in kind.fields.items()
        }  # fmt: skip
        required = {name: each for name, each in given_fields.items() if is_non_null_type(kind.fields[name].type)}
        optional = {name: each for name, each in given_fields.items() if name not in required}
        sound = st.fixed_dictionaries(required, optional=optional)
        if kind.extensions["strawberry-definition"].is_one_of:
            sound = st.one_of(
                *(st.fixed_dictionaries({name: each}) for name, each in given_fields.items() for _ in range(9)), sound
            )
        return st.one_of(*[sound] * 9, st.just({"nonsense": 1}), st.just("nonsense"))
    return st.one_of(*[_SOUND[kind.name]] * 30, _ODD)


@pytest.mark.parametrize("name", INPUTS)
def test_inputs_are_read_as_graphql_core_and_strawberry_read_them(name: str) -> None:
    kind = CORE.type_map[name]
    origin = kind.extensions["strawberry-definition"].origin
    tree = parse(f"query ($value: {name}) {{ __typename }}")
    (node,) = tree.definitions
    assert isinstance(node, OperationDefinitionNode)
    variables = Variables(Inputs(), CORE, node)
    taken = []

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None, derandomize=True)
    @given(value=values(kind))
    def compare(value: Any) -> None:  # JSON
        ours = variables.read({"value": value})
        theirs = get_variable_values(CORE, node.variable_definitions or (), {"value": value})
        if isinstance(theirs, list):
            # What is wrong is graphql-core's to say.
            assert ours is None, value
            return
        read = theirs.coerced["value"]
        registry = REFERENCE.schema_converter.scalar_registry
        try:
            expected = convert_argument(read, origin, registry, REFERENCE.config) if read is not None else None
        except StrawberryInputCoercionError:
            assert ours is None
            with pytest.raises(BadInput, match="cannot be null"):
                converter(origin)(read)
            return
        assert repr(converter(origin)(read) if read is not None else None) == repr(expected)
        if ours is not None:
            taken.append(value)
            assert repr(ours.coerced["value"]) == repr(expected)

    compare()
    assert taken


def test_documents_seen_lately_are_kept_and_short_ones_too_take_room() -> None:
    documents = build(ROOTS).documents
    first = documents.find("{ me { id } }", CORE)
    assert documents.find("{ me { id } }", CORE) is first

    for number in range(1300):
        documents.find(f"{{ a{number}: me {{ id }} }}", CORE)

    assert documents.find("{ me { id } }", CORE) is not first
