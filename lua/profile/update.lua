-- Stores an update of one kind about a user and publishes it on the user's topic.
--
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
-- RETURNS   { 'ok', revision, nodes that were listening }, { 'stale', stored revision, 0 } when
--           the update is not newer, { 'deleted', 0, 0 } for a deleted account
-- PUBLISHES { kind, epoch, revision, public, full } when the update is newer
-- REPEAT    safe: the same request answers the same and publishes nothing

local profile, epoch_key, request = KEYS[1], KEYS[2], KEYS[3]
local kind                        = ARGV[1]
local revision                    = tonumber(ARGV[2])
local public, full                = ARGV[3], ARGV[4]
local keep_ms, channel            = ARGV[5], ARGV[6]

local answered = redis.call('GET', request)
if answered then
  local answer = cjson.decode(answered)
  return { 'ok', answer[1], answer[2] }
end
if redis.call('HEXISTS', profile, 'deleted') == 1 then
  return { 'deleted', 0, 0 }
end

local stored = tonumber(redis.call('HGET', profile, kind .. '.revision') or 0)
local time   = redis.call('TIME')
if revision == 0 then
  revision = math.max(time[1] * 1000000 + time[2], stored + 1)
end
-- Beyond 2^53 - 1 numbers lose digits: after a caller has used the last one nothing is newer.
if revision <= stored or revision > 9007199254740991 then
  return { 'stale', stored, 0 }
end

local revision_text = string.format('%.0f', revision)
local now_ms        = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('HSET', profile, kind .. '.revision', revision_text, kind .. '.at', now_ms,
  kind .. '.public', public, kind .. '.full', full)
redis.call('PEXPIRE', profile, keep_ms)
redis.call('SETNX', epoch_key, string.format('%x%05x', time[1], time[2]))

local nodes = redis.call('SPUBLISH', channel, '{"kind":"' .. kind
  .. '","epoch":"' .. redis.call('GET', epoch_key)
  .. '","revision":' .. revision_text
  .. ',"public":' .. public .. ',"full":' .. full .. '}')
-- Longer than the hub repeats a command whose answer was lost.
redis.call('SET', request, '[' .. revision_text .. ',' .. nodes .. ']', 'PX', 60000)
return { 'ok', revision, nodes }
