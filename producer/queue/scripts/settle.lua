-- ARGV: run, shape key, entry, index, '' or the failure as JSON, the run's time of creation or '', 1 where the prompt's
-- end was cut off. Takes the job out of its stream and sets its bit; counts it the first time only. A job that is done
-- stays done, one that had failed may still turn out to be done. Nothing happens where the run was purged, or is
-- another of the same name.

local run, shape, entry, index, failure = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local created = redis.call('HGET', key(run), 'created')
if not created or (ARGV[6] ~= '' and ARGV[6] ~= created) then return 0 end
local name = stream(run, shape)
local there = redis.call('XRANGE', name, entry, entry)[1]
if there and there[2][2] == index then
  redis.call('XACK', name, 'workers', entry)
  redis.call('XDEL', name, entry)
  redis.call('HINCRBY', key(run), 'queued', -1)
  if redis.call('XLEN', name) == 0 then drop_stream(run, shape) end
elseif redis.call('HGET', key(run), 'state') ~= 'cancelled' then
  -- The job was entered anew, and waits under another entry, whose worker will find the image that is there; or it is
  -- settled; or it is not yet entered anew, and need not be. One that failed has no entry either, and may yet be done.
  local waits = tonumber(index) < tonumber(redis.call('HGET', key(run), 'enqueued'))
  if failure ~= '' or (waits and redis.call('GETBIT', key(run, 'failed'), index) == 0) then return 0 end
end
-- Somebody else's entry: a bit there would be as many bytes as its index is eighths.
if tonumber(index) >= count(run, 'jobs') then return 0 end
if failure == '' then
  if mark_done(run, index) == 0 then return 0 end
  if ARGV[7] == '1' then redis.call('HINCRBY', key(run), 'cut', 1) end
  landed(run)
else
  if redis.call('GETBIT', key(run, 'done'), index) == 1 then return 0 end
  if redis.call('SETBIT', key(run, 'failed'), index, 1) == 1 then return 0 end
  redis.call('HINCRBY', key(run), 'failed', 1)
  redis.call('HSET', key(run, 'failures'), index, failure)
end
if over(run) or redis.call('HGET', key(run), 'state') == 'cancelled' then let_expire(run) end
return 1
