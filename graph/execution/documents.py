"""Parse and validate once per document, not once per request."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from graphql import DocumentNode, GraphQLError, GraphQLSchema, NoSchemaIntrospectionCustomRule, parse, validate
from graphql.validation import ASTValidationRule, specified_rules
from strawberry.extensions import SchemaExtension
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from graph.language.errors import PARSE_FAILED, VALIDATION_FAILED, mark

_MAX_ERRORS = 20
_LONGEST_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed document and what is wrong with it; `tree` is None when it cannot be parsed."""

    tree: DocumentNode | None
    errors: tuple[GraphQLError, ...] = ()


class Documents:
    """The documents seen lately, each parsed and validated once. One per schema."""

    def __init__(self, *, size: int = 1000, max_tokens: int = 2000, introspection: bool = True) -> None:
        self._size = size
        self._max_tokens = max_tokens
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
        # A thousand documents of megabytes, each one long string, would fill the memory.
        if len(text) > _LONGEST_KEPT:
            return document
        self._kept[text] = document
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)
        return document

    def _read(self, text: str, schema: GraphQLSchema) -> Document:
        try:
            tree = parse(text, max_tokens=self._max_tokens)
        except (GraphQLError, RecursionError) as error:
            found = error if isinstance(error, GraphQLError) else GraphQLError("The document is nested too deeply.")
            return Document(None, (mark(found, PARSE_FAILED),))
        errors = validate(schema, tree, self._rules, max_errors=_MAX_ERRORS)
        return Document(tree, tuple(mark(error, VALIDATION_FAILED) for error in errors))

    def extension(self) -> Callable[[], SchemaExtension]:
        """Give the factory of the extension by which Strawberry uses these documents."""
        return lambda: _FromDocuments(self)


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
