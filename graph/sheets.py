"""Agents out of a spreadsheet, row by row."""

from collections.abc import Sequence

from graph.language.describe import input_type, object_type
from graph.language.enums import expose
from graph.language.errors import spell
from models import imports
from models.imports import Result

ImportOutcome = expose(imports.ImportOutcome)


@input_type
class ImportAgentsInput:
    """A sheet of agents, with a header. `GET /agents.csv` gives one."""

    csv: str
    """The sheet: columns separated by commas, semicolons or tabs. `name` must be among them; `description`, `project`,
    `discipline`, `status`, `auditStatus`, `tags` (separated by commas), `userbase`, `department`, `contactPerson` and
    `owner` (an e-mail) may be. What a column that is there leaves empty is cleared; other columns of the export are
    passed over. At most 10,000 rows."""
    dry_run: bool = False
    """True: say what would become of each row, and change nothing."""


@object_type
class ImportedRow:
    """What became of one row."""

    row: int
    """Its number as a spreadsheet shows it; the header is 1."""
    name: str
    """The agent's name as the row has it."""
    outcome: ImportOutcome  # type: ignore[valid-type]  # mypy takes an exposed enum for a variable
    """What became of it."""
    column: str | None
    """The column at fault; null when all is well, or the whole row is at fault."""
    code: str | None
    """As in `extensions.code` of errors; null when all is well."""
    message: str | None
    """What is wrong, and what to do about it; null when all is well."""

    @classmethod
    def of(cls, result: Result) -> "ImportedRow":
        """Shape a result."""
        error = result.error
        column = (error.field or "").partition(".")[0] if error else ""
        return cls(
            row=result.row,
            name=result.name,
            outcome=result.outcome,
            column=spell(column) or None,
            code=error.code if error else None,
            message=error.message if error else None,
        )


@object_type
class ImportAgentsPayload:
    """What became of the sheet. Rows that are refused keep none of the others from being taken."""

    created: int
    """Agents registered."""
    updated: int
    """Agents changed."""
    unchanged: int
    """Rows that said what was so already."""
    rejected: int
    """Rows of which nothing was done."""
    rows: list[ImportedRow]
    """Every row, in order."""

    @classmethod
    def of(cls, results: Sequence[Result]) -> "ImportAgentsPayload":
        """Shape results."""
        return cls(
            created=imports.count(results, imports.ImportOutcome.CREATED),
            updated=imports.count(results, imports.ImportOutcome.UPDATED),
            unchanged=imports.count(results, imports.ImportOutcome.UNCHANGED),
            rejected=imports.count(results, imports.ImportOutcome.REJECTED),
            rows=[ImportedRow.of(each) for each in results],
        )
