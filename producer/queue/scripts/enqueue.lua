-- ARGV: run, start, end, present indexes as JSON, then of each shape: its key, how many jobs, and an index and a job
-- for each. Enters the plan's indexes start..end unless they are in; returns how far the run is entered now, -1 where
-- the run is not known, -2 where it is cancelled. A submitter that was killed goes on from there.

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
