-- What the scripts share; the loader puts it before each. Names of keys are keys.py's.

local BAND, PAUSED, RANKS = 1e14, 3, {urgent = 0, normal = 1, low = 2}

local RUNS, SHAPES, MALFORMED = 'promptmill:runs', 'promptmill:shapes', 'promptmill:malformed'
local WORKERS, SWEPT = 'promptmill:workers', 'promptmill:workers:swept'
-- Whoever compiles renews its mark far more often; of those that died this is the time in which they are counted.
local MARKS_KEPT_S = 3600
local PIDBOX = '_kombu.binding.celery.pidbox'
local function key(run, part) return 'promptmill:run:' .. run .. (part and ':' .. part or '') end
local function stream(run, shape) return 'promptmill:queue:' .. run .. ':' .. shape end
local function turns(shape) return 'promptmill:turns:' .. shape end
local function held(shape) return 'promptmill:held:' .. shape end
local function lane(shape) return 'promptmill:shape:' .. shape end
local function compiling(shape) return 'promptmill:compiling:' .. shape end

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
  if redis.call('SADD', SHAPES, shape) == 1 then
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

-- What is pending of a stream under a consumer's name, as XPENDING has it.
local function pending_of(name, consumer)
  local pending = redis.pcall('XPENDING', name, 'workers', '-', '+', 1000, consumer)
  return pending.err and {} or pending
end

-- Gives an entry back with so many deliveries. It can be claimed by anybody who finds it idle for long enough: at once
-- after a day, which is over every lease.
local DAY_MS = 86400000
local function give_back(run, shape, entry, deliveries, idle)
  local said = {'IDLE', idle, 'RETRYCOUNT', deliveries, 'JUSTID'}
  redis.call('XCLAIM', stream(run, shape), 'workers', 'released', 0, entry, unpack(said))
  come_back(run, shape)
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
    redis.call('SREM', SHAPES, shape)
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

-- Times in which a run stands still are no part of its rate: `stopped_s` sums them up.

local STOP_S, STOP_GAPS, BURST_S = 15, 5, 1 -- as promptmill/verbs/rates.py; images of one batch land together

-- Ends a time in which nothing could land, which began at the last image, or at `since` where that is later.
local function stood_still(run, since)
  local said = redis.call('HMGET', key(run), 'last_done', 'going_since')
  if not said[1] then return end
  local now = seconds()
  local stopped = now - math.max(said[1], tonumber(said[2]) or 0, since or 0)
  redis.call('HINCRBYFLOAT', key(run), 'stopped_s', string.format('%.6f', stopped))
  redis.call('HSET', key(run), 'going_since', now)
end

-- An image has landed. After a gap that is much longer than usual, only the usual one counts.
local function landed(run)
  local now = seconds()
  local said = redis.call('HMGET', key(run), 'first_done', 'last_done', 'going_since', 'stopped_s', 'bursts')
  if not said[1] then
    redis.call('HSET', key(run), 'first_done', now, 'last_done', now, 'bursts', 1)
    return
  end
  local bursts = tonumber(said[5]) or 1
  local gap = now - math.max(said[2], tonumber(said[3]) or 0)
  if now - said[2] > BURST_S then
    local usual = (said[2] - said[1] - (said[4] or 0)) / math.max(bursts - 1, 1)
    if bursts > 1 and gap > math.max(STOP_S, STOP_GAPS * usual) then
      redis.call('HINCRBYFLOAT', key(run), 'stopped_s', string.format('%.6f', gap - usual))
    end
    bursts = bursts + 1
  end
  redis.call('HSET', key(run), 'last_done', now, 'bursts', bursts)
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

-- The shapes that have a stream of any run. What else is in the set, or left behind, is swept.
local function shapes_in_use()
  local found = {}
  for _, shape in ipairs(redis.call('SMEMBERS', SHAPES)) do
    local waiting, away = redis.pcall('ZCARD', turns(shape)), redis.pcall('ZCARD', held(shape))
    if type(waiting) == 'number' and type(away) == 'number' and waiting + away > 0 then
      found[#found + 1] = shape
    else
      redis.call('SREM', SHAPES, shape)
      redis.call('DEL', lane(shape))
    end
  end
  return found
end

-- Deletes the consumers of all streams of which `which` is true and that hold nothing: in one step with the look, since
-- a consumer that is deleted takes what it holds with it.
local function delete_consumers(which)
  for _, shape in ipairs(shapes_in_use()) do
    for _, run in ipairs(runs_of(shape)) do
      local consumers = redis.pcall('XINFO', 'CONSUMERS', stream(run, shape), 'workers')
      for _, flat in ipairs(consumers.err and {} or consumers) do
        local c = {}
        for k = 1, #flat, 2 do c[flat[k]] = flat[k + 1] end
        if c['pending'] == 0 and which(c) then
          redis.call('XGROUP', 'DELCONSUMER', stream(run, shape), 'workers', c['name'])
        end
      end
    end
  end
end
