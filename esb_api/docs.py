"""`/docs`: Swagger UI over `/openapi.json`, served from this machine; the page asks no other host for anything."""

from __future__ import annotations

from importlib import resources
from typing import Final

from flask import Flask, Response, redirect

#: Asset → content type. The files come with the package flask-openapi3-swagger (Swagger UI 5, for OpenAPI 3.1);
#: only its files are used.
_ASSETS: Final = {
    "css/swagger-ui.css": "text/css; charset=utf-8",
    "js/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "images/swagger.svg": "image/svg+xml",
}

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Enterprise Service Bus: REST API</title>
<link rel="icon" href="docs/assets/images/swagger.svg">
<link rel="stylesheet" href="docs/assets/css/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/assets/js/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""
#: A file of its own, so that the page's policy can forbid inline scripts.
_START: Final = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, persistAuthorization: false,
  tryItOutEnabled: false, validatorUrl: null
});
"""
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def register(app: Flask) -> None:
    """Serve the page's assets, and lead `/` to it."""
    app.add_url_rule("/", "root", lambda: redirect("/docs", 302), methods=["GET"])
    app.add_url_rule("/docs/assets/start.js", "docs_start", _start, methods=["GET"])
    for name in _ASSETS:
        app.add_url_rule(f"/docs/assets/{name}", f"docs_{name}", _asset, methods=["GET"], defaults={"name": name})


def page() -> Response:
    """The page itself."""
    return Response(_PAGE, content_type="text/html; charset=utf-8", headers={"Content-Security-Policy": _POLICY})


def _start() -> Response:
    return Response(_START, content_type=_ASSETS["js/swagger-ui-bundle.js"])


def _asset(name: str) -> Response:
    file = resources.files("flask_openapi3_swagger").joinpath("templates", "swagger", *name.split("/"))
    return Response(file.read_bytes(), content_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"})
