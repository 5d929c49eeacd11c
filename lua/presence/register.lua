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
-- ARGV[6]  int     when its token was issued (ms); 0 for a token that does not say: any revocation refuses it
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
if issued_at_ms < tonumber(redis.call('GET', revoked) or 0) then
  return { 'revoked' }
end

local field = incarnation .. '/' .. connection
if redis.call('HLEN', connections) >= connections_max
    and redis.call('HEXISTS', connections, field) == 0 then
  return { 'full' }
end

redis.call('HSETNX', connections, field, whole(now_ms))
redis.call('SADD', owed, user .. '/' .. connection)
redis.call('SADD', nodes, incarnation)
redis.call('ZREM', leaving, user)
local refcount = redis.call('HLEN', connections)
local since    = tonumber(redis.call('HGET', connections, field)) or 0
local rev
if redis.call('SADD', online, user) == 1 then
  rev = announce(epoch_key, rev_key, channel, user, '')
else
  rev = tonumber(redis.call('GET', rev_key) or 0) or 0
end
return { 'ok', refcount, rev, since }
