"""The REST API of the bus: parse, authorise, call the bus, answer. Nothing else happens here.

How to add an endpoint
----------------------
1. Describe what comes in and what goes out as pydantic models in `schemas/NOUN.py`: `schemas.base.Body` for
   request bodies (camelCase, strict, unknown fields refused), `schemas.base.Query` for query parameters,
   `schemas.base.Answer` for answers. They are the one source of validation and of the OpenAPI document.
2. Write the view in `resources/NOUN.py`:

       routes = Resource("routing")

       @routes.operation("POST", "/routing/routes", access=Access.OPERATOR, body=RouteBody,
                         answers={201: RouteAnswer}, refusals=(409,))
       def create_route(call: Call, body: RouteBody) -> Response:
           \"\"\"Create a route.

           What stands after the first line becomes the description in the OpenAPI document.
           \"\"\"
           ...
           return created(RouteAnswer(...), f"/routing/routes/{route_id}", etag=1)

   A PUT body comes without its read-only fields; a PATCH body comes raw, for `patches.merged`.
   Values of the path (`{id}`) come as positional arguments in order; `body` and `query` by keyword, when
   declared. A view raises from `esb_workers.errors`; `problems.py` translates once.
3. Name the resource in `resources/__init__.py`. The contract test holds answers and document together.

What `call` (the Flask request, extended: `call.py`) offers: `call.api` (engine, bus, registries, settings),
`call.principal` (who asks), `call.correlation_id`, `call.traceparent`, `call.request_id`.
"""
