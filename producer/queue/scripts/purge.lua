-- ARGV: run, 1 to purge it though it is not finished. Returns 1, or 0 where it is not finished.

local run = ARGV[1]
local state = redis.call('HGET', key(run), 'state')
if state and state ~= 'cancelled' and ARGV[2] ~= '1' and not over(run) then return 0 end
drop_streams(run)
for _, part in ipairs(PARTS) do redis.call('UNLINK', key(run, part)) end
redis.call('UNLINK', key(run))
redis.call('ZREM', RUNS, run)
return state and 1 or -1
