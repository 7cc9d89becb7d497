"""The job streams: enqueue, claim, renew, release, settle. One Redis Stream a shape, with one consumer group.

Keys (the run's keys are producer.ledger's):

    promptmill:shapes            set      keys of the shapes that ever had a job
    promptmill:queue:SHAPE_KEY   stream   the unsettled jobs of a shape; fields: run, i (place in the run), job (JSON of
                                          the fields that the run does not share), entered once, deleted when settled

A claim is an entry in the group's list of pending entries: its consumer is the worker, its idle time what is used up of
the lease, its delivery count how many workers have had it. Every script moves a job in one step, so a crash between
two steps leaves the job either where it was or where it was going.

At least once, and once in the end: a job leaves its stream only by `settle`, after its object is safe; one that two
workers render after all is written once by the output and counted once by its bit.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import redis

from producer.errors import JobError, LedgerError
from producer.job import Job, Shape, canonical_json
from producer.ledger import Ledger, done_key, failed_key, failures_key, run_key

SHAPES = "promptmill:shapes"
GROUP = "workers"
MAX_DELIVERIES = 3
"""A job that this many workers had and did not settle is given up: it may be what killed them."""

CHUNK = 500  # jobs a script call: some 100 kB, a few milliseconds of Redis' one thread


def queue_key(shape: Shape) -> str:
    return f"promptmill:queue:{shape.key}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A job that a worker holds until it settles or releases it, or its lease runs out."""

    entry: str
    shape: Shape
    run: str
    index: int
    deliveries: int
    job: Job
    output: str

    @property
    def last_chance(self) -> bool:
        """Whether this delivery is the last: the job is rendered with nothing beside it that it could take along."""
        return self.deliveries >= MAX_DELIVERIES


# KEYS: run, done bitmap, shapes, streams...   ARGV: start, end, run, present places as JSON, then threes of
# (number of the stream in KEYS, place, job). Enters the plan's places start..end unless they are in; returns how far
# the run is entered now, or -1 where the run is not known. A submitter that was killed goes on from there.
_ENQUEUE = """
local at = tonumber(redis.call('HGET', KEYS[1], 'enqueued'))
if not at then return -1 end
if at ~= tonumber(ARGV[1]) then return at end
local present = 0
for _, place in ipairs(cjson.decode(ARGV[4])) do
  if redis.call('SETBIT', KEYS[2], place, 1) == 0 then present = present + 1 end
end
redis.call('HINCRBY', KEYS[1], 'present', present)
redis.call('HINCRBY', KEYS[1], 'done', present)
for k = 4, #KEYS do
  redis.pcall('XGROUP', 'CREATE', KEYS[k], 'workers', '0', 'MKSTREAM')
  redis.call('SADD', KEYS[3], string.sub(KEYS[k], #'promptmill:queue:' + 1))
end
for a = 5, #ARGV, 3 do
  redis.call('XADD', KEYS[tonumber(ARGV[a])], '*', 'run', ARGV[3], 'i', ARGV[a + 1], 'job', ARGV[a + 2])
end
redis.call('HSET', KEYS[1], 'enqueued', ARGV[2])
return tonumber(ARGV[2])
"""

# KEYS: run, done bitmap, stream   ARGV: run, place, job. Enters a job anew whose image was there and is gone.
_REENTER = """
if redis.call('GETBIT', KEYS[2], ARGV[2]) == 0 then return 0 end
redis.call('SETBIT', KEYS[2], ARGV[2], 0)
redis.call('HINCRBY', KEYS[1], 'done', -1)
redis.call('XADD', KEYS[3], '*', 'run', ARGV[1], 'i', ARGV[2], 'job', ARGV[3])
return 1
"""

# KEYS: shapes   ARGV: lease in ms. Returns shape keys and, after each, 1 if a worker could claim from it now, else 0.
_CLAIMABLE = """
local found = {}
for _, shape in ipairs(redis.call('SMEMBERS', KEYS[1])) do
  local stream = 'promptmill:queue:' .. shape
  local able = 0
  if redis.call('XLEN', stream) > 0 then
    local pending = redis.pcall('XPENDING', stream, 'workers')
    if pending.err == nil then
      if redis.call('XLEN', stream) > pending[1] then able = 1
      elseif #redis.call('XPENDING', stream, 'workers', 'IDLE', ARGV[1], '-', '+', 1) > 0 then able = 1 end
    end
  end
  found[#found + 1] = shape
  found[#found + 1] = able
end
return found
"""

# KEYS: stream   ARGV: consumer, count, lease in ms, max deliveries. What dead workers held goes first, then new jobs.
# A job that is at its last delivery comes alone. Returns (entry, deliveries, fields) of each; those over the maximum
# are for the caller to give up, and are not counted.
_CLAIM = """
local consumer, count, lease, max = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local pending = redis.pcall('XPENDING', KEYS[1], 'workers', 'IDLE', lease, '-', '+', count)
if pending.err then return {} end
local deliveries, take, room, alone = {}, {}, count, false
for _, p in ipairs(pending) do
  local id, before = p[1], tonumber(p[4])
  local last = before == max - 1
  if p[2] == consumer and tonumber(p[3]) < 10 * tonumber(lease) then
    before = nil -- its own: it slept, or Redis did, and it renews them any moment
  elseif before >= max then
    take[#take + 1] = id
  elseif not alone and (not last or room == count) then
    take[#take + 1] = id
    room = room - 1
    alone = last
  else
    before = nil
  end
  if before then deliveries[id] = before + 1 end
end
local claims = {}
if #take > 0 then
  for _, e in ipairs(redis.call('XCLAIM', KEYS[1], 'workers', consumer, lease, unpack(take))) do
    if e and e[2] then claims[#claims + 1] = {e[1], deliveries[e[1]], e[2]} end
  end
end
if room > 0 and not alone then
  local new = redis.call('XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', room, 'STREAMS', KEYS[1], '>')
  if new then
    for _, e in ipairs(new[1][2]) do claims[#claims + 1] = {e[1], 1, e[2]} end
  end
end
return claims
"""

# KEYS: stream   ARGV: consumer, entries... Renews the lease of those that are still the consumer's; returns those that
# another consumer has. What was settled meanwhile is neither.
_RENEW = """
local lost = {}
for a = 2, #ARGV do
  local p = redis.pcall('XPENDING', KEYS[1], 'workers', ARGV[a], ARGV[a], 1)
  if p.err == nil and p[1] then
    if p[1][2] == ARGV[1] then redis.call('XCLAIM', KEYS[1], 'workers', ARGV[1], 0, ARGV[a], 'JUSTID')
    else lost[#lost + 1] = ARGV[a] end
  end
end
return lost
"""

# KEYS: stream   ARGV: consumer, 1 if this delivery counts, entries... Gives back what is still the consumer's, to be
# claimed at once by anybody: an idle time of a day is over every lease.
_RELEASE = """
local released = 0
for a = 3, #ARGV do
  local p = redis.pcall('XPENDING', KEYS[1], 'workers', ARGV[a], ARGV[a], 1)
  if p.err == nil and p[1] and p[1][2] == ARGV[1] then
    local count = tonumber(p[1][4]) - (1 - tonumber(ARGV[2]))
    redis.call('XCLAIM', KEYS[1], 'workers', 'released', 0, ARGV[a], 'IDLE', 86400000, 'RETRYCOUNT', count, 'JUSTID')
    released = released + 1
  end
end
return released
"""

# KEYS: stream   ARGV: consumer. Deletes it, and consumers idle for a day, where they hold nothing: in one step, since a
# consumer that is deleted takes what it holds with it.
_LEAVE = """
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], 'workers')
if consumers.err then return 0 end
for _, flat in ipairs(consumers) do
  local c = {}
  for k = 1, #flat, 2 do c[flat[k]] = flat[k + 1] end
  if c['pending'] == 0 and (c['name'] == ARGV[1] or c['idle'] > 86400000) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'workers', c['name'])
  end
end
return 1
"""

# KEYS: stream, run, done bitmap, failed bitmap, failures   ARGV: entry, place, '' or the failure as JSON.
# Takes the job out of its stream and sets its bit; counts it the first time only. A job that is done stays done, one
# that had failed may still turn out to be done.
_SETTLE = """
redis.call('XACK', KEYS[1], 'workers', ARGV[1])
redis.call('XDEL', KEYS[1], ARGV[1])
if redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
if ARGV[3] == '' then
  if redis.call('SETBIT', KEYS[3], ARGV[2], 1) == 1 then return 0 end
  redis.call('HINCRBY', KEYS[2], 'done', 1)
  local time = redis.call('TIME')
  local now = time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
  redis.call('HSETNX', KEYS[2], 'first_done', now)
  redis.call('HSET', KEYS[2], 'last_done', now)
  if redis.call('SETBIT', KEYS[4], ARGV[2], 0) == 1 then
    redis.call('HINCRBY', KEYS[2], 'failed', -1)
    redis.call('HDEL', KEYS[5], ARGV[2])
  end
  return 1
end
if redis.call('GETBIT', KEYS[3], ARGV[2]) == 1 then return 0 end
if redis.call('SETBIT', KEYS[4], ARGV[2], 1) == 1 then return 0 end
redis.call('HINCRBY', KEYS[2], 'failed', 1)
redis.call('HSET', KEYS[5], ARGV[2], ARGV[3])
return 1
"""


_Run = tuple[str, dict[str, Any]] | None  # its output and the fields that its jobs share


class JobQueue:
    """The job streams of one Redis, as one consumer sees them. Thread-safe."""

    def __init__(self, client: redis.Redis, consumer: str = "producer", *, lease_s: float = 30.0) -> None:
        self._redis: Any = client  # redis-py types every answer as "or awaitable"
        self._ledger = Ledger(client)
        self._consumer = consumer
        self._lease_ms = int(lease_s * 1000)
        register = self._redis.register_script
        self._enqueue, self._claimable, self._claim = (
            register(_ENQUEUE),
            register(_CLAIMABLE),
            register(_CLAIM),
        )
        self._renew, self._release, self._settle = register(_RENEW), register(_RELEASE), register(_SETTLE)
        self._leave, self._reenter = register(_LEAVE), register(_REENTER)

    def enqueue(
        self, run: str, start: int, end: int, jobs: Iterable[tuple[int, Job]], present: Sequence[int] = ()
    ) -> int:
        """Enters the run's places `start` to `end` in one step, unless they are in already.

        `jobs` are the ones to render, `present` the places whose image is there. Returns how far the run is entered,
        which is `end` after a success, and further where another submitter was faster. Raises LedgerError.
        """
        settings = self._ledger.settings(run)
        common = settings[1] if settings else {}
        streams: dict[str, int] = {}
        threes: list[Any] = []
        for index, job in jobs:
            number = streams.setdefault(queue_key(job.shape), len(streams) + 4)
            threes += (number, index, _own_fields(job, common))
        keys = [run_key(run), done_key(run), SHAPES, *streams]
        entered = int(self._enqueue(keys, [start, end, run, json.dumps(list(present)), *threes]))
        if entered < 0:
            raise LedgerError(f"run {run!r} is not in this Redis any more")
        return entered

    def reenter(self, run: str, jobs: Iterable[tuple[int, Job]]) -> int:
        """Enters jobs anew whose image somebody deleted: of these, those that count as done. Returns how many."""
        settings = self._ledger.settings(run)
        common = settings[1] if settings else {}
        entered = 0
        for index, job in jobs:
            keys = [run_key(run), done_key(run), queue_key(job.shape)]
            entered += int(self._reenter(keys, [run, index, _own_fields(job, common)]))
        return entered

    def claimable(self) -> list[Shape]:
        """The shapes that have a job nobody holds, by key."""
        found = self._claimable([SHAPES], [self._lease_ms])
        return [Shape.from_key(key) for key, able in sorted(zip(found[::2], found[1::2], strict=True)) if able]

    def claim(self, shape: Shape, count: int) -> list[Claim]:
        """Up to `count` jobs of one shape, held from now on: first what dead workers held, then new ones.

        A job on its last delivery comes alone. One that was given up, or cannot be read, is settled as failed here.
        """
        found = self._claim([queue_key(shape)], [self._consumer, count, self._lease_ms, MAX_DELIVERIES])
        entries = [(entry, int(count), _pairs(flat)) for entry, count, flat in found]
        runs = {run: self._ledger.settings(run) for run in {fields["run"] for _, _, fields in entries}}
        claims = (self._to_claim(shape, entry, count, fields, runs[fields["run"]]) for entry, count, fields in entries)
        return [claim for claim in claims if claim is not None]

    def renew(self, claims: Iterable[Claim]) -> list[Claim]:
        """Starts the lease of these claims anew; returns those that another worker has by now."""
        lost: list[Claim] = []
        for shape, held in _by_shape(claims).items():
            gone = set(self._renew([queue_key(shape)], [self._consumer, *(claim.entry for claim in held)]))
            lost += [claim for claim in held if claim.entry in gone]
        return lost

    def release(self, claims: Iterable[Claim], *, counted: bool = False) -> None:
        """Gives jobs back, to be claimed by anybody at once. `counted`: this delivery counts as one of the three."""
        for shape, held in _by_shape(claims).items():
            self._release([queue_key(shape)], [self._consumer, int(counted), *(claim.entry for claim in held)])

    def done(self, claim: Claim) -> bool:
        """The job's object is safe. False where the job was done before."""
        return self._settle_entry(claim.shape, claim.entry, claim.run, claim.index, "")

    def failed(self, claim: Claim, reason: str) -> bool:
        """The job is given up, for a reason that a user can read. False where it was settled before."""
        failure = json.dumps({"id": claim.job.id, "reason": reason}, ensure_ascii=False)
        return self._settle_entry(claim.shape, claim.entry, claim.run, claim.index, failure)

    def backlog(self) -> dict[Shape, tuple[int, int]]:
        """Of each shape with unsettled jobs: how many wait, and how many workers hold."""
        counts: dict[Shape, tuple[int, int]] = {}
        for key in sorted(self._redis.smembers(SHAPES)):
            shape = Shape.from_key(key)
            unsettled = self._redis.xlen(queue_key(shape))
            if unsettled:
                held = self._redis.xpending(queue_key(shape), GROUP)["pending"]
                counts[shape] = (unsettled - held, held)
        return counts

    def leave(self) -> None:
        """Takes this consumer out of the groups where it holds nothing, and others that died long ago."""
        for key in self._redis.smembers(SHAPES):
            self._leave([f"promptmill:queue:{key}"], [self._consumer])

    def _to_claim(
        self, shape: Shape, entry: str, deliveries: int, fields: Mapping[str, str], run: _Run
    ) -> Claim | None:
        name, index = fields["run"], int(fields["i"])
        if run is None:  # the run was taken out of Redis: nobody waits for this job
            self._settle_entry(shape, entry, name, index, "")
            return None
        output, common = run
        try:
            job = Job(**{**common, **json.loads(fields["job"])})
        except (JobError, TypeError, ValueError) as error:
            failure = {"id": "", "reason": f"a worker of another version? it cannot read the job: {error}"}
            self._settle_entry(shape, entry, name, index, json.dumps(failure))
            return None
        claim = Claim(entry, shape, name, index, deliveries, job, output)
        if deliveries > MAX_DELIVERIES:
            self.failed(claim, f"given up: {MAX_DELIVERIES} workers took it and none came back")
            return None
        return claim

    def _settle_entry(self, shape: Shape, entry: str, run: str, index: int, failure: str) -> bool:
        keys = [queue_key(shape), run_key(run), done_key(run), failed_key(run), failures_key(run)]
        return bool(self._settle(keys, [entry, index, failure]))


def _pairs(flat: Sequence[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _own_fields(job: Job, common: Mapping[str, Any]) -> str:
    return canonical_json({name: value for name, value in job.fields().items() if name not in common})


def _by_shape(claims: Iterable[Claim]) -> dict[Shape, list[Claim]]:
    grouped: dict[Shape, list[Claim]] = {}
    for claim in claims:
        grouped.setdefault(claim.shape, []).append(claim)
    return grouped
