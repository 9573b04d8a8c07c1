"""The form of every error."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field

from esb_api.schemas.base import Answer


class FieldProblem(Answer):
    """One fault in what was sent."""

    path: Annotated[str, Field(description="Where: `healthCheck.interval`, `steps[2].config`; empty for the whole.")]
    message: Annotated[str, Field(description="What is wrong there.")]


class Problem(Answer):
    """An error as RFC 9457 has it. Build on `code`; the texts are for people and may change."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="`urn:esb:problem:{code}`.")]
    title: Annotated[str, Field(description="The kind of error.")]
    status: Annotated[int, Field(description="The HTTP status.")]
    detail: Annotated[str | None, Field(description="What happened this time.")] = None
    code: Annotated[str, Field(description="Stable name of the error, in snake_case.")]
    request_id: Annotated[str | None, Field(description="Names the request in the log.")] = None
    errors: Annotated[list[FieldProblem] | None, Field(description="The fields at fault.")] = None
