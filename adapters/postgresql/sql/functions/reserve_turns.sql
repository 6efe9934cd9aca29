-- Reserve turns of rates. Return for each in how many seconds the first one is, less than 0 if it might have been earlier,
-- and how many were reserved. Keys come in their order, which is that of the locks, so that two calls don't deadlock.
CREATE FUNCTION reserve_turns(p_keys text[], p_counts int[], p_interval float8, p_burst int, p_max_wait float8)
RETURNS TABLE (first_s float8, turns int)
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  now timestamptz;
  next_turn timestamptz;
  sweeps boolean := false;
BEGIN
  FOR i IN 1 .. cardinality(p_keys) LOOP
    INSERT INTO rate AS r (key, turn, ends) VALUES (p_keys[i], '-infinity', clock_timestamp() + interval '1 min')
    ON CONFLICT (key) DO UPDATE SET turn = r.turn WHERE false; -- only locks it
    now := clock_timestamp();
    SELECT greatest(turn, now) INTO next_turn FROM rate WHERE key = p_keys[i];
    first_s := extract(epoch FROM next_turn - now) - (p_burst - 1) * p_interval;
    turns := CASE
      WHEN first_s > p_max_wait THEN 0
      WHEN p_interval <= 0 THEN p_counts[i]
      ELSE least(p_counts[i], floor((p_max_wait - first_s) / p_interval + 1e-9) + 1)
    END;
    IF turns > 0 THEN
      next_turn := next_turn + turns * p_interval * interval '1 s';
      UPDATE rate SET turn = next_turn, ends = CASE WHEN ends < next_turn THEN next_turn + interval '1 min' ELSE ends END
      WHERE key = p_keys[i];
    END IF;
    sweeps := nextval('coordination') % 32 = 0 OR sweeps;
    RETURN NEXT;
  END LOOP;
  IF sweeps THEN PERFORM sweep_coordination(); END IF; -- last, as it must wait for nobody
END
$$;
