"""Traces by OpenTelemetry, where they are asked for: a span for each request and operation, never what was sent in it.

Attributes are those of OpenTelemetry's conventions for HTTP and GraphQL. Starlette's own middleware would write down a
URL's query, in which a GET request carries its document.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Tracer

_NAME: Final = "agenthub"


class Tracing:
    """Makes spans; without an endpoint it makes none, and costs nothing."""

    def __init__(self, endpoint: str | None) -> None:
        """`endpoint`: of a collector that takes OTLP over HTTP, without `/v1/traces`."""
        self._provider: TracerProvider | None = None
        self._tracer: Tracer | None = None
        if endpoint:
            # Imported here: a tenth of a second at every start, for nothing where no trace is wanted.
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
            from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
            from opentelemetry.sdk.trace import TracerProvider as Provider  # noqa: PLC0415
            from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

            self._provider = Provider(resource=Resource.create({"service.name": _NAME}))
            exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=2)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
            self._tracer = self._provider.get_tracer(_NAME)

    def close(self) -> None:
        """Send what has not been sent yet, within a few seconds."""
        if self._provider:
            self._provider.shutdown()

    @contextmanager
    def request(self, method: str, headers: Mapping[str, str]) -> Iterator[None]:
        """Trace a request, as a part of the trace that its `traceparent` names."""
        if self._tracer is None:
            yield
            return
        from opentelemetry import propagate  # noqa: PLC0415
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        attributes = {"http.request.method": method, "http.route": "/graphql", "url.path": "/graphql"}
        with self._tracer.start_as_current_span(
            f"{method} /graphql", context=propagate.extract(headers), kind=SpanKind.SERVER, attributes=attributes
        ):
            yield

    @contextmanager
    def operation(self, kind: str, label: str) -> Iterator[None]:
        """Trace an operation; `label` is a name out of a bounded set."""
        if self._tracer is None:
            yield
            return
        attributes = {"graphql.operation.type": kind, "graphql.operation.name": label}
        with self._tracer.start_as_current_span(f"{kind} {label}", attributes=attributes):
            yield
