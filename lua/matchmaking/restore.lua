-- Puts a user back in the queue whose ticket Redis may have lost, with the time at which the user joined first.
--
-- USES     whole, ticket, join, match
-- KEYS[1]  zset    users who wait, scored by place
-- KEYS[2]  zset    the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash    ticket of the user: place, rating, joined (ms), version
-- KEYS[4]  hash    user -> match that is pending for the user
-- KEYS[5]  zset    users whose ticket expired, scored by when that is announced (again) (ms)
-- KEYS[6]  string  last number assigned, for places, versions and matches
-- ARGV[1]  int     user id
-- ARGV[2]  int     rating
-- ARGV[3]  int     when the user joined first (ms)
-- ARGV[4]  string  prefix of the matches' keys (same hash tag as the keys)
--
-- RETURNS   { 'queued' or 'already_queued', joined at (ms) }, or { 'matched' } while a match is pending for the user
-- PUBLISHES nothing
-- REPEAT    safe: a user has one ticket; the answer is "already_queued"

local at = { queue = KEYS[1], ratings = KEYS[2], timeouts = KEYS[5], count = KEYS[6] }
local key, playing         = KEYS[3], KEYS[4]
local user, rating, joined = ARGV[1], ARGV[2], ARGV[3]
local matches              = ARGV[4]

if pending_match(playing, matches, user) then
  return { 'matched' }
end
local answer = join(at, key, user, rating, joined)
redis.call('HDEL', playing, user)
return answer
