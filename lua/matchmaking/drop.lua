-- Takes a user out of the queue who went offline, unless the user has joined again since.
--
-- USES     ticket
-- KEYS[1]  zset  users who wait, scored by place
-- KEYS[2]  zset  the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash  ticket of the user: place, rating, joined (ms), version
-- ARGV[1]  int   user id
-- ARGV[2]  int   version of the ticket that the caller saw
--
-- RETURNS   'dropped', or 'kept' for another version, or no ticket
-- PUBLISHES nothing
-- REPEAT    safe: a ticket is dropped once

local at            = { queue = KEYS[1], ratings = KEYS[2] }
local key           = KEYS[3]
local user, version = ARGV[1], ARGV[2]

local ticket = read_ticket(key, user)
if not ticket or ticket.version ~= version then
  return 'kept'
end
remove_tickets(at, ticket)
return 'dropped'
