"""Graphs of workflows and of runs, in the form that a caller asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from flask import Response

from esb_api.answers import answer
from esb_api.call import JSON, Call
from esb_api.schemas.orchestration import GraphAnswer, GraphEdge, GraphNode, GraphQuery
from esb_workers.orchestration import graphs
from esb_workers.orchestration.graphs import StepStates
from esb_workers.orchestration.model import Program

#: Media types of a picture; the first is what whoever takes anything gets.
_FORMS: Final = {JSON: "json", "image/svg+xml": "svg", "text/vnd.mermaid": "mermaid"}


def pictured(
    call: Call, query: GraphQuery, program: Program, states: Mapping[str, StepStates] | None = None
) -> Response:
    """`format` wins over `Accept`; without either, nodes and edges."""
    form = query.format or _FORMS.get(call.accept_mimetypes.best_match(_FORMS, default=JSON), "json")
    if form == "mermaid":
        return Response(graphs.as_mermaid(program, states), content_type="text/vnd.mermaid; charset=utf-8")
    if form == "svg":
        return Response(graphs.as_svg(program, states), content_type="image/svg+xml")
    data = graphs.as_data(program, states)
    nodes = [GraphNode(**node) for node in data["nodes"]]
    edges = [GraphEdge.model_validate(edge) for edge in data["edges"]]
    return answer(GraphAnswer(nodes=nodes, edges=edges))
