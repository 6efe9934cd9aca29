-- Version 7. What a crash takes back: versions of records, and what a consumer was told.
--
-- A few lines of some long functions change. So only these lines stand here, each beside what it was.

-- Make a function of one that is there: of each pair, the first text, which it has once, becomes the second. A function
-- that gets another name or further parameters is a new one.
CREATE FUNCTION rewrite(p_function regproc, p_pairs text[]) RETURNS void LANGUAGE plpgsql
SET quote_all_identifiers = off AS $$
DECLARE
  definition text := pg_get_functiondef(p_function);
  pair text[];
BEGIN
  FOREACH pair SLICE 1 IN ARRAY p_pairs LOOP
    IF cardinality(string_to_array(definition, pair[1])) <> 2 THEN
      RAISE EXCEPTION '% has not once: %', p_function, pair[1];
    END IF;
    definition := replace(definition, pair[1], pair[2]);
  END LOOP;
  EXECUTE definition;
END
$$;

-- The next version of a record: the clock's microseconds, and the last ten bits of the sequence. A crash with
-- synchronous_commit = off sets the sequence back, but not the clock; of a clock that is set back, the sequence tells the
-- same microseconds apart. Its bits also have one write in 32 sweep, as before.
CREATE FUNCTION next_version() RETURNS bigint LANGUAGE sql VOLATILE AS $$
  SELECT ((extract(epoch FROM clock_timestamp()) * 1000000)::bigint << 10) + (nextval('coordination') & 1023)
$$;

SELECT rewrite('write_record', ARRAY[
  ['SET version = nextval(''coordination'')', 'SET version = next_version()'],
  ['VALUES (p_key, nextval(''coordination'')', 'VALUES (p_key, next_version()']
]);

-- A consumer now names its queue beside the key, which another queue may have after a crash, and its last request that
-- settled or extended anything. If the server doesn't know that one, a crash has taken back what the consumer was told:
-- then nothing is forgotten, and 0 is told first of the lost ones (ADR 82). The functions that older releases call stay.
DO $$
DECLARE
  checks constant text[] := ARRAY[
    ['  valid bigint[];', '  valid bigint[];
  is_known boolean;'],
    ['AND name IS NOT NULL', 'AND name = p_name'],
    ['DELETE FROM request WHERE token = ANY (p_answered);',
     'is_known := p_last = ANY (valid); -- it is the lease of what is settled, most often
    IF NOT is_known THEN PERFORM FROM request WHERE token = p_last; is_known := FOUND; END IF;
    IF is_known THEN DELETE FROM request WHERE token = ANY (p_answered); ELSE lost := 0 || lost; END IF;']
  ];
BEGIN
  PERFORM rewrite('settle_and_take', checks || ARRAY[
    ['.settle_and_take(', '.settle_and_take_after('],
    ['p_wait boolean)', 'p_wait boolean, p_name text, p_last bigint)']
  ]);
  PERFORM rewrite('extend', checks || ARRAY[
    ['.extend(', '.extend_after('],
    ['p_lease_s double precision)', 'p_lease_s double precision, p_name text, p_last bigint)']
  ]);
  PERFORM rewrite('settle_publish_and_take', ARRAY[
    ['.settle_publish_and_take(', '.settle_publish_and_take_after('],
    ['p_next_delays double precision[])', 'p_next_delays double precision[], p_name text, p_last bigint)'],
    ['FROM settle_and_take(', 'FROM settle_and_take_after('],
    ['p_sweep, p_wait', 'p_sweep, p_wait, p_name, p_last']
  ]);
END
$$;

DROP FUNCTION rewrite;

INSERT INTO version VALUES (7, 1);
