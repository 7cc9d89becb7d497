-- ARGV: shape key, consumer, lease in ms, 1 to begin, how many deaths are too many. Returns the deaths, how many others
-- are at it, and 1 if the consumer was entered: it is not where deaths are too many, or some and another is trying.

local name, me, now = compiling(ARGV[1]), ARGV[2], microseconds()
-- Nobody could renew anything before this Redis was up: marks are as fresh as it is. A user who may not ask: 0.
local told = redis.pcall('INFO', 'server')
local up_s = type(told) == 'string' and tonumber(string.match(told, 'uptime_in_seconds:(%d+)'))
local up_since = up_s and now - 1000000 * up_s or 0
local function host(consumer) return string.match(consumer, '^(.*)/') or consumer end
local marks, newest = redis.call('HGETALL', name), {[host(me)] = math.huge}
for k = 1, #marks, 2 do
  newest[host(marks[k])] = math.max(newest[host(marks[k])] or 0, tonumber(marks[k + 1]))
end
local deaths, others = 0, 0
for k = 1, #marks, 2 do
  local seen = tonumber(marks[k + 1])
  if marks[k] ~= me then
    local fresh = now - math.max(seen, up_since) <= 1000 * ARGV[3]
    if seen == newest[host(marks[k])] and fresh then others = others + 1
    else deaths = deaths + 1 end
  end
end
if ARGV[4] == '1' and deaths < tonumber(ARGV[5]) and (deaths == 0 or others == 0) then
  redis.call('HSET', name, me, now)
  redis.call('EXPIRE', name, MARKS_KEPT_S)
  return {deaths, others, 1}
end
return {deaths, others, 0}
