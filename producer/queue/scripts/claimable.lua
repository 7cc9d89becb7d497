-- ARGV: lease in ms, outputs whose runs are passed over. Of each shape with a job that a worker could claim now: its
-- key, the rank of the run that would be served, and for how long the shape and that run were not served, in
-- microseconds.

local lease, now, found = tonumber(ARGV[1]), microseconds(), {}
for _, shape in ipairs(shapes_in_use()) do
  look_for_the_dead(shape, lease)
  local unable = {}
  in_turn(shape, function(run, score)
    if not able(run, shape, lease) then
      unable[#unable + 1] = run
      return false
    end
    if passed_over(run, 2) then return false end
    local served = redis.call('HMGET', key(run), 'served_at', 'created')
    local shape_served = redis.call('HGET', lane(shape), 'served_at') or now
    local run_served = served[1] or (served[2] or 0) * 1e6
    found[#found + 1] = {shape, math.floor(score / BAND), now - shape_served, now - run_served}
    return true
  end)
  for _, run in ipairs(unable) do
    if redis.call('EXISTS', stream(run, shape)) == 1 then step_aside(run, shape, lease)
    else drop_stream(run, shape) end
  end
end
return found
