"""The URL of a Redis: which there are, how one is shown, and what Celery calls it.

redis://[user]:password@host:port/db        rediss://... the same over TLS, with redis-py's options as ?ssl_ca_certs=...
unix://[user]:password@/path?db=0           a socket of this host
"""

import re
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from promptmill.producer.errors import BrokerError

FORMS = "redis://:password@host:port/db, rediss://:password@host:port/db or unix:///path/of/socket?db=0"

_PLACE = re.compile(r"((\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?)?(/\d*)?", re.IGNORECASE)
_SOCKET = re.compile(r"(/[\w.+~ -]+)+")
_OPTION = re.compile(r"(db|virtual_host|protocol|ssl_(?!password)\w+)=[^@]*")


def check_url(url: str) -> None:
    """Raise BrokerError for what is not the URL of a Redis; not with the parser's own text, which quotes passwords."""
    if url.partition("://")[0].endswith(("sentinel", "cluster")):
        raise BrokerError(
            f"broker {without_password(url)!r}: Sentinel and Redis Cluster are not supported; give {FORMS}, "
            "of one name that leads to the primary: a managed Redis has one, and HAProxy makes one"
        )
    try:
        parts = urlsplit(url)
        _ = parts.port
        by_scheme = {"redis": True, "rediss": True, "unix": bool(parts.path) and not parts.hostname}
        fits = "://" in url and by_scheme.get(parts.scheme, False)
    except ValueError:
        fits = False
    if not fits:
        raise BrokerError(f"broker {without_password(url)!r}: expected {FORMS}, with %2F for a / in the password")


def without_password(url: str) -> str:
    """The URL as it may be shown and logged: what is, or might be, a password is `***`.

    Only what looks like a host, a port, a database, a socket or an option of TLS is shown; passwords with a stray `@`
    or `/` in them, URLs without `://` and misspelt ones are why.
    """
    scheme, mark, rest = url.rpartition("://") if url.count("://") == 1 else ("", "", url)
    credentials, at, place = rest.rpartition("@")
    if "?" in credentials:  # whose @ is it, an option's or the password's?
        return f"{scheme}{mark}***"
    place, question, query = place.partition("?")
    if not (_SOCKET if scheme == "unix" else _PLACE).fullmatch(place):
        place = "***"
    user = credentials.partition(":")[0] if ":" in credentials else None  # one word alone may be a password
    who = "" if not at else "***@" if user is None else f"{user}:***@"
    return f"{scheme}{mark}{who}{place}{question}{'&'.join(map(_option, query.split('&')))}"


def celery_url(url: str) -> str:
    """The URL as kombu and Celery's result backend write it."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _celery_socket(parts)
    if parts.scheme == "rediss" and "ssl_cert_reqs=" not in parts.query:  # redis-py's default, which Celery has none of
        return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"
    return url


def _celery_socket(parts: SplitResult) -> str:
    options = [pair.partition("=") for pair in parts.query.split("&") if pair]
    named = {{"db": "virtual_host"}.get(name, name): unquote(value) for name, _, value in options}
    query = urlencode({"virtual_host": "0", **named})
    return f"redis+socket://{parts.netloc}{parts.path}?{query}"


def _option(text: str) -> str:
    return text if _OPTION.fullmatch(text) else f"{text.partition('=')[0]}=***" if "=" in text else text and "***"
