-- Deleted accounts.
--
-- GIVES  is_deleted(profile)  whether the last updates of a user carry the mark of a deleted account

local function is_deleted(profile)
  return redis.call('HEXISTS', profile, 'deleted') == 1
end
