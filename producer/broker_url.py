"""The URL of a Redis: which there are, how one is shown, and what Celery calls it.

redis://[user]:password@host:port/db        rediss://... the same over TLS, with redis-py's options as ?ssl_ca_certs=...
unix://[user]:password@/path?db=0           a socket of this host
sentinel://[user]:password@host:port,host:port/db?master_name=NAME      whichever server the sentinels call the primary
"""

import re
from typing import Any
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from promptmill.producer import sentinel
from promptmill.producer.errors import BrokerError
from promptmill.producer.sentinel import SentinelUrl, SentinelUrlError

FORMS = (
    f"redis://:password@host:port/db, rediss://:password@host:port/db, unix:///path/of/socket?db=0 or {sentinel.FORM}"
)

BROKER_HELP = (
    "Where Redis is: redis:// or rediss://[:password@]host:port/db, unix:///path?db=0, "
    "or sentinel://[:password@]host:port,host:port/db?master_name=NAME."
)

_HOST = r"(\[[0-9a-f:.]+\]|[\w.-]+)(:\d{1,5})?"
_PLACE = re.compile(rf"({_HOST})?(/\d*)?", re.IGNORECASE)
_SENTINELS = re.compile(rf"{_HOST}(,{_HOST})*(/\d*)?", re.IGNORECASE)
_SOCKET = re.compile(r"(/[\w.+~ -]+)+")
_OPTION = re.compile(r"(db|virtual_host|protocol|master_name|ssl_(?!password)\w+)=[^@]*")


def check_url(url: str) -> None:
    """Raise BrokerError for what is not the URL of a Redis; not with the parser's own text, which quotes passwords."""
    if url.partition("://")[0].endswith("cluster"):
        raise BrokerError(
            f"broker {without_password(url)!r}: Redis Cluster is not supported; give {FORMS}, "
            "of a Redis that is not split into slots"
        )
    if is_sentinel(url):
        sentinel_url(url)
        return
    try:
        parts = urlsplit(url)
        _ = parts.port
        by_scheme = {"redis": True, "rediss": True, "unix": bool(parts.path) and not parts.hostname}
        fits = "://" in url and by_scheme.get(parts.scheme, False)
    except ValueError:
        fits = False
    if not fits:
        raise BrokerError(f"broker {without_password(url)!r}: expected {FORMS}, with %2F for a / in the password")


def is_sentinel(url: str) -> bool:
    """Whether the URL names sentinels, and they know where Redis is."""
    return url.partition("://")[0] == sentinel.SCHEME


def sentinel_url(url: str) -> SentinelUrl:
    """The parts of a URL that names sentinels. Raises BrokerError."""
    try:
        return SentinelUrl.parse(url)
    except SentinelUrlError as error:
        raise BrokerError(f"broker {without_password(url)!r}: {error}") from error


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
    if not {"unix": _SOCKET, sentinel.SCHEME: _SENTINELS}.get(scheme, _PLACE).fullmatch(place):
        place = "***"
    user = credentials.partition(":")[0] if ":" in credentials else None  # one word alone may be a password
    who = "" if not at else "***@" if user is None else f"{user}:***@"
    return f"{scheme}{mark}{who}{place}{question}{'&'.join(map(_option, query.split('&')))}"


def celery_url(url: str) -> str:
    """The URL as kombu and Celery's result backend write it."""
    if is_sentinel(url):
        return sentinel_url(url).for_celery
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return _celery_socket(parts)
    if parts.scheme == "rediss" and "ssl_cert_reqs=" not in parts.query:  # redis-py's default, which Celery has none of
        return f"{url}{'&' if parts.query else '?'}ssl_cert_reqs=required"
    return url


def celery_options(url: str) -> dict[str, Any]:
    """Celery's transport options, for the broker and for results: what Celery does not read from its URL."""
    return sentinel_url(url).celery_options if is_sentinel(url) else {}


def _celery_socket(parts: SplitResult) -> str:
    options = [pair.partition("=") for pair in parts.query.split("&") if pair]
    named = {{"db": "virtual_host"}.get(name, name): unquote(value) for name, _, value in options}
    query = urlencode({"virtual_host": "0", **named})
    return f"redis+socket://{parts.netloc}{parts.path}?{query}"


def _option(text: str) -> str:
    name, equals, _ = text.partition("=")
    if _OPTION.fullmatch(text):
        return text
    return f"{name}=***" if equals and "?" not in name else text and "***"
