-- ARGV: consumer, then threes of run, shape key, entry. Renews the lease of those that are still the consumer's;
-- returns the numbers, from 0, of those that another consumer has. What was settled or cancelled meanwhile is neither.

local lost = {}
for a = 2, #ARGV, 3 do
  local name, entry = stream(ARGV[a], ARGV[a + 1]), ARGV[a + 2]
  local p = redis.pcall('XPENDING', name, 'workers', entry, entry, 1)
  if p.err == nil and p[1] then
    if p[1][2] == ARGV[1] then redis.call('XCLAIM', name, 'workers', ARGV[1], 0, entry, 'JUSTID')
    else lost[#lost + 1] = (a - 2) / 3 end
  end
end
return lost
