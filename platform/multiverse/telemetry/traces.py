"""OpenTelemetry spans of requests, sent by OTLP over HTTP where an endpoint is configured. Nothing is done where not.

    request (router)
      segment ............ run (replica)
      branch
        segment .......... run (replica)
      join
      reduce (reducer)

``OTEL_EXPORTER_OTLP_ENDPOINT`` switches it on; the SDK reads its other variables too, such as ``OTEL_SERVICE_NAME`` and
``OTEL_TRACES_SAMPLER``. Spans hold ids and counts, never text. Parents are told by W3C's ``traceparent``, as a string,
because they pass between tasks and processes that share no context.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


@cache
def _provider() -> "TracerProvider | None":
    """This process's own, made at the first span; None: nobody wants spans."""
    if not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    name = os.environ.get("OTEL_SERVICE_NAME") or "multiverse"
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def enabled() -> bool:
    return _provider() is not None


@contextmanager
def span(
    name: str, parent: str = "", refusal: type[Exception] | tuple[()] = (), **attributes: str | int | float | bool
) -> Iterator[str]:
    """A span around what is done inside; an error that leaves it is noted. Gives its ``traceparent``, "" where off.

    parent: the ``traceparent`` of the span it belongs to; "": it begins a trace. refusal: raised where a request is at
    fault, which is no error of the span. attributes: under ``multiverse.``.
    """
    provider = _provider()
    if provider is None:
        yield ""
        return
    from opentelemetry.context import Context
    from opentelemetry.trace import Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    # An empty context, not the task's: what else traces in this process is no part of it. Nor is the span made the
    # current one: generators end in other contexts than they begin in.
    context = propagator.extract({"traceparent": parent}, Context())
    named: dict[str, Any] = {f"multiverse.{key}": value for key, value in attributes.items()}
    made = provider.get_tracer("multiverse").start_span(name, context, attributes=named)
    carrier: dict[str, str] = {}
    propagator.inject(carrier, set_span_in_context(made, Context()))
    try:
        yield carrier["traceparent"]
    except Exception as error:
        if not isinstance(error, refusal):
            # Its message may have a client's text in it.
            made.set_status(Status(StatusCode.ERROR, type(error).__name__))
        raise
    finally:
        made.end()


def flush() -> None:
    """Send what is still here."""
    if (provider := _provider()) is not None:
        provider.force_flush()
