"""Conditions: the event-pattern language of Amazon EventBridge, over messages.

A pattern is an object shaped like the event; each leaf is a list of alternatives. Fields are and-ed, the
alternatives of a leaf or-ed, `$or` or-s whole groups of fields. The semantics are those of the reference
implementation (github.com/aws/event-ruler), arrays included: one match never combines fields from different
elements of the same array. As a superset, a bare value is allowed at top level under a known root, and header
names compare without regard to case.
"""

from esb_workers.expressions.patterns.conditions import Access, Conditions, compile_conditions
from esb_workers.expressions.patterns.events import ready
from esb_workers.expressions.patterns.index import ConditionIndex

#: What the top-level keys of a route's conditions may start with.
ROUTE_ROOTS = frozenset({"header", "headers", "payload", "source", "messageType", "correlationId"})

__all__ = ["ROUTE_ROOTS", "Access", "ConditionIndex", "Conditions", "compile_conditions", "ready"]
