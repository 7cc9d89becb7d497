-- ARGV: shape key. A worker is about to be ready for the shape: others need not hurry.

if redis.call('EXISTS', lane(ARGV[1])) == 0 then return 0 end
redis.call('HSET', lane(ARGV[1]), 'served_at', microseconds())
return 1
