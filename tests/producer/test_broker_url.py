"""URLs of a Redis: which are taken, and that none is shown with its password."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
import redis
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promptmill.producer.broker import client_of, eviction
from promptmill.producer.broker_url import celery_options, celery_url, check_url, without_password
from promptmill.producer.errors import BrokerError

SECRET = "S3cr-t"
SECRETS = st.text(st.sampled_from(":/?#&=%ab12"), max_size=4).map(lambda text: f"{text}{SECRET}{text}")
FORMS = [
    *("redis://:{}@host:6379/0", "rediss://me:{}@host/0?ssl_cert_reqs=none", "unix://:{}@/run/redis.sock?db=1"),
    *(":{}@host:6379", "me:{}@host", "{}@host", "redis:/:{}@host", "redis://{}@host"),
    *("redis://host?password={}", "redis://host/0?db=1&PASSWORD={}", "host:6379?Password={}", "redis://:{}"),
    *(
        "redis://host:{}/0",
        "redis://:{}/0",
        "unix:///run/redis.sock?pass%77ord={}&db=0",
        "redis://me:{}@host?password={}",
    ),
    *("sentinel://me:{}@a:1,b:2/0?master_name=m", "sentinel://a:1,b:2/0?master_name=m&sentinel_password={}"),
    *("sentinel://:{}@a:1;sentinel://:{}@b:2/0", "sentinel://:{}@a:1,b:2", "sentinel://a:1,b:{}/0?master_name=m"),
]


def raw_cases() -> Iterator[tuple[str, str]]:
    """Each form with passwords that should have been escaped, where they can be told from a host or a user."""
    for form in FORMS:
        for secret in (SECRET, f"a@{SECRET}", f"a/{SECRET}", f"{SECRET}:1", f"a?{SECRET}"):
            looks_like_host = "@" in secret and "{}@" not in form
            looks_like_user = ":" in secret and form in ("{}@host", "redis://{}@host")
            if not looks_like_host and not looks_like_user:
                yield form, secret


@pytest.mark.parametrize(("form", "secret"), [*raw_cases()])
def test_no_form_shows_its_password(form: str, secret: str) -> None:
    assert SECRET not in without_password(form.replace("{}", secret))


@settings(deadline=None)
@given(st.sampled_from(FORMS), SECRETS)
@example("redis://:{}@host:6379/0", f"a://{SECRET}")
def test_an_escaped_password_is_never_shown_nor_told(form: str, secret: str) -> None:
    url = form.replace("{}", quote(secret, safe=""))
    assert SECRET not in without_password(url)
    try:
        client_of(url)
    except BrokerError as error:
        assert SECRET not in str(error)


SENTINELS = "sentinel://me:a%3Ab@one:26379,[::1]:26380/3?master_name=mill"


@pytest.mark.parametrize(
    "url", ["redis://host", "rediss://:x@host:1/2?ssl_ca_certs=/a", "unix:///run/r.sock?db=1", SENTINELS]
)
def test_the_forms_that_work_are_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    "url",
    ["valkey://host", "reddis://host", "http://host", "host:6379", "", "unix://", "unix://run/r.sock", "redis:/h"],
)
def test_anything_else_is_a_sentence_that_says_what_is_meant(url: str) -> None:
    with pytest.raises(
        BrokerError, match=r"expected redis://:password@host:port/db, rediss://.*, unix:///path.* or sentinel://"
    ):
        client_of(url)


@pytest.mark.parametrize(
    ("url", "for_celery"),
    [
        ("redis://host/1", "redis://host/1"),
        ("rediss://host", "rediss://host?ssl_cert_reqs=required"),
        ("rediss://host?ssl_cert_reqs=none", "rediss://host?ssl_cert_reqs=none"),
        ("unix:///run/r.sock", "redis+socket:///run/r.sock?virtual_host=0"),
        ("unix://:x@/run/r.sock?db=3", "redis+socket://:x@/run/r.sock?virtual_host=3"),
        (SENTINELS, "sentinel://me:a%3Ab@one:26379/3;sentinel://me:a%3Ab@[::1]:26380/3"),
        ("sentinel://one:1?master_name=m", "sentinel://one:1/0"),
    ],
)
def test_celery_has_spellings_of_its_own(url: str, for_celery: str) -> None:
    assert celery_url(url) == for_celery


@pytest.mark.parametrize(
    ("policy", "limit", "warned"),
    [
        ("allkeys-lru", "100mb", True),
        ("volatile-ttl", "100mb", True),
        ("noeviction", "100mb", False),
        ("allkeys-lru", "0", False),
    ],
)
def test_a_redis_that_drops_keys_is_warned_about(client: redis.Redis, policy: str, limit: str, warned: bool) -> None:
    try:
        client.config_set("maxmemory-policy", policy)
        client.config_set("maxmemory", limit)
        assert (f"maxmemory-policy {policy}" in (eviction(client) or "")) is warned
    finally:
        client.config_set("maxmemory", "0")
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.parametrize("scheme", ["redis+cluster", "rediscluster"])
def test_cluster_is_refused_with_what_to_give(scheme: str) -> None:
    with pytest.raises(BrokerError, match=r"Redis Cluster is not supported; give redis://") as told:
        check_url(f"{scheme}://:secret@host:26379/0")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("rest", "sentence"),
    [
        ("one:26379", "master_name is missing"),
        ("one:26379/0?master_name=", "master_name is missing"),
        ("one/0?master_name=m", "each sentinel needs its port, host:26379"),
        ("one:26379,two?master_name=m", "each sentinel needs its port, host:26379"),
        ("one:99999?master_name=m", "each sentinel needs its port, host:26379"),
        ("one:1;sentinel://two:1?master_name=m", "host and port of each sentinel, with commas between"),
        ("?master_name=m", "host and port of each sentinel, with commas between"),
        ("one:1/none?master_name=m", "expected sentinel://:password@host:26379,host:26379/db"),
        ("one:1/0?master_name=m&ssl_cert_reqs=none", "its options are master_name, sentinel_username, sentinel_pass"),
    ],
)
def test_what_is_wrong_with_a_url_of_sentinels_is_a_sentence(rest: str, sentence: str) -> None:
    with pytest.raises(BrokerError, match=sentence) as told:
        client_of(f"sentinel://:{SECRET}@{rest}")
    assert SECRET not in str(told.value)


def test_what_celery_reads_from_no_url_goes_to_its_options() -> None:
    url = f"{SENTINELS}&sentinel_username=asker&sentinel_password=a%2Bb+c"
    told = celery_options(url)
    assert told["master_name"] == "mill"
    assert told["sentinel_kwargs"].items() >= {"username": "asker", "password": "a+b+c"}.items()
    assert celery_options("redis://host/1") == {}
