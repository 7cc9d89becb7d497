-- ARGV: consumer, 1 if this delivery counts, then threes of run, shape key, entry. Gives back what is still the
-- consumer's, to be claimed at once by anybody: an idle time of a day is over every lease.

local released = 0
for a = 3, #ARGV, 3 do
  local name, entry = stream(ARGV[a], ARGV[a + 1]), ARGV[a + 2]
  local p = redis.pcall('XPENDING', name, 'workers', entry, entry, 1)
  if p.err == nil and p[1] and p[1][2] == ARGV[1] then
    local tries = p[1][4] - (1 - ARGV[2])
    redis.call('XCLAIM', name, 'workers', 'released', 0, entry, 'IDLE', 86400000, 'RETRYCOUNT', tries, 'JUSTID')
    come_back(ARGV[a], ARGV[a + 1])
    released = released + 1
  end
end
return released
