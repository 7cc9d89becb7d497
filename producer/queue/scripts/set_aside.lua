-- ARGV: run, shape key, entry, what is to be kept of it, how many of those at most. Takes an entry that nobody can read
-- out of its stream; the bytes and the reason stay for a person to look at. Returns how many there were.

local run, shape, entry = ARGV[1], ARGV[2], ARGV[3]
local name = stream(run, shape)
redis.call('XACK', name, 'workers', entry)
if redis.call('XDEL', name, entry) == 1 and redis.call('XLEN', name) == 0 then drop_stream(run, shape) end
redis.call('LPUSH', MALFORMED, ARGV[4])
redis.call('LTRIM', MALFORMED, 0, ARGV[5] - 1)
return redis.call('INCR', MALFORMED .. ':count')
