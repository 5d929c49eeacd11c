-- Registers one connection of a user; announces the user who was offline.
--
-- USES     clock, whole, epoch, announce, deleted
-- KEYS[1]  hash    connections of the user: "<incarnation>/<connection>" -> connected at (ms)
-- KEYS[2]  set     what the owning node owes: "<user>/<connection>"
-- KEYS[3]  set     incarnations that have registered anything in this partition
-- KEYS[4]  set     online users of the partition
-- KEYS[5]  zset    users about to go offline, scored by when (ms)
-- KEYS[6]  string  number of the last transition
-- KEYS[7]  string  name of this life of the data
-- KEYS[8]  hash    last updates of the user; the field "deleted" marks a deleted account
-- KEYS[9]  string  tokens of the user that were issued before this time (ms) are refused
-- ARGV[1]  int     user id
-- ARGV[2]  string  incarnation of the owning node
-- ARGV[3]  int     connection on that node
-- ARGV[4]  int     most connections a user may have
-- ARGV[5]  string  presence channel (same hash tag as the keys)
-- ARGV[6]  int     when its token was issued (ms); empty for a token that does not say: any revocation refuses it
--
-- RETURNS   { 'ok', refcount, number of the last transition, connected at (ms) },
--           { 'deleted' } for a deleted account, { 'revoked' } for a token from before a revocation,
--           { 'full' } at the limit: nothing is changed
-- PUBLISHES { epoch, rev, online = [user], offline = [] } when the user was offline
-- REPEAT    safe: the same connection counts once and announces nothing

local connections, owed, nodes = KEYS[1], KEYS[2], KEYS[3]
local online, leaving          = KEYS[4], KEYS[5]
local rev_key, epoch_key       = KEYS[6], KEYS[7]
local profile, revoked         = KEYS[8], KEYS[9]
local user, incarnation        = ARGV[1], ARGV[2]
local connection               = ARGV[3]
local connections_max          = tonumber(ARGV[4])
local channel                  = ARGV[5]
local issued_at_ms             = tonumber(ARGV[6])

if is_deleted(profile) then
  return { 'deleted' }
end
local refused_before, rev = unpack(redis.call('MGET', revoked, rev_key))
if refused_before and (issued_at_ms or 0) < tonumber(refused_before) then
  return { 'revoked' }
end

local field    = incarnation .. '/' .. connection
local is_new   = redis.call('HSETNX', connections, field, whole(now_ms)) == 1
local refcount = redis.call('HLEN', connections)
if is_new and refcount > connections_max then
  redis.call('HDEL', connections, field)
  return { 'full' }
end
redis.call('SADD', owed, user .. '/' .. connection)
redis.call('SADD', nodes, incarnation)

-- A user with another connection is online already, and not about to leave.
if refcount == 1 then
  redis.call('ZREM', leaving, user)
  if redis.call('SADD', online, user) == 1 then
    rev = announce(epoch_key, rev_key, channel, user, '')
  end
end
local since = is_new and now_ms or tonumber(redis.call('HGET', connections, field)) or 0
return { 'ok', refcount, tonumber(rev or 0) or 0, since }
