-- How many matches were made in each second of the last minute: a hash, second -> matches.
--
-- USES   clock
-- GIVES  count_made(made, matches)  adds to the current second
-- GIVES  made_in_a_minute(made)     the sum

local function count_made(made, matches)
  if redis.call('HINCRBY', made, time[1], matches) > matches then
    return
  end
  -- The first of this second removes the seconds that no longer count.
  local entries = redis.call('HGETALL', made)
  for at = 1, #entries, 2 do
    local second = tonumber(entries[at])
    if not second or math.abs(time[1] - second) >= 60 then
      redis.call('HDEL', made, entries[at])
    end
  end
end

local function made_in_a_minute(made)
  local sum, entries = 0, redis.call('HGETALL', made)
  for at = 1, #entries, 2 do
    local second = tonumber(entries[at])
    if second and math.abs(time[1] - second) < 60 then
      sum = sum + (tonumber(entries[at + 1]) or 0)
    end
  end
  return sum
end
