-- ARGV: run, the digest that it had, digest, jobs, images. The run's plan has grown: what is in stays, under its index.
-- Returns 1, or 0 where it has another digest by now, or is not known.

local run = ARGV[1]
if redis.call('HGET', key(run), 'digest') ~= ARGV[2] then return 0 end
if over(run) then stood_still(run) end
redis.call('HSET', key(run), 'digest', ARGV[3], 'jobs', ARGV[4], 'images', ARGV[5])
keep(run)
return 1
