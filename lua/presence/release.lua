-- Releases connections of one node; after the last one a user is about to go offline.
--
-- USES     clock, whole
-- KEYS[1]  set   what the owning node owes: "<user>/<connection>"
-- KEYS[2]  set   incarnations that have registered anything in this partition
-- KEYS[3]  zset  users about to go offline, scored by when (ms)
-- KEYS[4…]       for each connection: hash, connections of its user: "<incarnation>/<connection>" -> connected at (ms)
-- ARGV[1]  string  incarnation of the owning node
-- ARGV[2]  int     grace before a user goes offline (ms)
-- ARGV[3…]         for each connection: int, user id; int, connection on the node
--
-- RETURNS   how many users are about to go offline, of those whose connections these were
-- PUBLISHES nothing: expire.lua announces who went offline
-- REPEAT    safe: a connection is released once, a running grace does not start over

local owed, nodes, leaving = KEYS[1], KEYS[2], KEYS[3]
local incarnation          = ARGV[1]
local grace_ms             = tonumber(ARGV[2])

local offline_at           = whole(now_ms + grace_ms)
local entries, is_counted  = {}, {}
local departing            = 0
for at = 3, #ARGV, 2 do
  local user, connection = ARGV[at], ARGV[at + 1]
  local connections      = KEYS[(at + 5) / 2]
  local was_registered   = redis.call('HDEL', connections, incarnation .. '/' .. connection) == 1
  entries[#entries + 1]  = user .. '/' .. connection
  if redis.call('EXISTS', connections) == 0 then
    if was_registered then
      redis.call('ZADD', leaving, 'NX', offline_at, user)
    end
    if not is_counted[user] and (was_registered or redis.call('ZSCORE', leaving, user)) then
      is_counted[user] = true
      departing        = departing + 1
    end
  end
end
redis.call('SREM', owed, unpack(entries))
if redis.call('EXISTS', owed) == 0 then
  redis.call('SREM', nodes, incarnation)
end
return departing
