-- Stores an update of one kind about a user and publishes it on the user's topic.
--
-- USES     clock, whole, epoch, once
-- KEYS[1]  hash    last updates of the user: "<kind>.revision", "<kind>.at" (ms), "<kind>.public", "<kind>.full";
--                  "expires": when the hash does (ms), or before
-- KEYS[2]  string  name of this life of the data
-- KEYS[3]  hash    answers to the requests of even minutes
-- KEYS[4]  hash    answers to the requests of odd minutes
-- ARGV[1]  string  kind: profile, stats, friends, matches or friendships
-- ARGV[2]  int     revision chosen by the caller, or empty: the script assigns one
-- ARGV[3]  string  JSON that everybody may see, or "null"
-- ARGV[4]  string  JSON that friends and the user may see
-- ARGV[5]  int     ms for which the last updates are kept after the newest one, at least nine tenths of it
-- ARGV[6]  string  the user's topic (same hash tag as the keys)
-- ARGV[7]  string  the request
--
-- RETURNS   { 'ok', revision, nodes that were listening }, { 'stale', stored revision } when the update is not newer,
--           or { 'deleted' } for a deleted account
-- PUBLISHES { kind, epoch, revision, public, full } when the update is newer
-- REPEAT    safe: the same request gets the same answer and publishes nothing

local profile, epoch_key = KEYS[1], KEYS[2]
local even, odd          = KEYS[3], KEYS[4]
local kind               = ARGV[1]
local revision           = tonumber(ARGV[2])
local public, full       = ARGV[3], ARGV[4]
local keep_ms            = tonumber(ARGV[5])
local channel, request   = ARGV[6], ARGV[7]

local answer = answered(even, odd, request)
if answer then
  return answer
end
local deleted, stored, expires = unpack(redis.call('HMGET', profile, 'deleted', kind .. '.revision', 'expires'))
if deleted then
  return { 'deleted' }
end

stored   = tonumber(stored or 0)
revision = revision or math.max(time[1] * 1000000 + time[2], stored + 1)
-- Numbers beyond 2^53 - 1 lose digits: nothing is newer than the last one.
if revision <= stored or revision > 9007199254740991 then
  return { 'stale', stored }
end

local at, until_ms = whole(now_ms), now_ms + keep_ms
redis.call('HSET', profile, kind .. '.revision', whole(revision), kind .. '.at', at,
  kind .. '.public', public, kind .. '.full', full)
if until_ms - (tonumber(expires) or 0) > keep_ms / 10 then
  redis.call('HSET', profile, 'expires', whole(until_ms))
  redis.call('PEXPIRE', profile, whole(keep_ms))
end

local epoch = redis.call('GET', epoch_key) or begin_epoch(epoch_key)
local nodes = redis.call('SPUBLISH', channel, '{"kind":"' .. kind
  .. '","epoch":"' .. epoch
  .. '","revision":' .. whole(revision)
  .. ',"public":' .. public .. ',"full":' .. full .. '}')
return remember(even, odd, request, { 'ok', revision, nodes })
