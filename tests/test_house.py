"""The house rules that a machine can check: sizes, words, permissions, names of the contract."""

import ast
import re
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLNonNull,
    GraphQLObjectType,
)

import resolvers
from graph import schema
from graph.language.guards import Allow
from graph.language.nodes import Node
from resolvers.nodes import _KINDS

ROOT = Path(__file__).parent.parent
ROOMS = ("models", "auth", "graph", "resolvers", "workers", "server")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
BUILT = schema.build(resolvers.ROOTS)
CORE = BUILT._schema  # noqa: SLF001  # Strawberry shows no public way to the schema it built
TYPES = [each for name, each in CORE.type_map.items() if not name.startswith("__") and name not in {"String", "Int", "Float", "Boolean", "ID"}]  # fmt: skip  # noqa: E501
LONGEST = 400
LONGER = {
    "graph/agents.py": "types and inputs of the widest domain stand together, one paragraph for each operation",
    "graph/alerts.py": "as graph/agents.py",
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_stays_short(path: Path) -> None:
    text = path.read_text()
    name = str(path.relative_to(ROOT))

    assert ast.get_docstring(ast.parse(text)), name
    assert len(text.splitlines()) <= LONGEST or name in LONGER, name
    assert not re.search(r"\bTODO\b|\bFIXME\b|\bXXX\b", text), name


def test_each_decision_has_a_number_of_its_own() -> None:
    numbers = [int(path.name[:4]) for path in sorted((ROOT / "docs" / "decisions").iterdir())]

    assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_everything_in_the_schema_is_described(kind: GraphQLNamedType) -> None:
    assert kind.description, kind.name
    if isinstance(kind, GraphQLEnumType):
        assert [name for name, value in kind.values.items() if not value.description] == []
    if isinstance(kind, GraphQLInputObjectType):
        assert [name for name, field in kind.fields.items() if not field.description] == []
    if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
        assert [name for name, field in kind.fields.items() if not field.description] == []
        arguments = [
            (name, argument)
            for name, field in kind.fields.items()
            for argument, it in field.args.items()
            if argument != "input" and not it.description
        ]
        assert arguments == []


@pytest.mark.parametrize("root", ["Query", "Mutation", "Subscription"])
def test_every_root_field_declares_who_may(root: str) -> None:
    definition = {"Query": BUILT.query, "Mutation": BUILT.mutation, "Subscription": BUILT.subscription}[root]
    assert definition is not None
    for field in definition.__strawberry_definition__.fields:  # type: ignore[attr-defined]  # Strawberry sets it
        allowed = [each for each in field.extensions if isinstance(each, Allow)]
        assert len(allowed) == 1, field.name
        assert allowed[0].permission.sentence in field.description


def test_a_mutation_is_nullable_and_takes_one_input_of_its_own() -> None:
    mutation = CORE.mutation_type
    assert mutation is not None
    for name, field in mutation.fields.items():
        assert not isinstance(field.type, GraphQLNonNull), name
        assert str(field.type) == f"{name[0].upper()}{name[1:]}Payload"
        expected = (
            {}
            if name in {"logout", "reloadOrganism", "stopServer"}
            else {"input": f"{name[0].upper()}{name[1:]}Input!"}
        )
        assert {argument: str(it.type) for argument, it in field.args.items()} == expected


def test_every_node_can_be_found_again() -> None:
    interface = CORE.type_map["Node"]
    assert isinstance(interface, GraphQLInterfaceType)
    implemented = {each.name for each in CORE.get_possible_types(interface)}

    assert implemented == set(_KINDS)
    assert all(issubclass(kind, Node) and kind.readable_by for kind in _KINDS.values())


def test_the_printed_schema_is_the_codes() -> None:
    assert (ROOT / "schema.graphql").read_text() == f"{BUILT.as_str()}\n"
