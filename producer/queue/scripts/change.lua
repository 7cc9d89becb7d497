-- ARGV: run, field (state or priority), value. Says it and lines the run up anew; what is over stays as it is.

local run = ARGV[1]
local said = redis.call('HMGET', key(run), 'state', ARGV[2])
if not said[1] then return -1 end
if said[2] == ARGV[3] or said[1] == 'cancelled' or over(run) then return 0 end
redis.call('HSET', key(run), ARGV[2], ARGV[3])
if ARGV[3] == 'paused' then redis.call('HSET', key(run), 'paused_at', seconds()) end
if ARGV[3] == 'running' then stood_still(run, tonumber(redis.call('HGET', key(run), 'paused_at'))) end
for _, shape in ipairs(redis.call('SMEMBERS', key(run, 'shapes'))) do line_up(run, shape) end
return 1
