-- Redis runs each script with lib.lua before it: what that defines is there for the others.
std = "lua51"
max_line_length = 120
read_globals = {"redis", "cjson", "KEYS", "ARGV"}

local lib = {}
for line in io.lines("producer/queue/scripts/lib.lua") do
  local names = line:match("^local function ([%w_]+)") or line:match("^local ([%w_, ]+) =")
  for name in (names or ""):gmatch("[%w_]+") do lib[#lib + 1] = name end
end
files["producer/queue/scripts/*.lua"] = {read_globals = lib}
files["producer/queue/scripts/lib.lua"] = {ignore = {"211"}} -- unused there
