"""Errors in OpenAI's form."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from multiverse.serving.access.refusals import Reason, Refused
from multiverse.validation import explain

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_REFUSALS: dict[Reason, tuple[int, str]] = {
    "unauthorized": (401, "invalid_api_key"),
    "not_local": (403, "no_api_keys"),
    "width": (403, "limit_exceeded"),
    "concurrency": (429, "rate_limit_exceeded"),
    "tokens_per_minute": (429, "rate_limit_exceeded"),
    "queue_full": (429, "overloaded"),
    "kv": (429, "overloaded"),
}
"""Status and code."""


@dataclass(eq=False)  # not frozen: raising an exception sets its traceback
class ApiError(Exception):
    """A request that is refused or failed. ``param``: the field it is about; ``status``: the HTTP status."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), self.status, dict(self.headers))

    def __str__(self) -> str:
        return self.message


def bad(param: str, message: str, code: str | None = None) -> ApiError:
    """A 400 about one field."""
    return ApiError(400, message, param, code)


def from_validation(error: ValidationError) -> ApiError:
    """A 400 for what the body's schema refuses."""
    field, message = explain(error)
    return ApiError(400, message, field or None)


def from_refusal(refusal: Refused) -> ApiError:
    """401, 403 or 429, with the headers that go with them."""
    status, code = _REFUSALS[refusal.reason]
    headers = {"www-authenticate": "Bearer"} if status == 401 else {}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(math.ceil(refusal.retry_after))
    return ApiError(status, refusal.message, refusal.param, code, headers)
