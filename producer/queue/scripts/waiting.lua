-- Of each shape with unsettled jobs: its key, and of each run with any a triple of its name, how many wait, and how
-- many workers hold.

local found = {}
for _, shape in ipairs(shapes_in_use()) do
  local of = {}
  for _, run in ipairs(runs_of(shape)) do
    local unsettled = redis.call('XLEN', stream(run, shape))
    local pending = redis.pcall('XPENDING', stream(run, shape), 'workers')
    local held = pending.err and 0 or pending[1]
    if unsettled > 0 then of[#of + 1] = {run, unsettled - held, held} end
  end
  if #of > 0 then found[#found + 1] = {shape, of} end
end
return found
