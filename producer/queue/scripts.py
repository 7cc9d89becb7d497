"""What Redis does in one step: the Lua scripts of ledger.py, queue.py and control.py.

Each change of state is one script, so a crash between two steps leaves every job and every count either where it was or
where it was going. Scripts make up names of keys, which Redis allows on one server and not in a Redis Cluster: a
Cluster is no index for the queue.

    promptmill:runs               sorted set   run names, scored by their creation (seconds since the epoch)
    promptmill:run:RUN            hash         see ledger.py, with the run's bitmaps and failures
    promptmill:run:RUN:shapes     set          keys of the shapes of which the run has a stream
    promptmill:queue:RUN:SHAPE    stream       the run's unsettled jobs of a shape; fields: i (index in the run), job
                                               (JSON of the fields that the run does not share)
    promptmill:shapes             set          keys of the shapes that have a stream of any run
    promptmill:shape:SHAPE        hash         served_at (microseconds, when a job was last claimed, or the first came)
    promptmill:turns:SHAPE        sorted set   the runs that have jobs of this shape to claim, the next one first
    promptmill:held:SHAPE         sorted set   those whose jobs are all with workers, by when to look again whether one
                                               is dead (microseconds): a thousand such runs cost a look for work nothing

A run's score among the turns of a shape is its rank (0 urgent, 1 normal, 2 low, 3 paused) times 10^14, and on top of
that a count which grows by each job that is claimed: among equals, who was served least is served next. A run that is
new, or comes back after it had nothing to claim, stands behind the last one. So it is owed nothing for the time before,
and no number of small runs that keep coming can starve a large one.
"""

from typing import Any

import redis

_PRELUDE = """
local BAND, PAUSED, RANKS = 1e14, 3, {urgent = 0, normal = 1, low = 2}

local function key(run, part) return 'promptmill:run:' .. run .. (part and ':' .. part or '') end
local function stream(run, shape) return 'promptmill:queue:' .. run .. ':' .. shape end
local function turns(shape) return 'promptmill:turns:' .. shape end
local function held(shape) return 'promptmill:held:' .. shape end
local function lane(shape) return 'promptmill:shape:' .. shape end

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1e6 + time[2]
end

local function seconds()
  local time = redis.call('TIME')
  return time[1] .. '.' .. string.format('%06d', tonumber(time[2]))
end

local function count(run, field) return tonumber(redis.call('HGET', key(run), field)) end

-- Puts the run behind those of its rank that have jobs of the shape to claim.
local function line_up(run, shape)
  local said = redis.call('HMGET', key(run), 'state', 'priority')
  local rank = said[1] == 'paused' and PAUSED or RANKS[said[2]]
  if redis.call('SADD', 'promptmill:shapes', shape) == 1 then
    redis.call('HSET', lane(shape), 'served_at', microseconds())
  end
  redis.call('ZREM', held(shape), run)
  redis.call('ZREM', turns(shape), run)
  local from, to = '(' .. (rank + 1) * BAND, rank * BAND
  local last = redis.call('ZRANGE', turns(shape), from, to, 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')[2]
  redis.call('ZADD', turns(shape), last and last + 1 or rank * BAND, run)
end

-- For a run that has something to claim again.
local function come_back(run, shape)
  if not redis.call('ZSCORE', turns(shape), run) then line_up(run, shape) end
end

-- Takes the run out of the line, as all its jobs of the shape are with workers, until the first lease may run out.
local function step_aside(run, shape, lease)
  local longest = 0
  for _, p in ipairs(redis.call('XPENDING', stream(run, shape), 'workers', '-', '+', 100)) do
    longest = math.max(longest, p[3])
  end
  redis.call('ZREM', turns(shape), run)
  redis.call('ZADD', held(shape), microseconds() + 1000 * math.max(lease - longest, lease / 10), run)
end

-- Takes the run's stream away, with whatever is in it.
local function drop_stream(run, shape)
  redis.call('UNLINK', stream(run, shape))
  redis.call('SREM', key(run, 'shapes'), shape)
  redis.call('ZREM', turns(shape), run)
  redis.call('ZREM', held(shape), run)
  if redis.call('EXISTS', turns(shape), held(shape)) == 0 then
    redis.call('SREM', 'promptmill:shapes', shape)
    redis.call('DEL', lane(shape))
  end
end

local function drop_streams(run)
  for _, shape in ipairs(redis.call('SMEMBERS', key(run, 'shapes'))) do drop_stream(run, shape) end
end

-- A stream of the run to enter jobs into: there, with its group, and in line.
local function open_stream(run, shape)
  local name = stream(run, shape)
  if redis.call('EXISTS', name) == 0 then
    redis.call('XGROUP', 'CREATE', name, 'workers', '0', 'MKSTREAM')
    redis.call('SADD', key(run, 'shapes'), shape)
  end
  come_back(run, shape)
  return name
end

-- Whether the run's output is among the ARGV from `first` on: those into which whoever asks cannot write now.
local function passed_over(run, first)
  if #ARGV < first then return false end
  local output = redis.call('HGET', key(run), 'output')
  for a = first, #ARGV do
    if ARGV[a] == output then return true end
  end
  return false
end

local PARTS = {'done', 'failed', 'failures'}

-- Nothing more will happen to the run by itself: what it leaves behind is kept for a while.
local function let_expire(run)
  drop_streams(run)
  redis.call('HSET', key(run), 'queued', 0)
  local keep = count(run, 'keep_s')
  if keep <= 0 then return end
  redis.call('EXPIRE', key(run), keep)
  for _, part in ipairs(PARTS) do redis.call('EXPIRE', key(run, part), keep) end
end

local function keep(run)
  redis.call('PERSIST', key(run))
  for _, part in ipairs(PARTS) do redis.call('PERSIST', key(run, part)) end
end

local function over(run)
  local counts = redis.call('HMGET', key(run), 'done', 'failed', 'images')
  return counts[1] + counts[2] >= tonumber(counts[3])
end

-- Unsets the bit of a failed index; 1 if it was set.
local function forgive(run, index)
  if redis.call('GETBIT', key(run, 'failed'), index) == 0 then return 0 end
  redis.call('SETBIT', key(run, 'failed'), index, 0)
  redis.call('HINCRBY', key(run), 'failed', -1)
  redis.call('HDEL', key(run, 'failures'), index)
  return 1
end

-- Sets the bit of an index whose image is there; 1 if it was not set, and the index is counted now.
local function mark_done(run, index)
  if redis.call('SETBIT', key(run, 'done'), index, 1) == 1 then return 0 end
  redis.call('HINCRBY', key(run), 'done', 1)
  forgive(run, index)
  return 1
end

-- Whether a worker could claim of the run now.
local function able(run, shape, lease)
  local name = stream(run, shape)
  local pending = redis.pcall('XPENDING', name, 'workers')
  if pending.err then return false end
  if redis.call('XLEN', name) > pending[1] then return true end
  return pending[1] > 0 and #redis.call('XPENDING', name, 'workers', 'IDLE', lease, '-', '+', 1) > 0
end

-- Lines up those whose leases may have run out, where one has.
local function look_for_the_dead(shape, lease)
  for _, run in ipairs(redis.call('ZRANGE', held(shape), '-inf', microseconds(), 'BYSCORE', 'LIMIT', 0, 100)) do
    if able(run, shape, lease) then line_up(run, shape) else step_aside(run, shape, lease) end
  end
end

-- All runs that have a stream of the shape.
local function runs_of(shape)
  local runs = redis.call('ZRANGE', turns(shape), 0, -1)
  for _, run in ipairs(redis.call('ZRANGE', held(shape), 0, -1)) do runs[#runs + 1] = run end
  return runs
end

-- The runs in line, and their scores: page after page, until `visit` has seen enough. It must not change the line.
local function in_turn(shape, visit)
  local page = 50
  for from = 0, math.huge, page do
    local flat = redis.call(
      'ZRANGE', turns(shape), '-inf', '(' .. PAUSED * BAND, 'BYSCORE', 'LIMIT', from, page, 'WITHSCORES')
    for k = 1, #flat, 2 do
      if visit(flat[k], tonumber(flat[k + 1])) then return end
    end
    if #flat < 2 * page then return end
  end
end
"""


class Script:
    """A script that a Redis runs in one step."""

    def __init__(self, client: redis.Redis, body: str) -> None:
        self._script: Any = client.register_script(_PRELUDE + body)

    def __call__(self, *args: Any, client: Any = None) -> Any:
        """Runs it. With a pipeline as `client`, when that is executed."""
        return self._script(args=args, client=client)


# --- the ledger's

# ARGV: run, output, digest, jobs, images, common, priority, keep_s. Enters the run, or finds it entered; one that was
# cancelled begins anew, as if Redis had never heard of it. Returns the output and digest that the name stands for.
OPEN = """
local run = ARGV[1]
local known = redis.call('HMGET', key(run), 'output', 'digest', 'state')
if known[1] and (known[1] ~= ARGV[2] or known[2] ~= ARGV[3]) then return {known[1], known[2]} end
if not known[1] or known[3] == 'cancelled' then
  drop_streams(run)
  for _, part in ipairs(PARTS) do redis.call('DEL', key(run, part)) end
  redis.call('HSET', key(run), 'output', ARGV[2], 'digest', ARGV[3], 'jobs', ARGV[4], 'images', ARGV[5],
    'common', ARGV[6], 'state', 'running', 'enqueued', 0, 'queued', 0, 'present', 0, 'done', 0, 'failed', 0)
  redis.call('HSETNX', key(run), 'priority', ARGV[7])
  redis.call('HSETNX', key(run), 'created', seconds())
  redis.call('HDEL', key(run), 'first_done', 'last_done')
  redis.call('ZADD', 'promptmill:runs', 'NX', redis.call('HGET', key(run), 'created'), run)
end
redis.call('HSET', key(run), 'keep_s', ARGV[8])
keep(run)
if over(run) then let_expire(run) end
return {ARGV[2], ARGV[3]}
"""

# ARGV: run, the digest that it had, digest, jobs, images. The run's plan has grown: what is in stays, under its index.
# Returns 1, or 0 where it has another digest by now, or is not known.
GROW = """
local run = ARGV[1]
if redis.call('HGET', key(run), 'digest') ~= ARGV[2] then return 0 end
redis.call('HSET', key(run), 'digest', ARGV[3], 'jobs', ARGV[4], 'images', ARGV[5])
keep(run)
return 1
"""

# ARGV: run. Takes the name off the list, if its hash has expired.
SWEEP = """
if redis.call('EXISTS', key(ARGV[1])) == 1 then return 0 end
return redis.call('ZREM', 'promptmill:runs', ARGV[1])
"""

# --- the queue's

# ARGV: run, start, end, present indexes as JSON, then of each shape: its key, how many jobs, and an index and a job for
# each. Enters the plan's indexes start..end unless they are in; returns how far the run is entered now, -1 where the
# run is not known, -2 where it is cancelled. A submitter that was killed goes on from there.
ENQUEUE = """
local run = ARGV[1]
local said = redis.call('HMGET', key(run), 'enqueued', 'state')
if not said[1] then return -1 end
if said[2] == 'cancelled' then return -2 end
if said[1] ~= ARGV[2] then return tonumber(said[1]) end
local present = 0
for _, index in ipairs(cjson.decode(ARGV[4])) do present = present + mark_done(run, index) end
if present > 0 then redis.call('HINCRBY', key(run), 'present', present) end
local done, entered, a = key(run, 'done'), 0, 5
while a < #ARGV do
  local name, last = open_stream(run, ARGV[a]), a + 1 + 2 * ARGV[a + 1]
  for b = a + 2, last, 2 do
    if redis.call('GETBIT', done, ARGV[b]) == 0 then -- else: a worker that held it when the run was cancelled
      redis.call('XADD', name, '*', 'i', ARGV[b], 'job', ARGV[b + 1])
      entered = entered + 1
    end
  end
  if redis.call('XLEN', name) == 0 then drop_stream(run, ARGV[a]) end
  a = last + 1
end
if entered > 0 then redis.call('HINCRBY', key(run), 'queued', entered) end
redis.call('HSET', key(run), 'enqueued', ARGV[3])
if over(run) then let_expire(run) end
return tonumber(ARGV[3])
"""

# ARGV: run, then threes of index, shape key, job. Enters those anew that count as done or failed; returns how many, or
# -1 and -2 as above.
REENTER = """
local run, entered = ARGV[1], 0
local state = redis.call('HGET', key(run), 'state')
if not state then return -1 end
if state == 'cancelled' then return -2 end
for a = 2, #ARGV, 3 do
  local settled = forgive(run, ARGV[a]) == 1
  if not settled and redis.call('GETBIT', key(run, 'done'), ARGV[a]) == 1 then
    redis.call('SETBIT', key(run, 'done'), ARGV[a], 0)
    redis.call('HINCRBY', key(run), 'done', -1)
    settled = true
  end
  if settled then
    redis.call('XADD', open_stream(run, ARGV[a + 1]), '*', 'i', ARGV[a], 'job', ARGV[a + 2], 'again', 1)
    entered = entered + 1
  end
end
if entered > 0 then
  redis.call('HINCRBY', key(run), 'queued', entered)
  keep(run)
end
return entered
"""

# ARGV: lease in ms, outputs whose runs are passed over. Of each shape with a job that a worker could claim now: its
# key, the rank of the run that would be served, and for how long the shape and that run were not served, in
# microseconds.
CLAIMABLE = """
local lease, now, found = tonumber(ARGV[1]), microseconds(), {}
for _, shape in ipairs(redis.call('SMEMBERS', 'promptmill:shapes')) do
  look_for_the_dead(shape, lease)
  local unable = {}
  in_turn(shape, function(run, score)
    if not able(run, shape, lease) then
      unable[#unable + 1] = run
      return false
    end
    if passed_over(run, 2) then return false end
    local served = redis.call('HMGET', key(run), 'served_at', 'created')
    local shape_served = redis.call('HGET', lane(shape), 'served_at') or now
    local run_served = served[1] or (served[2] or 0) * 1e6
    found[#found + 1] = {shape, math.floor(score / BAND), now - shape_served, now - run_served}
    return true
  end)
  for _, run in ipairs(unable) do
    if redis.call('EXISTS', stream(run, shape)) == 1 then step_aside(run, shape, lease)
    else drop_stream(run, shape) end
  end
end
return found
"""

# ARGV: shape key, consumer, count, lease in ms, max deliveries, outputs whose runs are passed over. Fills one batch
# from the runs in their turns; of each, what dead workers held goes first, then new jobs. A job that is at its last
# delivery comes alone. Returns of each run its name, output, shared fields, time of creation, and (entry, deliveries,
# fields) of each job; those over the maximum are for the caller to give up, and are not counted.
CLAIM = """
local shape, consumer, lease, max = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local size = tonumber(ARGV[3])
local room, alone = size, false

local function from_the_dead(name, claims)
  local pending = redis.pcall('XPENDING', name, 'workers', 'IDLE', lease, '-', '+', size)
  if pending.err then return false end
  local deliveries, take = {}, {}
  for _, p in ipairs(pending) do
    local id, before = p[1], tonumber(p[4])
    local last = before == max - 1
    local own = p[2] == consumer and tonumber(p[3]) < 10 * lease -- it slept, and renews them any moment
    local fits = not alone and room > 0 and (not last or room == size)
    if not own and (before >= max or fits) then
      take[#take + 1], deliveries[id] = id, before + 1
      if before < max then room, alone = room - 1, last end
    end
  end
  if #take > 0 then
    for _, e in ipairs(redis.call('XCLAIM', name, 'workers', consumer, lease, unpack(take))) do
      if e and e[2] then claims[#claims + 1] = {e[1], deliveries[e[1]], e[2]} end
    end
  end
  return true
end

local function new_ones(name, claims)
  local new = redis.call('XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', room, 'STREAMS', name, '>')
  if not new then return end
  for _, e in ipairs(new[1][2]) do claims[#claims + 1] = {e[1], 1, e[2]} end
  room = room - #new[1][2]
end

local found, seen, lost = {}, {}, {}
look_for_the_dead(shape, lease)
in_turn(shape, function(run, score)
  if passed_over(run, 6) then return false end
  local said, claims, before = redis.call('HMGET', key(run), 'output', 'common', 'created'), {}, room
  if not said[1] or not from_the_dead(stream(run, shape), claims) then
    lost[#lost + 1] = run
    return false
  end
  if room > 0 and not alone then new_ones(stream(run, shape), claims) end
  if #claims > 0 then found[#found + 1] = {run, said[1], said[2], said[3], claims} end
  seen[#seen + 1] = {run, score, before - room}
  return alone or room == 0
end)

for _, s in ipairs(seen) do
  local run, score, taken = s[1], s[2], s[3]
  if taken > 0 then
    redis.call('ZADD', turns(shape), score + taken, run)
    redis.call('HSET', lane(shape), 'served_at', microseconds())
    redis.call('HSET', key(run), 'served_at', microseconds())
  end
  if not able(run, shape, lease) then step_aside(run, shape, lease) end
end
for _, run in ipairs(lost) do drop_stream(run, shape) end
return found
"""

# ARGV: shape key. A worker is about to be ready for the shape: others need not hurry.
PROMISE = """
if redis.call('EXISTS', lane(ARGV[1])) == 0 then return 0 end
redis.call('HSET', lane(ARGV[1]), 'served_at', microseconds())
return 1
"""

# ARGV: consumer, then threes of run, shape key, entry. Renews the lease of those that are still the consumer's; returns
# the numbers, from 0, of those that another consumer has. What was settled or cancelled meanwhile is neither.
RENEW = """
local lost = {}
for a = 2, #ARGV, 3 do
  local name, entry = stream(ARGV[a], ARGV[a + 1]), ARGV[a + 2]
  local p = redis.pcall('XPENDING', name, 'workers', entry, entry, 1)
  if p.err == nil and p[1] then
    if p[1][2] == ARGV[1] then redis.call('XCLAIM', name, 'workers', ARGV[1], 0, entry, 'JUSTID')
    else lost[#lost + 1] = (a - 2) / 3 end
  end
end
return lost
"""

# ARGV: consumer, 1 if this delivery counts, then threes of run, shape key, entry. Gives back what is still the
# consumer's, to be claimed at once by anybody: an idle time of a day is over every lease.
RELEASE = """
local released = 0
for a = 3, #ARGV, 3 do
  local name, entry = stream(ARGV[a], ARGV[a + 1]), ARGV[a + 2]
  local p = redis.pcall('XPENDING', name, 'workers', entry, entry, 1)
  if p.err == nil and p[1] and p[1][2] == ARGV[1] then
    local tries = p[1][4] - (1 - ARGV[2])
    redis.call('XCLAIM', name, 'workers', 'released', 0, entry, 'IDLE', 86400000, 'RETRYCOUNT', tries, 'JUSTID')
    come_back(ARGV[a], ARGV[a + 1])
    released = released + 1
  end
end
return released
"""

# ARGV: consumer. Deletes it, and consumers idle for a day, where they hold nothing: in one step, since a consumer that
# is deleted takes what it holds with it.
LEAVE = """
for _, shape in ipairs(redis.call('SMEMBERS', 'promptmill:shapes')) do
  for _, run in ipairs(runs_of(shape)) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', stream(run, shape), 'workers')
    for _, flat in ipairs(consumers.err and {} or consumers) do
      local c = {}
      for k = 1, #flat, 2 do c[flat[k]] = flat[k + 1] end
      if c['pending'] == 0 and (c['name'] == ARGV[1] or c['idle'] > 86400000) then
        redis.call('XGROUP', 'DELCONSUMER', stream(run, shape), 'workers', c['name'])
      end
    end
  end
end
return 1
"""

# ARGV: run, shape key, entry, index, '' or the failure as JSON, the run's time of creation or ''. Takes the job out of
# its stream and sets its bit; counts it the first time only. A job that is done stays done, one that had failed may
# still turn out to be done. Nothing happens where the run was purged, or is another of the same name.
SETTLE = """
local run, shape, entry, index, failure = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local created = redis.call('HGET', key(run), 'created')
if not created or (ARGV[6] ~= '' and ARGV[6] ~= created) then return 0 end
local name = stream(run, shape)
local there = redis.call('XRANGE', name, entry, entry)[1]
if there and there[2][2] == index then -- else: the run was cancelled, and entered anew
  redis.call('XACK', name, 'workers', entry)
  redis.call('XDEL', name, entry)
  redis.call('HINCRBY', key(run), 'queued', -1)
  if redis.call('XLEN', name) == 0 then drop_stream(run, shape) end
end
if failure == '' then
  if mark_done(run, index) == 0 then return 0 end
  local now = seconds()
  redis.call('HSETNX', key(run), 'first_done', now)
  redis.call('HSET', key(run), 'last_done', now)
else
  if redis.call('GETBIT', key(run, 'done'), index) == 1 then return 0 end
  if redis.call('SETBIT', key(run, 'failed'), index, 1) == 1 then return 0 end
  redis.call('HINCRBY', key(run), 'failed', 1)
  redis.call('HSET', key(run, 'failures'), index, failure)
end
if over(run) or redis.call('HGET', key(run), 'state') == 'cancelled' then let_expire(run) end
return 1
"""

# Of each shape with unsettled jobs: its key, how many wait, and how many workers hold.
BACKLOG = """
local found = {}
for _, shape in ipairs(redis.call('SMEMBERS', 'promptmill:shapes')) do
  local unsettled, held = 0, 0
  for _, run in ipairs(runs_of(shape)) do
    unsettled = unsettled + redis.call('XLEN', stream(run, shape))
    local pending = redis.pcall('XPENDING', stream(run, shape), 'workers')
    held = held + (pending.err and 0 or pending[1])
  end
  if unsettled > 0 then found[#found + 1] = {shape, unsettled - held, held} end
end
return found
"""

# --- run control. Of an unknown run, each returns -1.

# ARGV: run. Returns how many images will not be rendered; what a finished run has is none, and it stays finished.
CANCEL = """
local run = ARGV[1]
local counts = redis.call('HMGET', key(run), 'images', 'done', 'failed')
if not counts[1] then return -1 end
if over(run) then return 0 end
redis.call('HSET', key(run), 'state', 'cancelled')
let_expire(run)
return counts[1] - counts[2] - counts[3]
"""

# ARGV: run, field (state or priority), value. Says it and lines the run up anew; what is over stays as it is.
CHANGE = """
local run = ARGV[1]
local said = redis.call('HMGET', key(run), 'state', ARGV[2])
if not said[1] then return -1 end
if said[2] == ARGV[3] or said[1] == 'cancelled' or over(run) then return 0 end
redis.call('HSET', key(run), ARGV[2], ARGV[3])
for _, shape in ipairs(redis.call('SMEMBERS', key(run, 'shapes'))) do line_up(run, shape) end
return 1
"""

# ARGV: run, 1 to purge it though it is not finished. Returns 1, or 0 where it is not finished.
PURGE = """
local run = ARGV[1]
local state = redis.call('HGET', key(run), 'state')
if state and state ~= 'cancelled' and ARGV[2] ~= '1' and not over(run) then return 0 end
drop_streams(run)
for _, part in ipairs(PARTS) do redis.call('UNLINK', key(run, part)) end
redis.call('UNLINK', key(run))
redis.call('ZREM', 'promptmill:runs', run)
return state and 1 or -1
"""
