-- ARGV: consumer, 1 if this delivery counts, for how long they count as idle in ms, then threes of run, shape key,
-- entry. Gives back what is still the consumer's, to be claimed by anybody to whose lease so much idle time is enough.

local released = 0
for a = 4, #ARGV, 3 do
  local run, shape, entry = ARGV[a], ARGV[a + 1], ARGV[a + 2]
  local p = redis.pcall('XPENDING', stream(run, shape), 'workers', entry, entry, 1)
  if p.err == nil and p[1] and p[1][2] == ARGV[1] then
    give_back(run, shape, entry, p[1][4] - (1 - ARGV[2]), ARGV[3])
    released = released + 1
  end
end
return released
