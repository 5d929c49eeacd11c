-- Takes a user out of the queue who has waited too long, unless the user has joined again since.
--
-- USES     ticket
-- KEYS[1]  zset  users who wait, scored by place
-- KEYS[2]  zset  the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash  ticket of the user: place, rating, joined (ms), version
-- KEYS[4]  zset  users whose ticket expired, scored by when that is announced (again) (ms)
-- ARGV[1]  int   user id
-- ARGV[2]  int   version of the ticket that the caller saw
--
-- RETURNS   'expired', or 'kept' for another version, or no ticket
-- PUBLISHES nothing: due.lua hands out the user
-- REPEAT    safe: a ticket expires once

local at            = { queue = KEYS[1], ratings = KEYS[2] }
local key, timeouts = KEYS[3], KEYS[4]
local user, version = ARGV[1], ARGV[2]

local ticket = read_ticket(key, user)
if not ticket or ticket.version ~= version then
  return 'kept'
end
redis.call('ZADD', timeouts, 0, user)
remove_tickets(at, ticket)
return 'expired'
