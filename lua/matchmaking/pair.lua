-- Makes matches: scans a batch of tickets, first those that no call has scanned yet.
--
-- A ticket gets the closest rating within its window, which widens while it waits, and among equals the oldest one.
-- Tickets without a match are scanned again, from the oldest on, one round in a while for all nodes together.
--
-- USES     clock, whole, ticket, made
-- KEYS[1]  zset    users who wait, scored by place
-- KEYS[2]  zset    the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash    user -> match that is pending for the user
-- KEYS[4]  zset    pending matches, scored by when they are announced (again) (ms)
-- KEYS[5]  string  last number assigned, for places, versions and matches
-- KEYS[6]  hash    how far tickets were scanned: "fresh" (place), "again" (place), "next" round (ms),
--                  "streak" of calls that scanned fresh ones
-- KEYS[7]  hash    second -> matches made in it
-- ARGV[1]  int     most tickets to scan in this call
-- ARGV[2]  int     difference in rating that is accepted at once
-- ARGV[3]  int     by how much each second of waiting widens it
-- ARGV[4]  int     ms from the end of a round to the next one
-- ARGV[5]  string  prefix of the tickets' keys (same hash tag as the keys)
-- ARGV[6]  string  prefix of the matches' keys (same hash tag as the keys)
--
-- RETURNS   { matches made, users who wait, 'more' or 'done': whether another call finds tickets to scan,
--             { user, version of the ticket, ms of waiting, … of those scanned who still wait } }
-- PUBLISHES nothing: due.lua hands out the matches
-- REPEAT    safe: another call scans the next batch

local at                 = { queue = KEYS[1], ratings = KEYS[2] }
local playing, pending   = KEYS[3], KEYS[4]
local count, scan, made  = KEYS[5], KEYS[6], KEYS[7]
local batch_max, window  = tonumber(ARGV[1]), tonumber(ARGV[2])
local widen, rest_ms     = tonumber(ARGV[3]), tonumber(ARGV[4])
local tickets, matches   = ARGV[5], ARGV[6]

-- Calls in a row that scan fresh tickets while others are due: however many users join, those who wait get their turn.
local fresh_calls_max = 8

-- The users to scan, each followed by the place, and whether another call finds more.
local function next_batch()
  local fresh, again, next_ms, streak = unpack(redis.call('HMGET', scan, 'fresh', 'again', 'next', 'streak'))
  local function after(place)
    return redis.call('ZRANGEBYSCORE', at.queue, '(' .. place, '+inf', 'WITHSCORES', 'LIMIT', 0, batch_max)
  end
  local is_round   = now_ms >= tonumber(next_ms or 0)
  local others_due = is_round and tonumber(streak or 0) >= fresh_calls_max
  if not others_due then
    local batch = after(fresh or '0')
    if #batch > 0 then
      redis.call('HSET', scan, 'fresh', batch[#batch])
      redis.call('HINCRBY', scan, 'streak', 1)
      return batch, true
    end
  end
  if not is_round then
    return {}, false
  end
  local batch   = after(again or '-inf')
  local is_full = #batch == 2 * batch_max
  if is_full then
    redis.call('HSET', scan, 'again', batch[#batch], 'streak', 0)
  else
    redis.call('HSET', scan, 'again', '-inf', 'next', whole(now_ms + rest_ms), 'streak', 0)
  end
  return batch, others_due or is_full
end

-- The oldest member of `ratings` with exactly this rating, other than the member itself.
local function oldest(rating, member)
  local equals = redis.call('ZRANGEBYSCORE', at.ratings, rating, rating, 'LIMIT', 0, 2)
  return equals[1] ~= member and equals[1] or equals[2]
end

-- The member of `ratings` that is closest within reach, if any.
local function closest(member, rating, reach)
  local equal = oldest(rating, member)
  if equal or reach <= 0 then
    return equal
  end
  local above = redis.call('ZRANGEBYSCORE', at.ratings, '(' .. rating, rating + reach, 'WITHSCORES', 'LIMIT', 0, 1)
  local below = redis.call('ZREVRANGEBYSCORE', at.ratings, '(' .. rating, rating - reach, 'WITHSCORES', 'LIMIT', 0, 1)
  if not below[1] then
    return above[1]
  end
  local oldest_below = oldest(below[2], member)
  if not above[1] then
    return oldest_below
  end
  local up, down = above[2] - rating, rating - below[2]
  if up == down then
    return above[1] < oldest_below and above[1] or oldest_below
  end
  return up < down and above[1] or oldest_below
end

-- The ticket to pair with this one, if any.
local function opponent_of(ticket)
  local waited_ms = math.max(0, now_ms - ticket.joined)
  local reach     = math.floor(window + widen * waited_ms / 1000)
  local member    = closest(rated(ticket.user, ticket.place), tonumber(ticket.rating), reach)
  local user      = member and string.match(member, ':(%d+)$')
  local opponent  = user and user ~= ticket.user and read_ticket(tickets .. user, user)
  if member and not opponent then
    -- A stale or hand-edited entry.
    redis.call('ZREM', at.ratings, member)
  end
  return opponent
end

local function make_match(one, two)
  -- The microsecond makes the id unique even after Redis has lost its data.
  local id  = string.format('%x%05x-%x', time[1], time[2], redis.call('INCR', count))
  local key = matches .. id
  -- The new hash first: a migrating slot then stops the script before it has changed anything.
  redis.call('HSET', key, 'state', 'made', 'player1', one.user, 'player2', two.user,
    'rating1', one.rating, 'joined1', one.joined, 'rating2', two.rating, 'joined2', two.joined)
  redis.call('ZADD', pending, 0, id)
  redis.call('HSET', playing, one.user, id, two.user, id)
  remove_tickets(at, one, two)
end

-- A quiet site costs no more than this.
if redis.call('ZCARD', at.queue) == 0 then
  return { 0, 0, 'done', {} }
end

local batch, more = next_batch()
local unmatched, gone, matches_made = {}, {}, 0
for i = 1, #batch, 2 do
  local user = batch[i]
  if not gone[user] then
    local ticket   = read_ticket(tickets .. user, user)
    local opponent = ticket and opponent_of(ticket)
    if opponent then
      make_match(ticket, opponent)
      gone[opponent.user] = true
      matches_made = matches_made + 1
    elseif ticket then
      unmatched[#unmatched + 1] = ticket
    else
      -- A stale or hand-edited entry.
      redis.call('ZREM', at.queue, user)
    end
  end
end
if matches_made > 0 then
  count_made(made, matches_made)
end

-- A ticket with a wider window may have taken one that was scanned before it.
local waiting = {}
for _, ticket in ipairs(unmatched) do
  if not gone[ticket.user] then
    waiting[#waiting + 1] = ticket.user
    waiting[#waiting + 1] = ticket.version
    waiting[#waiting + 1] = math.max(0, now_ms - ticket.joined)
  end
end
return { matches_made, redis.call('ZCARD', at.queue), more and 'more' or 'done', waiting }
