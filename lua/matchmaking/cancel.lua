-- Takes a user out of the queue, or out of a match that no player has been notified of.
--
-- USES     ticket, match
-- KEYS[1]  zset    users who wait, scored by place
-- KEYS[2]  zset    the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash    ticket of the user: place, rating, joined (ms), version
-- KEYS[4]  hash    user -> match that is pending for the user
-- KEYS[5]  zset    pending matches, scored by when they are announced (again) (ms)
-- KEYS[6]  zset    users whose ticket expired, scored by when that is announced (again) (ms)
-- ARGV[1]  int     user id
-- ARGV[2]  string  prefix of the matches' keys (same hash tag as the keys)
--
-- RETURNS   'cancelled', or 'nothing' where there was nothing to cancel, or it was too late
-- PUBLISHES nothing
-- REPEAT    safe: nothing is left to cancel

local at                = { queue = KEYS[1], ratings = KEYS[2] }
local key, playing      = KEYS[3], KEYS[4]
local pending, timeouts = KEYS[5], KEYS[6]
local user, matches     = ARGV[1], ARGV[2]

local ticket = read_ticket(key, user)
if ticket then
  remove_tickets(at, ticket)
  return 'cancelled'
end
local match = pending_match(playing, matches, user)
local was_expired = redis.call('ZREM', timeouts, user) == 1
if match and match.state ~= 'notified' then
  redis.call('HSET', match.key, 'state', 'cancelled')
  redis.call('HDEL', playing, user)
  redis.call('ZADD', pending, 0, match.id)
  return 'cancelled'
end
if match then
  -- Too late to cancel, but if the match falls through, the user does not return to the queue.
  redis.call('HSET', match.key, 'withdrawn:' .. user, 'yes')
end
return was_expired and 'cancelled' or 'nothing'
