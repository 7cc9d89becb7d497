"""`promptmill exporter`: what a Redis knows, as metrics for Prometheus."""

import threading

import click

from promptmill.producer.broker import DEFAULT_URL
from promptmill.verbs.options import broker_option


@click.command("exporter")
@broker_option
@click.option(
    "--port", default=9808, show_default=True, type=click.IntRange(0, 65535), help="Port to serve on; 0: any free one."
)
@click.option(
    "--address", default="0.0.0.0", show_default=True, help="Address to serve on; 127.0.0.1 for this host alone."
)
@click.option("--once", is_flag=True, help="Print the metrics once, and exit.")
def command(broker: str | None, port: int, address: str, once: bool) -> int:
    """Serve metrics of the runs, queues and workers in a Redis on /metrics, for Prometheus, until stopped.

    One for each Redis is enough. A worker's own metrics: promptmill worker --metrics-port.
    """
    try:
        from prometheus_client import generate_latest, start_http_server
    except ImportError as error:
        raise click.ClickException(
            "prometheus-client is not installed here: pip install 'promptmill[metrics]'"
        ) from error
    from promptmill.exporter import registry_of
    from promptmill.producer.broker_url import check_url

    url = broker or DEFAULT_URL
    check_url(url)
    registry = registry_of(url)
    if once:
        click.echo(generate_latest(registry).decode(), nl=False)
        return 0
    try:
        server, _ = start_http_server(port, address, registry)
    except OSError as error:
        raise click.ClickException(f"cannot listen on {address}:{port}: {error.strerror}") from error
    click.echo(f"http://{address}:{server.server_port}/metrics", err=True)
    threading.Event().wait()
    return 0
