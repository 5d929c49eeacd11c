-- Numbers a transition and publishes it.
--
-- USES   clock, epoch
-- GIVES  announce(epoch_key, rev_key, channel, online, offline)  the number; users are ids with commas in between

local function announce(epoch_key, rev_key, channel, online, offline)
  local rev   = redis.call('INCR', rev_key)
  local epoch = redis.call('GET', epoch_key) or begin_epoch(epoch_key)
  redis.call('SPUBLISH', channel, string.format(
    '{"epoch":"%s","rev":%d,"online":[%s],"offline":[%s]}', epoch, rev, online, offline))
  return rev
end
