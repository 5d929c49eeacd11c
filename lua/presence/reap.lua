-- Releases what a dead incarnation owes, at most a batch of it.
--
-- USES     clock, whole
-- KEYS[1]  set   what the incarnation owes: "<user>/<connection>"
-- KEYS[2]  set   incarnations that have registered anything in this partition
-- KEYS[3]  set   online users of the partition
-- KEYS[4]  zset  users about to go offline, scored by when (ms)
-- ARGV[1]  string  the dead incarnation
-- ARGV[2]  string  what the keys of users' connections begin with (same hash tag as the keys)
-- ARGV[3]  int     most connections to release in this call
-- ARGV[4]  int     grace before a user goes offline (ms)
--
-- RETURNS   { connections released, connections left }
-- PUBLISHES nothing: expire.lua announces who went offline
-- REPEAT    safe: a connection is released once

local owed, nodes       = KEYS[1], KEYS[2]
local online, leaving   = KEYS[3], KEYS[4]
local incarnation       = ARGV[1]
local connections_begin = ARGV[2]
local batch_max         = tonumber(ARGV[3])
local grace_ms          = tonumber(ARGV[4])

local offline_at          = whole(now_ms + grace_ms)

-- Each entry goes only after its connection: a migrating slot may stop the script halfway.
local batch = redis.call('SRANDMEMBER', owed, batch_max)
for _, entry in ipairs(batch) do
  local user, connection = string.match(entry, '^(%d+)/(%d+)$')
  if user then
    -- The entry names the key; its hash tag is the partition's.
    local connections = connections_begin .. user
    redis.call('HDEL', connections, incarnation .. '/' .. connection)
    if redis.call('EXISTS', connections) == 0 and redis.call('SISMEMBER', online, user) == 1 then
      redis.call('ZADD', leaving, 'NX', offline_at, user)
    end
  end
  redis.call('SREM', owed, entry)
end

local left = redis.call('SCARD', owed)
if left == 0 then
  redis.call('SREM', nodes, incarnation)
end
return { #batch, left }
