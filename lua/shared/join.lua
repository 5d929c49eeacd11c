-- Joining the queue.
--
-- USES   whole, ticket
-- GIVES  join(at, key, user, rating, joined)  the answer: { 'queued' or 'already_queued', joined at (ms) }

local function join(at, key, user, rating, joined)
  -- The new version tells a node that is about to drop the ticket that the user still wants it.
  local version = whole(redis.call('INCR', at.count))
  local ticket  = read_ticket(key, user)
  if ticket and redis.call('ZSCORE', at.queue, user) then
    redis.call('HSET', key, 'version', version)
    return { 'already_queued', tonumber(ticket.joined) }
  end
  if ticket then
    -- A stale or hand-edited entry.
    redis.call('ZREM', at.ratings, rated(user, ticket.place))
  end
  add_ticket(at, { key = key, user = user, place = version, rating = rating, joined = joined, version = version })
  redis.call('ZREM', at.timeouts, user)
  return { 'queued', tonumber(joined) }
end
