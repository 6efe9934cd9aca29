-- Version 9. What a session has of its own changes no function's meaning: temporary tables, and how strings are read.

-- The schema of temporary tables comes first in each search_path that doesn't name it.
DO $$
DECLARE
  each_function regprocedure;
BEGIN
  FOR each_function IN
    SELECT oid FROM pg_proc WHERE pronamespace = current_schema()::regnamespace AND proconfig::text LIKE '%search_path=%'
  LOOP
    EXECUTE format('ALTER FUNCTION %s SET search_path = %I, pg_temp', each_function, current_schema());
  END LOOP;
END
$$;

-- As before, but for the zero byte, which is read alike whether or not standard_conforming_strings is on.
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
SELECT rewrite('keep_cancelled', ARRAY[[$$'\x00'$$, $$E'\\x00'$$]]);
SELECT rewrite('cancel_jobs', ARRAY[[$$'\x00'$$, $$E'\\x00'$$]]);
DROP FUNCTION rewrite;

INSERT INTO version VALUES (9, 1);
