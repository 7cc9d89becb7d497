-- ARGV: shape key, consumer, count, lease in ms, max deliveries, outputs whose runs are passed over. Fills one batch
-- from the runs in their turns; of each, what dead workers held goes first, then new jobs. A job that is at its last
-- delivery comes alone. Returns of each run its name, output, shared fields, time of creation, encoding of images, and
-- (entry, deliveries, fields) of each job; those over the maximum are for the caller to give up, and are not counted.

local shape, consumer, lease, max = ARGV[1], ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5])
local size = tonumber(ARGV[3])
local room, alone = size, false

local function from_the_dead(name, claims)
  local pending = redis.pcall('XPENDING', name, 'workers', 'IDLE', lease, '-', '+', size)
  if pending.err then return false end
  local deliveries, take = {}, {}
  for _, p in ipairs(pending) do
    local id, before = p[1], tonumber(p[4])
    local last = before == max - 1
    local own = p[2] == consumer and tonumber(p[3]) < 10 * lease -- it slept, and renews them any moment
    local fits = not alone and room > 0 and (not last or room == size)
    if not own and (before >= max or fits) then
      take[#take + 1], deliveries[id] = id, before + 1
      if before < max then room, alone = room - 1, last end
    end
  end
  if #take > 0 then
    for _, e in ipairs(redis.call('XCLAIM', name, 'workers', consumer, lease, unpack(take))) do
      if e and e[2] then claims[#claims + 1] = {e[1], deliveries[e[1]], e[2]} end
    end
  end
  return true
end

local function new_ones(name, claims)
  local new = redis.call('XREADGROUP', 'GROUP', 'workers', consumer, 'COUNT', room, 'STREAMS', name, '>')
  if not new then return end
  for _, e in ipairs(new[1][2]) do claims[#claims + 1] = {e[1], 1, e[2]} end
  room = room - #new[1][2]
end

local found, seen, lost = {}, {}, {}
look_for_the_dead(shape, lease)
in_turn(shape, function(run, score)
  if passed_over(run, 6) then return false end
  local said, claims, before = redis.call('HMGET', key(run), 'output', 'common', 'created', 'encoding'), {}, room
  if not said[1] or not from_the_dead(stream(run, shape), claims) then
    lost[#lost + 1] = run
    return false
  end
  if room > 0 and not alone then new_ones(stream(run, shape), claims) end
  if #claims > 0 then found[#found + 1] = {run, said[1], said[2], said[3], said[4], claims} end
  seen[#seen + 1] = {run, score, before - room}
  return alone or room == 0
end)

for _, s in ipairs(seen) do
  local run, score, taken = s[1], s[2], s[3]
  if taken > 0 then
    redis.call('ZADD', turns(shape), score + taken, run)
    redis.call('HSET', lane(shape), 'served_at', microseconds())
    redis.call('HSET', key(run), 'served_at', microseconds())
  end
  if not able(run, shape, lease) then step_aside(run, shape, lease) end
end
for _, run in ipairs(lost) do drop_stream(run, shape) end
return found
