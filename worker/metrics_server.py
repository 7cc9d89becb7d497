"""Where `--metrics-port` listens: /metrics for Prometheus, /healthz and /readyz for whoever runs containers."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from promptmill.producer.errors import PromptmillError
from promptmill.worker.host import Host
from promptmill.worker.metrics import Metrics
from promptmill.worker.observers import Observer

logger = logging.getLogger(__name__)

READY = ("ready", "rendering")
"""The states of a worker that claims jobs."""

HUNG_AFTER = 0.5
"""Of --hang-timeout, for which a batch is on the device before the worker is called unhealthy."""

Answer = tuple[HTTPStatus, str]
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def is_healthy(host: Host) -> Answer:
    """503 where only a restart helps: the device hangs."""
    fetching, limit_s = host.fetching, host.settings.hang_timeout_s * HUNG_AFTER
    waited_s = time.monotonic() - fetching[1] if fetching else 0.0
    if limit_s and waited_s > limit_s:
        return HTTPStatus.SERVICE_UNAVAILABLE, f"the device is at one batch for {waited_s:.0f} s"
    return HTTPStatus.OK, "ok"


def is_ready(host: Host) -> Answer:
    """503 where it claims no jobs: it starts, compiles with nothing else to render, or stops."""
    state = host.report.now().state
    return HTTPStatus.OK if state in READY else HTTPStatus.SERVICE_UNAVAILABLE, state


def serve_metrics(host: Host, listeners: Sequence[Observer]) -> None:
    """Start to serve, where the settings want it, in a thread that ends with the process. Raises PromptmillError."""
    metrics = next((one for one in listeners if isinstance(one, Metrics)), None)
    if metrics is None:
        return
    address, port = host.settings.metrics_address, int(host.settings.metrics_port or 0)
    try:
        server = make_server(address, port, _app(host, metrics), _Server, _Quiet)
    except OSError as error:
        raise PromptmillError(f"--metrics-port: cannot listen on {address}:{port}: {error.strerror}") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    logger.info("metrics at http://%s:%d/metrics", address, server.server_port)


def _app(host: Host, metrics: Metrics) -> App:
    from prometheus_client import make_wsgi_app

    looks = {"/healthz": is_healthy, "/readyz": is_ready}
    told: Any = make_wsgi_app(metrics.registry)

    def app(request: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = request["PATH_INFO"]
        if path == "/metrics":
            found: Iterable[bytes] = told(request, start_response)
            return found
        look = looks.get(path)
        status, text = look(host) if look else (HTTPStatus.NOT_FOUND, f"try {' '.join(['/metrics', *looks])}")
        start_response(f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")])
        return [f"{text}\n".encode()]

    return app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no news."""
