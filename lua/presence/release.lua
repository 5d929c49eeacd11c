-- Releases one connection of a user; after the last one the user is about to go offline.
--
-- USES     clock, whole
-- KEYS[1]  hash  connections of the user: "<incarnation>/<connection>" -> connected at (ms)
-- KEYS[2]  set   what the owning node owes: "<user>/<connection>"
-- KEYS[3]  set   incarnations that have registered anything in this partition
-- KEYS[4]  set   online users of the partition
-- KEYS[5]  zset  users about to go offline, scored by when (ms)
-- ARGV[1]  int     user id
-- ARGV[2]  string  incarnation of the owning node
-- ARGV[3]  int     connection on that node
-- ARGV[4]  int     grace before the user goes offline (ms)
--
-- RETURNS   { refcount, time at which the user goes offline (ms), or nil while the user has connections or is offline }
-- PUBLISHES nothing: expire.lua announces who went offline
-- REPEAT    safe: a connection is released once, a running grace does not start over

local connections, owed, nodes = KEYS[1], KEYS[2], KEYS[3]
local online, leaving          = KEYS[4], KEYS[5]
local user, incarnation        = ARGV[1], ARGV[2]
local connection               = ARGV[3]
local grace_ms                 = tonumber(ARGV[4])

redis.call('HDEL', connections, incarnation .. '/' .. connection)
redis.call('SREM', owed, user .. '/' .. connection)
if redis.call('EXISTS', owed) == 0 then
  redis.call('SREM', nodes, incarnation)
end

local refcount = redis.call('HLEN', connections)
if refcount > 0 or redis.call('SISMEMBER', online, user) == 0 then
  return { refcount, false }
end

redis.call('ZADD', leaving, 'NX', whole(now_ms + grace_ms), user)
return { refcount, tonumber(redis.call('ZSCORE', leaving, user)) }
