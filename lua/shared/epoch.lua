-- The name of this life of the data: the microsecond in which it began, so no other life has the same name.
--
-- USES   clock
-- GIVES  begin_epoch(key)  names a life that has no name yet; returns the name

local function begin_epoch(key)
  local epoch = string.format('%x%05x', time[1], time[2])
  redis.call('SET', key, epoch)
  return epoch
end
