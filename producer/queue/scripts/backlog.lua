-- Of each shape with unsettled jobs: its key, how many wait, and how many workers hold.

local found = {}
for _, shape in ipairs(shapes_in_use()) do
  local unsettled, held = 0, 0
  for _, run in ipairs(runs_of(shape)) do
    unsettled = unsettled + redis.call('XLEN', stream(run, shape))
    local pending = redis.pcall('XPENDING', stream(run, shape), 'workers')
    held = held + (pending.err and 0 or pending[1])
  end
  if unsettled > 0 then found[#found + 1] = {shape, unsettled - held, held} end
end
return found
