"""JSON lines with the request id; plain lines in a terminal. Never a variable, a token or a document's text."""

import logging
import sys
from typing import Any

import orjson
import structlog
from structlog.typing import Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def configure(level: str) -> None:
    """Set up logging for this process, the libraries' own included; everything goes to standard error."""
    weight = logging.getLevelNamesMapping()[level.upper()]
    render: list[Processor]
    if sys.stderr.isatty():
        # The default formatter of a terminal shows the local variables of every frame: passwords and tokens.
        render = [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    else:
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_dumps)]
    structlog.configure(
        processors=[*_SHARED, *render],
        wrapper_class=structlog.make_filtering_bound_logger(weight),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(weight, logging.WARNING), force=True)
    # It logs every socket and every step of its start.
    logging.getLogger("uvicorn").setLevel(max(weight, logging.WARNING))


def _dumps(line: dict[str, Any], **_: object) -> str:
    return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode(errors="replace")
