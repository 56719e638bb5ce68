"""Errors in OpenAI's form."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from multiverse.validation import explain


@dataclass(eq=False)  # not frozen: raising an exception sets its traceback
class ApiError(Exception):
    """A request that is refused or failed. ``param``: the field it is about; ``status``: the HTTP status."""

    status: int
    message: str
    param: str | None = None
    code: str | None = None

    def body(self) -> dict[str, Any]:
        """OpenAI's error object."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def __str__(self) -> str:
        return self.message


def bad(param: str, message: str, code: str | None = None) -> ApiError:
    """A 400 about one field."""
    return ApiError(400, message, param, code)


def from_validation(error: ValidationError) -> ApiError:
    """A 400 for what the body's schema refuses."""
    field, message = explain(error)
    return ApiError(400, message, field or None)
