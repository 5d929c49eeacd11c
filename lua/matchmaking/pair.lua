-- Makes matches: looks at a batch of tickets, first at those that nobody has looked at yet.
--
-- A ticket gets the closest rating within its window, which widens while it waits, and among equals the oldest one.
-- Those who found nobody are looked at again, from the oldest on, one round in a while for all nodes together.
--
-- KEYS[1]  zset    users who wait, scored by their place
-- KEYS[2]  zset    the same as "<place, padded>:<user>", scored by rating
-- KEYS[3]  hash    user -> ticket, "<place> <rating> <joined at (ms)> <version>"
-- KEYS[4]  hash    user -> match that has been found for the user and is not over yet
-- KEYS[5]  hash    match -> what is known about it
-- KEYS[6]  zset    matches that are not over, scored by when they are told (again) (ms)
-- KEYS[7]  zset    users whose ticket ran out, scored by when they are told (again) (ms)
-- KEYS[8]  string  last number given, for places and versions
-- KEYS[9]  hash    how far tickets were looked at: "fresh" (place), "again" (place), "next" round (ms),
--                  "streak" of calls that looked at fresh ones
-- KEYS[10] hash    second modulo 60 -> "<second> <matches made in it>"
-- ARGV[1]  int     most tickets to look at in this call
-- ARGV[2]  int     difference in rating that is fine at once
-- ARGV[3]  int     by how much more each second of waiting makes it
-- ARGV[4]  int     ms after which a ticket runs out
-- ARGV[5]  int     ms from the end of a round to the next one
--
-- RETURNS   { matches made, tickets that ran out, users who wait, 1 where another call finds more to look at,
--             { user, version of the ticket, … of those looked at who wait on } }
-- PUBLISHES nothing; due.lua gives out whom to tell
-- REPEAT    safe: another call looks at the next batch

local queue, ratings, tickets  = KEYS[1], KEYS[2], KEYS[3]
local playing, matches         = KEYS[4], KEYS[5]
local pending, timeouts        = KEYS[6], KEYS[7]
local count, looked, made      = KEYS[8], KEYS[9], KEYS[10]
local batch_max, window        = tonumber(ARGV[1]), tonumber(ARGV[2])
local widen, max_wait_ms       = tonumber(ARGV[3]), tonumber(ARGV[4])
local rest_ms                  = tonumber(ARGV[5])

-- Calls in a row that look at those who have just come, while others are to be looked at again.
local fresh_calls_max = 8

-- What is usual on a quiet site costs one command, and changes nothing.
if redis.call('ZCARD', queue) == 0 then
  return { 0, 0, 0, 0, {} }
end

local time   = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)

-- Which tickets to look at: users and places in turn. However many come, those who wait have their turn, too.
local fresh, again, next_ms, streak = unpack(redis.call('HMGET', looked, 'fresh', 'again', 'next', 'streak'))
local is_round   = now_ms >= tonumber(next_ms or 0)
local others_due = is_round and tonumber(streak or 0) >= fresh_calls_max
local batch, more = {}, 0
if not others_due then
  batch = redis.call('ZRANGEBYSCORE', queue, '(' .. (fresh or '0'), '+inf', 'WITHSCORES', 'LIMIT', 0, batch_max)
end
if #batch > 0 then
  more = 1
  redis.call('HSET', looked, 'fresh', batch[#batch])
  redis.call('HINCRBY', looked, 'streak', 1)
elseif is_round then
  batch = redis.call('ZRANGEBYSCORE', queue, '(' .. (again or '-inf'), '+inf', 'WITHSCORES', 'LIMIT', 0, batch_max)
  if #batch < 2 * batch_max then
    redis.call('HSET', looked, 'again', '-inf', 'next', string.format('%.0f', now_ms + rest_ms), 'streak', 0)
  else
    redis.call('HSET', looked, 'again', batch[#batch], 'streak', 0)
  end
  more = (others_due or #batch == 2 * batch_max) and 1 or 0
end

local function member_of(user, place)
  return string.format('%016.0f:%s', place + 2 ^ 52, user)
end

local function remove(user, place)
  redis.call('ZREM', queue, user)
  redis.call('ZREM', ratings, member_of(user, place))
  redis.call('HDEL', tickets, user)
end

-- The oldest of those with exactly this rating, other than the member itself.
local function oldest(rating, member)
  local equals = redis.call('ZRANGEBYSCORE', ratings, rating, rating, 'LIMIT', 0, 2)
  return equals[1] ~= member and equals[1] or equals[2]
end

local function closest(member, rating, reach)
  local equal = oldest(rating, member)
  if equal or reach <= 0 then
    return equal
  end
  local above = redis.call('ZRANGEBYSCORE', ratings, '(' .. rating, rating + reach, 'WITHSCORES', 'LIMIT', 0, 1)
  local below = redis.call('ZREVRANGEBYSCORE', ratings, '(' .. rating, rating - reach, 'WITHSCORES', 'LIMIT', 0, 1)
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

local matches_made, ran_out, unmatched = 0, 0, {}
local gone = {}
for i = 1, #batch, 2 do
  local user   = batch[i]
  local ticket = not gone[user] and redis.call('HGET', tickets, user)
  if ticket then
    local place, rating, joined_ms, version = string.match(ticket, '^(%S+) (%S+) (%S+) (%S+)$')
    local waited_ms = now_ms - joined_ms
    local reach     = math.floor(window + widen * math.max(0, waited_ms) / 1000)
    local other     = waited_ms < max_wait_ms and closest(member_of(user, place), tonumber(rating), reach)
    local opponent  = other and string.match(other, ':(%d+)$')
    local their_ticket = opponent and opponent ~= user and redis.call('HGET', tickets, opponent)
    if other and not their_ticket then
      -- What nobody wrote so, or somebody deleted by hand.
      redis.call('ZREM', ratings, other)
    end
    if waited_ms >= max_wait_ms then
      remove(user, place)
      redis.call('ZADD', timeouts, 0, user)
      ran_out = ran_out + 1
    elseif their_ticket then
      remove(user, place)
      remove(opponent, string.match(their_ticket, '^%S+'))
      gone[opponent] = true
      -- Unlike any other, also after Redis has lost its data.
      local id = string.format('%x%05x-%x', time[1], time[2], redis.call('INCR', count))
      local match = {
        users = { user, opponent }, tickets = { ticket, their_ticket },
        waiting = {}, took = {}, taken = {}, quit = {}, told = false, left = false,
      }
      redis.call('HSET', matches, id, cjson.encode(match))
      redis.call('ZADD', pending, 0, id)
      redis.call('HSET', playing, user, id, opponent, id)
      matches_made = matches_made + 1
    else
      unmatched[#unmatched + 1] = user
      unmatched[#unmatched + 1] = version
    end
  elseif not gone[user] then
    redis.call('ZREM', queue, user)
  end
end

-- Who found nobody may have been taken since by somebody with a wider window.
local waiting = {}
for i = 1, #unmatched, 2 do
  if not gone[unmatched[i]] then
    waiting[#waiting + 1] = unmatched[i]
    waiting[#waiting + 1] = unmatched[i + 1]
  end
end

if matches_made > 0 then
  local second, many = string.match(redis.call('HGET', made, time[1] % 60) or '', '^(%d+) (%d+)$')
  many = matches_made + (second == time[1] and many or 0)
  redis.call('HSET', made, time[1] % 60, time[1] .. ' ' .. string.format('%.0f', many))
end
return { matches_made, ran_out, redis.call('ZCARD', queue), more, waiting }
