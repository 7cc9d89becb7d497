-- ARGV: consumer, then threes of run, shape key, entry: what the consumer knows that it holds. Gives back all else that
-- is pending under its name: claims whose answer it never got. Returns how many.

local known, released = {}, 0
for a = 2, #ARGV, 3 do known[stream(ARGV[a], ARGV[a + 1]) .. ' ' .. ARGV[a + 2]] = true end
for _, shape in ipairs(shapes_in_use()) do
  for _, run in ipairs(runs_of(shape)) do
    local name = stream(run, shape)
    for _, p in ipairs(pending_of(name, ARGV[1])) do
      if not known[name .. ' ' .. p[1]] then
        give_back(run, shape, p[1], p[4] - 1, DAY_MS)
        released = released + 1
      end
    end
  end
end
return released
