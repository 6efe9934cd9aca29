-- Remove some of what has ended in the coordination store. It waits for nobody, and comes after all locks that may have to
-- be waited for.
CREATE FUNCTION sweep_coordination() RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  most constant int := 500;
  until constant timestamptz := clock_timestamp() - interval '1 min';
  s coordination_sweep;
  k place_key;
  removed int;
  is_all boolean;
BEGIN
  SELECT * INTO s FROM coordination_sweep FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN; END IF; -- another does it
  DELETE FROM shared_record WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM shared_record WHERE minute >= s.before AND minute < until LIMIT most FOR UPDATE SKIP LOCKED
  ));
  GET DIAGNOSTICS removed = ROW_COUNT;
  is_all := removed < most;
  DELETE FROM rate WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM rate WHERE ends >= s.before AND ends < until LIMIT most FOR UPDATE SKIP LOCKED
  ));
  GET DIAGNOSTICS removed = ROW_COUNT;
  is_all := is_all AND removed < most;
  removed := 0;
  FOR k IN SELECT * FROM place_key WHERE ends >= s.before AND ends < until LIMIT most FOR UPDATE SKIP LOCKED LOOP
    DELETE FROM place WHERE ctid = ANY (ARRAY(SELECT ctid FROM place WHERE key = k.number LIMIT most));
    IF NOT EXISTS (SELECT FROM place WHERE key = k.number) THEN DELETE FROM place_key WHERE key = k.key; END IF;
    removed := removed + 1;
    is_all := is_all AND NOT EXISTS (SELECT FROM place WHERE key = k.number);
  END LOOP;
  IF is_all AND removed < most THEN
    UPDATE coordination_sweep SET swept = until,
      before = CASE WHEN s.swept <= until THEN s.swept ELSE '-infinity' END; -- a clock that was set back: begin anew
  END IF;
END
$$;
