-- ARGV: shape key, consumer. Renews a mark that is there.

local name = compiling(ARGV[1])
if redis.call('HEXISTS', name, ARGV[2]) == 1 then
  redis.call('HSET', name, ARGV[2], microseconds())
  redis.call('EXPIRE', name, MARKS_KEPT_S)
end
return 1
