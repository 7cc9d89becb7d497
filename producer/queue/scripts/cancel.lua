-- ARGV: run. Returns how many images will not be rendered; what a finished run has is none, and it stays finished.

local run = ARGV[1]
local counts = redis.call('HMGET', key(run), 'images', 'done', 'failed')
if not counts[1] then return -1 end
if over(run) then return 0 end
redis.call('HSET', key(run), 'state', 'cancelled')
let_expire(run)
return counts[1] - counts[2] - counts[3]
