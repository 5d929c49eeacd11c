-- The server's clock. Many nodes write times; all of them are read off this one clock.
--
-- GIVES  time    seconds and microseconds since 1970, as Redis answers them
-- GIVES  now_ms  milliseconds since 1970

local time   = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
