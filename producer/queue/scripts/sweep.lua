-- ARGV: run. Takes the name off the list, if its hash has expired.

if redis.call('EXISTS', key(ARGV[1])) == 1 then return 0 end
return redis.call('ZREM', RUNS, ARGV[1])
