-- What Redis does when its memory is full, as it says itself; needs no right to read its configuration.
return redis.call('INFO', 'memory')
