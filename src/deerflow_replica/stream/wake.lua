-- End a blocking read of this process: its private wake key gets one entry more.
--
-- KEYS: the wake key. ARGV: number of the wake, growing; time to live in ms.
-- A wake that is repeated is there already, which is no error.
redis.pcall('XADD', KEYS[1], 'MAXLEN', 1, ARGV[1] .. '-0', 'w', '1')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
