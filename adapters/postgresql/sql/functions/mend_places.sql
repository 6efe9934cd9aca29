-- Move some jobs that were restored into another cluster to the front, in the order of their seqs; return how many. Called
-- until none is left (ADR 93). A place is the id of a transaction: where tables are restored, such ids may be lower, and
-- new jobs would stand before those that are there.
CREATE FUNCTION mend_places(p_queue text, p_most int DEFAULT 2147483647) RETURNS int
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  q queue;
  lowest bigint;
  is_swept boolean := false;
  moved int := 0;
  more int;
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  FOR level IN 0 .. CASE WHEN q.kind = 'priority' THEN 9 ELSE 0 END LOOP
    lowest := level::bigint << 56;
    -- No transaction has such an id yet, by the snapshot of this statement.
    IF NOT EXISTS (
      SELECT FROM job WHERE queue = q.key AND place < lowest + (1::bigint << 56)
        AND place >= lowest + pg_snapshot_xmax(pg_current_snapshot())::text::bigint
    ) THEN CONTINUE; END IF;
    IF NOT is_swept THEN
      PERFORM sweep(q, '-infinity'); -- what was leased in the other cluster; what is leased still keeps its place
      is_swept := true;
    END IF;
    UPDATE job SET place = lowest FROM (
      SELECT ctid AS at FROM job WHERE queue = q.key AND token IS NULL AND place < lowest + (1::bigint << 56)
        AND place >= lowest + pg_snapshot_xmax(pg_current_snapshot())::text::bigint
      ORDER BY place, seq LIMIT p_most - moved FOR UPDATE SKIP LOCKED
    ) restored WHERE job.ctid = restored.at;
    GET DIAGNOSTICS more = ROW_COUNT;
    moved := moved + more;
  END LOOP;
  IF moved > 0 THEN UPDATE queue SET returned = returned + 1 WHERE key = q.key; END IF; -- have consumers look there
  RETURN moved;
END
$$;
