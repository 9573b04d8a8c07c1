"""The types of columns, and what all tables belong to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ARRAY, DateTime, MetaData, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

ID = Uuid(as_uuid=False)
Moment = DateTime(timezone=True)
Words = ARRAY(Text)
#: None is SQL's null, not JSON's: `health_check is null` must mean that there is none.
Json = JSONB(none_as_null=True)


class Letter(UserDefinedType[str]):
    """PostgreSQL's one-byte type `"char"`."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return '"char"'


metadata = MetaData()
