-- ARGV: after how many milliseconds a consumer that did nothing is taken out, after how many a report is stale, for how
-- many nobody else sweeps. Takes out what dead workers leave behind: consumers, unless they hold something; what they
-- said of themselves; where Celery would leave commands for them. Nobody is harmed who is alive after all: a consumer
-- and a report are there again with the next claim and the next report. Returns 1, or 0 where another swept lately.

if not redis.call('SET', SWEPT, 1, 'NX', 'PX', ARGV[3]) then return 0 end
local idle, stale_since = tonumber(ARGV[1]), microseconds() / 1e6 - ARGV[2] / 1000
delete_consumers(function(c) return c['idle'] >= idle end)
local reports = redis.call('HGETALL', WORKERS)
for k = 1, #reports, 2 do
  local readable, report = pcall(cjson.decode, reports[k + 1])
  local at = readable and type(report) == 'table' and tonumber(report['at'])
  if not at or at < stale_since then
    redis.call('HDEL', WORKERS, reports[k])
    redis.call('SREM', PIDBOX, '\6\22\6\22' .. reports[k] .. '.celery.pidbox')
  end
end
return 1
