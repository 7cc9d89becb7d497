-- ARGV: consumer. Deletes it, and consumers idle for a day, where they hold nothing: in one step, since a consumer that
-- is deleted takes what it holds with it.

for _, shape in ipairs(shapes_in_use()) do
  for _, run in ipairs(runs_of(shape)) do
    local consumers = redis.pcall('XINFO', 'CONSUMERS', stream(run, shape), 'workers')
    for _, flat in ipairs(consumers.err and {} or consumers) do
      local c = {}
      for k = 1, #flat, 2 do c[flat[k]] = flat[k + 1] end
      if c['pending'] == 0 and (c['name'] == ARGV[1] or c['idle'] > 86400000) then
        redis.call('XGROUP', 'DELCONSUMER', stream(run, shape), 'workers', c['name'])
      end
    end
  end
end
return 1
