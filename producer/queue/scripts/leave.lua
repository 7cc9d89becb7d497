-- ARGV: consumer. Deletes it where it holds nothing.

delete_consumers(function(c) return c['name'] == ARGV[1] end)
return 1
