-- Closes the connections of a user that are open now, also on nodes that miss the message: they find the mark.
--
-- USES   clock, whole
-- GIVES  disconnect(profile, keep_ms, channel)  nodes that were listening

local function disconnect(profile, keep_ms, channel)
  redis.call('HSET', profile, 'disconnected', whole(now_ms))
  redis.call('PEXPIRE', profile, keep_ms)
  return redis.call('SPUBLISH', channel, '{"kind":"disconnect"}')
end
