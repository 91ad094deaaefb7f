"""The playground's page: GraphiQL as built from `playground/`, served by ourselves; it asks no other host."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; "
        "worker-src 'self' blob:; connect-src 'self' ws: wss:; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_NOT_BUILT: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>AgentHub</title>
<style>body { font: 1rem/1.5 system-ui; max-width: 42rem; margin: 4rem auto; padding: 0 1rem }
pre { background: #8882; padding: 1rem; overflow-x: auto }</style>
<h1>AgentHub answers here</h1>
<p>The playground has not been built: that needs Node.js 20 or newer and is done by <code>make playground</code>.
The service itself is complete without it. A first query:</p>
<pre>curl -s http://127.0.0.1:8000/graphql -H 'Content-Type: application/json' \\
  -d '{"query": "{ ratingFramework { stars title meaning } }"}'</pre>
</html>
"""


class _Files(StaticFiles):
    """The build's files, under the same rules as the page."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Add what a browser is to keep to."""
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def routes(dist: Path) -> Sequence[BaseRoute]:
    """Serve what the build made, under /playground."""
    return [Mount("/playground", _Files(directory=dist, check_dir=False))]


def page(dist: Path) -> Response:
    """Answer a browser at /graphql: with the playground, or with how to build it."""
    built = dist / "index.html"
    if built.is_file():
        return FileResponse(built, headers=_HEADERS)
    return HTMLResponse(_NOT_BUILT, headers=_HEADERS)
