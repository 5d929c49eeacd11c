-- Records the layout of the data, or reads which one is recorded.
--
-- KEYS[1]  hash  layout version and partition count of the data under this prefix
-- ARGV[1]  int   layout version of the caller
-- ARGV[2]  int   partition count of the caller
--
-- RETURNS   { layout version, partition count } as recorded; the caller compares
-- PUBLISHES nothing
-- REPEAT    safe: the first caller's values stay

local meta               = KEYS[1]
local layout, partitions = ARGV[1], ARGV[2]

redis.call('HSETNX', meta, 'layout', layout)
redis.call('HSETNX', meta, 'partitions', partitions)
return { redis.call('HGET', meta, 'layout'), redis.call('HGET', meta, 'partitions') }
