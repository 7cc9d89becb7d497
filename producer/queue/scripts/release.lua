-- ARGV: consumer, 1 if this delivery counts, then threes of run, shape key, entry. Gives back what is still the
-- consumer's, to be claimed at once by anybody.

local released = 0
for a = 3, #ARGV, 3 do
  local run, shape, entry = ARGV[a], ARGV[a + 1], ARGV[a + 2]
  local p = redis.pcall('XPENDING', stream(run, shape), 'workers', entry, entry, 1)
  if p.err == nil and p[1] and p[1][2] == ARGV[1] then
    give_back(run, shape, entry, p[1][4] - (1 - ARGV[2]))
    released = released + 1
  end
end
return released
