-- ARGV: run, output, digest, jobs, images, common, priority, keep_s, encoding. Enters the run, or finds it entered; one
-- that was cancelled begins anew, as if Redis had never heard of it. Returns the output and digest that the name stands
-- for.

local run = ARGV[1]
local known = redis.call('HMGET', key(run), 'output', 'digest', 'state')
if known[1] and (known[1] ~= ARGV[2] or known[2] ~= ARGV[3]) then return {known[1], known[2]} end
if not known[1] or known[3] == 'cancelled' then
  drop_streams(run)
  for _, part in ipairs(PARTS) do redis.call('DEL', key(run, part)) end
  redis.call('HSET', key(run), 'output', ARGV[2], 'digest', ARGV[3], 'jobs', ARGV[4], 'images', ARGV[5],
    'common', ARGV[6], 'encoding', ARGV[9],
    'state', 'running', 'enqueued', 0, 'queued', 0, 'present', 0, 'done', 0, 'failed', 0)
  redis.call('HSETNX', key(run), 'priority', ARGV[7])
  redis.call('HSETNX', key(run), 'created', seconds())
  redis.call('HDEL', key(run), 'first_done', 'last_done', 'cut', 'stopped_s', 'going_since', 'bursts', 'paused_at')
  redis.call('ZADD', RUNS, 'NX', redis.call('HGET', key(run), 'created'), run)
end
redis.call('HSET', key(run), 'keep_s', ARGV[8])
keep(run)
if over(run) then let_expire(run) end
return {ARGV[2], ARGV[3]}
