-- Registers connections again that were admitted before, and what a node lost with the data: every record about them is
-- made right. Announces the users who were offline.
--
-- USES     clock, whole, epoch, announce, deleted
-- KEYS[1]  set     what the owning node owes: "<user>/<connection>"
-- KEYS[2]  set     incarnations that have registered anything in this partition
-- KEYS[3]  set     online users of the partition
-- KEYS[4]  zset    users about to go offline, scored by when (ms)
-- KEYS[5]  string  number of the last transition
-- KEYS[6]  string  name of this life of the data
-- KEYS[7…]         for each connection: hash, connections of its user; hash, last updates of its user
-- ARGV[1]  string  incarnation of the owning node
-- ARGV[2]  string  presence channel (same hash tag as the keys)
-- ARGV[3…]         for each connection: int, user id; int, connection on the node
--
-- RETURNS   how many are registered: all but those of deleted accounts
-- PUBLISHES { epoch, rev, online = [users], offline = [] } when any user was offline
-- REPEAT    safe: the same connection counts once and announces nothing

local owed, nodes          = KEYS[1], KEYS[2]
local online, leaving      = KEYS[3], KEYS[4]
local rev_key, epoch_key   = KEYS[5], KEYS[6]
local incarnation, channel = ARGV[1], ARGV[2]

local users, entries = {}, {}
for at = 3, #ARGV, 2 do
  local user, connection     = ARGV[at], ARGV[at + 1]
  local connections, profile = KEYS[at + 4], KEYS[at + 5]
  if not is_deleted(profile) then
    redis.call('HSETNX', connections, incarnation .. '/' .. connection, whole(now_ms))
    users[#users + 1]     = user
    entries[#entries + 1] = user .. '/' .. connection
  end
end
if #users == 0 then
  return 0
end
redis.call('SADD', owed, unpack(entries))
redis.call('SADD', nodes, incarnation)
redis.call('ZREM', leaving, unpack(users))

local came = {}
for _, user in ipairs(users) do
  if redis.call('SADD', online, user) == 1 then
    came[#came + 1] = user
  end
end
if #came > 0 then
  announce(epoch_key, rev_key, channel, table.concat(came, ','), '')
end
return #users
