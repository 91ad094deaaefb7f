"""Parse and validate once per document, not once per request."""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from graphql import (
    DirectiveNode,
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    VariableNode,
    Visitor,
    parse,
    validate,
    visit,
)
from graphql.validation import ASTValidationRule, specified_rules
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graph.execution.cost import DEFAULT, Limits, check_shape, weigh
from graph.execution.executor import Prepared
from graph.execution.inputs import Inputs, Variables
from graph.execution.sharing import sharing
from graph.language.errors import PARSE_FAILED, VALIDATION_FAILED, mark
from models.errors import TooComplex

_MAX_ERRORS = 20
_KEPT_CHARACTERS = 500_000
# What a document takes beside its text, in characters: its compiled plan. The shortest ones take 14 kB (measured).
_PLAN_CHARACTERS = 400
_LONGEST_KEPT = 20_000
# Python reads no number of more than 4,300 digits, and nobody writes one of a tenth of that.
_MOST_DIGITS = 400
_LONG_NUMBER = re.compile(rf"[0-9]{{{_MOST_DIGITS}}}")
# How graphql-core's parser says that it has stopped counting.
_TOO_LONG = "tokens. Parsing aborted"


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document and what is wrong with it; `tree` is None when it cannot be read at all."""

    tree: DocumentNode | None
    errors: tuple[GraphQLError, ...] = ()
    inputs: Inputs = field(default_factory=Inputs)
    prepared: dict[str | None, Prepared] = field(default_factory=dict)

    def prepare(self, schema: GraphQLSchema, operation: OperationDefinitionNode) -> Prepared:
        """Prepare one of its operations, once."""
        name = operation.name.value if operation.name else None
        found = self.prepared.get(name)
        if found is None:
            assert self.tree is not None  # noqa: S101  # it has operations
            conditions = _Conditions()
            visit(self.tree, conditions)
            found = self.prepared[name] = Prepared(
                node=operation,
                definitions={
                    each.name.value: each for each in self.tree.definitions if isinstance(each, FragmentDefinitionNode)
                },
                variables=Variables(self.inputs, schema, operation),
                conditions=sorted(conditions.found),
                weight=weigh(schema, self.tree, operation),
                sharing=sharing(schema, self.tree, operation),
            )
        return found


def _too_long(said: str, measure: str, actual: int, limit: int) -> TooComplex:
    message = f"This document has {said}. Send it in parts, and values as variables."
    return TooComplex(message, measure=measure, actual=actual, limit=limit)


def _refused(error: TooComplex) -> Document:
    return Document(None, (GraphQLError(error.message, original_error=error),))


class Documents:
    """The documents seen lately, each parsed and validated once. One per schema."""

    def __init__(self, *, limits: Limits = DEFAULT, introspection: bool = True) -> None:
        self._size = 0
        self._inputs = Inputs()
        self._limits = limits
        self._rules: tuple[type[ASTValidationRule], ...] = (
            *specified_rules,
            MaybeNullValidationRule,
            OneOfInputValidationRule,
        )
        if not introspection:
            self._rules += (NoSchemaIntrospectionCustomRule,)
        self._kept: OrderedDict[str, Document] = OrderedDict()

    def find(self, text: str, schema: GraphQLSchema) -> Document:
        """Give the document of a text, reading it when it is new."""
        if known := self._kept.get(text):
            self._kept.move_to_end(text)
            return known
        document = self._read(text, schema)
        if len(text) > _LONGEST_KEPT:
            return document
        # Counted in characters: a tree takes a hundred times the room of its text, and anybody may send any.
        self._kept[text] = document
        self._size += _PLAN_CHARACTERS + len(text)
        while self._size > _KEPT_CHARACTERS:
            self._size -= _PLAN_CHARACTERS + len(self._kept.popitem(last=False)[0])
        return document

    def _read(self, text: str, schema: GraphQLSchema) -> Document:
        most = self._limits.length
        if len(text) > most:
            # What is ignored counts too: graphql-core reads all of it again for the place of each error.
            return _refused(_too_long(f"more than {most} characters", "length", len(text), most))
        if _LONG_NUMBER.search(text):
            found = GraphQLError(
                f"A number of more than {_MOST_DIGITS} digits cannot be read. Send values as variables."
            )
            return Document(None, (mark(found, PARSE_FAILED),))
        try:
            tree = parse(text, max_tokens=self._limits.tokens)
        except (GraphQLError, RecursionError) as error:
            if _TOO_LONG in str(error):
                most = self._limits.tokens
                return _refused(_too_long(f"more than {most} tokens", "tokens", most + 1, most))
            found = error if isinstance(error, GraphQLError) else GraphQLError("The document is nested too deeply.")
            return Document(None, (mark(found, PARSE_FAILED),))
        try:
            # First: validation itself takes long over a document that is out of all proportion.
            check_shape(tree, self._limits)
        except TooComplex as error:
            return _refused(error)
        errors = validate(schema, tree, self._rules, max_errors=_MAX_ERRORS)
        _forget_tokens(tree)
        return Document(tree, tuple(mark(error, VALIDATION_FAILED) for error in errors), self._inputs)

    def extension(self) -> Callable[[], SchemaExtension]:
        """Give the factory of the extension by which Strawberry uses these documents."""
        return lambda: _FromDocuments(self)


def _forget_tokens(tree: DocumentNode) -> None:
    """Let go of the chain of tokens that a tree hangs on: half of what it takes, and places are known without it."""
    token = tree.loc.start_token if tree.loc else None
    while token:
        following, token.prev, token.next = token.next, None, None
        token = following


class _Conditions(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def enter_directive(self, node: DirectiveNode, *_: object) -> None:
        """Note the variables that decide."""
        if node.name.value in {"skip", "include"}:
            values = [each.value for each in node.arguments or ()]
            self.found |= {value.name.value for value in values if isinstance(value, VariableNode)}


class _FromDocuments(SchemaExtension):
    def __init__(self, documents: Documents) -> None:
        self._documents = documents

    def on_parse(self) -> Iterator[None]:
        """Take tree and errors from the kept document."""
        context = self.execution_context
        document = self._documents.find(context.query or "", context.schema._schema)  # noqa: SLF001  # Strawberry's
        if document.tree is None:
            raise document.errors[0]
        context.graphql_document = document.tree
        context.pre_execution_errors = list(document.errors)
        yield
