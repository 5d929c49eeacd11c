-- Stores an update of one kind about a user and publishes it on the user's topic.
--
-- USES     clock, whole, epoch, once, deleted
-- KEYS[1]  hash    last updates of the user: "<kind>.revision", "<kind>.at" (ms), "<kind>.public", "<kind>.full"
-- KEYS[2]  string  name of this life of the data
-- KEYS[3]  string  answer already given to this request; lives for a minute
-- ARGV[1]  string  kind: profile, stats, friends, matches or friendships
-- ARGV[2]  int     revision chosen by the caller, or 0: the script assigns one
-- ARGV[3]  string  JSON that everybody may see, or "null"
-- ARGV[4]  string  JSON that friends and the user may see
-- ARGV[5]  int     ms for which the last updates are kept after the newest one
-- ARGV[6]  string  the user's topic (same hash tag as the keys)
--
-- RETURNS   { 'ok', revision, nodes that were listening }, { 'stale', stored revision } when the update is not newer,
--           or { 'deleted' } for a deleted account
-- PUBLISHES { kind, epoch, revision, public, full } when the update is newer
-- REPEAT    safe: the same request gets the same answer and publishes nothing

local profile, epoch_key, request = KEYS[1], KEYS[2], KEYS[3]
local kind                        = ARGV[1]
local revision                    = tonumber(ARGV[2])
local public, full                = ARGV[3], ARGV[4]
local keep_ms, channel            = ARGV[5], ARGV[6]

local answer = answered(request)
if answer then
  return answer
end
if is_deleted(profile) then
  return { 'deleted' }
end

local stored = tonumber(redis.call('HGET', profile, kind .. '.revision') or 0)
if revision == 0 then
  revision = math.max(time[1] * 1000000 + time[2], stored + 1)
end
-- Numbers beyond 2^53 - 1 lose digits: nothing is newer than the last one.
if revision <= stored or revision > 9007199254740991 then
  return { 'stale', stored }
end

redis.call('HSET', profile, kind .. '.revision', whole(revision), kind .. '.at', whole(now_ms),
  kind .. '.public', public, kind .. '.full', full)
redis.call('PEXPIRE', profile, keep_ms)

local nodes = redis.call('SPUBLISH', channel, '{"kind":"' .. kind
  .. '","epoch":"' .. epoch_at(epoch_key)
  .. '","revision":' .. whole(revision)
  .. ',"public":' .. public .. ',"full":' .. full .. '}')
return remember(request, { 'ok', revision, nodes })
