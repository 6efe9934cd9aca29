-- The next version of a record: the clock's microseconds, and the last ten bits of the sequence. A crash with
-- synchronous_commit = off sets the sequence back, but not the clock; of a clock that is set back, the sequence tells the
-- same microseconds apart. Its bits also have one write in 32 sweep.
CREATE FUNCTION next_version() RETURNS bigint
LANGUAGE sql VOLATILE AS $$
  SELECT ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint << 10) + (nextval('coordination') & 1023)
$$;
