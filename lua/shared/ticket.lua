-- Tickets: one hash for each user who waits, and two indexes of all of them. Keys of tickets may be unknown before the
-- script runs, so a new hash is written first: a migrating slot then stops the script before it has changed anything.
--
-- GIVES  read_ticket(key, user)        the ticket { key, user, place, rating, joined, version }, or nil
-- GIVES  add_ticket(at, ticket)        `at` holds the indexes: { queue, ratings }
-- GIVES  remove_tickets(at, one, two)  `two` may be left out
-- GIVES  rated(user, place)            the member of `ratings`; among equal ratings the lowest place comes first

local function read_ticket(key, user)
  local place, rating, joined, version = unpack(redis.call('HMGET', key, 'place', 'rating', 'joined', 'version'))
  if not (place and rating and joined and version) then
    return nil
  end
  return { key = key, user = user, place = place, rating = rating, joined = joined, version = version }
end

local function rated(user, place)
  return string.format('%016d:%s', place + 2 ^ 52, user)
end

local function add_ticket(at, ticket)
  redis.call('HSET', ticket.key, 'place', ticket.place, 'rating', ticket.rating,
    'joined', ticket.joined, 'version', ticket.version)
  redis.call('ZADD', at.queue, ticket.place, ticket.user)
  redis.call('ZADD', at.ratings, ticket.rating, rated(ticket.user, ticket.place))
end

local function remove_tickets(at, one, two)
  two = two or one
  redis.call('ZREM', at.queue, one.user, two.user)
  redis.call('ZREM', at.ratings, rated(one.user, one.place), rated(two.user, two.place))
  redis.call('DEL', one.key, two.key)
end
