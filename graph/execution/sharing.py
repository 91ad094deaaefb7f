"""Who may share the answer to an event: what of a subscription depends on who asks, and with which variables."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    Node,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
)

from graph.language.describe import PERSONAL


@dataclass(frozen=True, slots=True)
class Sharing:
    """What an answer to an event depends on, beside the event and the rights of who asks."""

    is_personal: bool
    variables: frozenset[str]


def sharing(schema: GraphQLSchema, tree: DocumentNode, operation: OperationDefinitionNode) -> Sharing:
    """Look through a valid operation. Arguments of its root field only choose the events, and count for nothing."""
    looking = _Looking(
        schema, {each.name.value: each for each in tree.definitions if isinstance(each, FragmentDefinitionNode)}
    )
    looking.through(operation.selection_set, schema.get_root_type(operation.operation), is_root=True)
    return Sharing(looking.is_personal, frozenset(looking.variables))


class _Looking:
    def __init__(self, schema: GraphQLSchema, fragments: Mapping[str, FragmentDefinitionNode]) -> None:
        self._schema = schema
        self._fragments = fragments
        self._seen: set[tuple[str, bool]] = set()
        self.is_personal = False
        self.variables: set[str] = set()

    def through(self, selections: SelectionSetNode | None, parent: GraphQLNamedType | None, *, is_root: bool) -> None:
        for selection in selections.selections if selections else ():
            self.variables.update(_variables(selection.directives))
            if isinstance(selection, FieldNode):
                self._field(selection, parent, is_root=is_root)
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                inner = self._schema.get_type(condition.name.value) if condition else parent
                self.through(selection.selection_set, inner, is_root=is_root)
            elif isinstance(selection, FragmentSpreadNode):
                name = selection.name.value
                if name in self._fragments and (name, is_root) not in self._seen:
                    self._seen.add((name, is_root))
                    fragment = self._fragments[name]
                    inner = self._schema.get_type(fragment.type_condition.name.value)
                    self.through(fragment.selection_set, inner, is_root=is_root)

    def _field(self, node: FieldNode, parent: GraphQLNamedType | None, *, is_root: bool) -> None:
        if not is_root:
            self.variables.update(_variables(node.arguments))
        if isinstance(parent, GraphQLObjectType | GraphQLInterfaceType) and node.name.value in parent.fields:
            field = parent.fields[node.name.value]
            definition = field.extensions.get("strawberry-definition")
            self.is_personal = self.is_personal or bool(definition and definition.metadata.get(PERSONAL))
            self.through(node.selection_set, get_named_type(field.type), is_root=False)


def _variables(nodes: Any) -> Iterator[str]:  # noqa: ANN401  # a tuple of nodes, one, or none
    if isinstance(nodes, VariableNode):
        yield nodes.name.value
    elif isinstance(nodes, Node):
        for key in nodes.keys:
            yield from _variables(getattr(nodes, key))
    elif isinstance(nodes, list | tuple):
        for node in nodes:
            yield from _variables(node)
