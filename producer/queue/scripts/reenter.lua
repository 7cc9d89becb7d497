-- ARGV: run, then threes of index, shape key, job. Enters those anew that count as done or failed; returns how many, or
-- -1 and -2 as above.

local run, entered = ARGV[1], 0
local state = redis.call('HGET', key(run), 'state')
if not state then return -1 end
if state == 'cancelled' then return -2 end
local was_over = over(run)
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
  if was_over then stood_still(run) end
  keep(run)
end
return entered
