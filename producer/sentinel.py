"""Redis behind Sentinel: each new connection asks the sentinels which server is the primary.

sentinel://[user]:password@host:26379,host:26379,host:26379/db?master_name=NAME

User, password and db are those of Redis. Sentinels with a password of their own: &sentinel_password=..., and with users
&sentinel_username=... . No TLS: Celery takes none from such a URL.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelManagedConnection

SCHEME = "sentinel"
FORM = "sentinel://:password@host:26379,host:26379/db?master_name=NAME"
OPTIONS = ("master_name", "sentinel_username", "sentinel_password")

ANSWER_TIMEOUT_S = 1.0  # a sentinel that takes longer is passed over: the next one knows the same

_HOST = re.compile(r"(?:\[(?P<ipv6>[0-9a-f:.]+)\]|(?P<name>[\w.-]+))(?::(?P<port>\d{1,5}))?", re.IGNORECASE)


class SentinelUrlError(ValueError):
    """What is wrong with the URL: a sentence that quotes nothing of it, as it may hold passwords."""


@dataclass(frozen=True, slots=True)
class SentinelUrl:
    """What a URL says, unquoted."""

    hosts: tuple[tuple[str, int], ...]
    master_name: str
    db: int
    login: Mapping[str, str]
    """`username` and `password` of Redis, as far as there are any."""
    sentinel_login: Mapping[str, str]
    """The same of the sentinels."""

    @classmethod
    def parse(cls, url: str) -> "SentinelUrl":
        """Raises SentinelUrlError."""
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise SentinelUrlError(f"expected {FORM}") from error
        credentials, _, places = parts.netloc.rpartition("@")
        hosts = tuple(map(_host, places.split(",")))
        options = _options(parts.query)
        if not options.get("master_name"):
            raise SentinelUrlError("master_name is missing: ?master_name=NAME, as the sentinels' configuration has it")
        if not re.fullmatch(r"(/\d{0,4})?", parts.path) or parts.fragment:
            raise SentinelUrlError(f"expected {FORM}, with %2F for a / in the password, %3F for a ? and %23 for a #")
        user, _, password = credentials.partition(":")
        return cls(
            hosts=hosts,
            master_name=options["master_name"],
            db=int(parts.path[1:] or 0),
            login=_login(unquote(user), unquote(password)),
            sentinel_login=_login(options.get("sentinel_username", ""), options.get("sentinel_password", "")),
        )

    def client(self, **options: Any) -> redis.Redis:
        """A client of the primary, whichever server that is; `options` are a connection's."""
        timeouts = {"socket_timeout": ANSWER_TIMEOUT_S, "socket_connect_timeout": ANSWER_TIMEOUT_S}
        asking = {**self.sentinel_login, **timeouts, "retry": Retry(NoBackoff(), 0)}
        sentinels = Sentinels(self.hosts, sentinel_kwargs=asking)
        more = {**self.login, **options, "connection_class": AskingConnection}
        client: redis.Redis = sentinels.master_for(self.master_name, db=self.db, **more)
        return client

    @property
    def for_celery(self) -> str:
        """The URL as kombu and Celery's result backend write it: a whole one for each sentinel."""
        user, password = (quote(self.login.get(name, ""), safe="") for name in ("username", "password"))
        who = f"{user}:{password}@" if self.login else ""
        places = (f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name, port in self.hosts)
        return ";".join(f"{SCHEME}://{who}{place}/{self.db}" for place in places)

    @property
    def celery_options(self) -> dict[str, Any]:
        """Celery's transport options, of the broker and of the results: what kombu's URL has no room for."""
        timeouts = {"socket_timeout": ANSWER_TIMEOUT_S, "socket_connect_timeout": ANSWER_TIMEOUT_S}
        return {"master_name": self.master_name, "sentinel_kwargs": {**self.sentinel_login, **timeouts}}


class AskingConnection(SentinelManagedConnection):
    """A connection that asks for the primary whenever it connects.

    redis-py's asks when it leaves the pool; where a command finds it broken, it goes back to the server it knew: one
    that hangs takes all tries with it (seen with redis-py 8.1).
    """

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        if not self.is_connected:
            self.connect()
        super().send_packed_command(command, check_health)


class Sentinels(Sentinel):
    """redis-py's, which says in a sentence why there is no primary."""

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """Host and port of the primary, by the first sentinel that knows one that is up. Raises MasterNotFoundError."""
        known, problems = set[str](), list[Exception]()
        for sentinel in list(self.sentinels):
            try:
                masters: Any = sentinel.sentinel_masters()
            except redis.RedisError as error:
                problems.append(error)
                continue
            state = masters.get(service_name)
            if state and self.check_master_state(state, service_name):
                self.sentinels.remove(sentinel)
                self.sentinels.insert(0, sentinel)  # asked first, the next time
                return state["ip"], state["port"]
            known |= set(masters)
        raise MasterNotFoundError(_why(service_name, known, problems))


def _why(name: str, known: set[str], problems: list[Exception]) -> str:
    if name in known:
        return f"the sentinels say that the primary of {name!r} is down, and have none in its place yet"
    if known:
        return f"the sentinels know no master {name!r}; they know {', '.join(sorted(known))}"
    denied = [
        error for error in problems if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError)
    ]
    if denied:
        return f"the sentinels want a password, or another one ({denied[0]}): &sentinel_password=... in the URL"
    if problems:
        return f"no sentinel answers: {problems[-1]}"
    return "the sentinels know no master at all"


def _options(query: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    if not {name for name, _, _ in pairs} <= set(OPTIONS):
        raise SentinelUrlError(f"its options are {', '.join(OPTIONS)}, and no others")
    return {name: unquote(value) for name, _, value in pairs}


def _host(text: str) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if not found:
        raise SentinelUrlError(f"expected {FORM}: host and port of each sentinel, with commas between")
    if not found["port"] or int(found["port"]) > 65535:
        raise SentinelUrlError("each sentinel needs its port, host:26379 unless it was given another")
    return found["ipv6"] or found["name"], int(found["port"])


def _login(username: str, password: str) -> dict[str, str]:
    given = {"username": username, "password": password}
    return {name: value for name, value in given.items() if value}
