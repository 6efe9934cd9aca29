-- Delete the jobs that `find_held` finds; return their numbers and ids.
CREATE FUNCTION delete_held(p_queue int, p_places bigint[], p_seqs bigint[], p_owners bigint[], p_valid bigint[])
RETURNS TABLE (n int, id text)
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  deleted int := 0;
  more int;
BEGIN
  FOR try IN 1 .. 2 LOOP
    RETURN QUERY DELETE FROM job USING find_held(p_queue, p_places, p_seqs, p_owners, p_valid) h
      WHERE job.ctid = h.at AND job.token = h.token
      RETURNING h.n, job.id;
    GET DIAGNOSTICS more = ROW_COUNT;
    deleted := deleted + more;
    EXIT WHEN deleted = cardinality(p_places);
    -- The others are lost, or moved while this statement ran.
    IF try = 1 THEN PERFORM lock_held(p_queue, p_places, p_seqs, p_owners, p_valid); END IF;
  END LOOP;
END
$$;
