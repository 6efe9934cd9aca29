-- Settle one delivery other than by an ack. p_end says how:
--   release        the job is ready again, where it was
--   release_later  it is ready after p_delay seconds; nothing counts as an attempt
--   retry          the attempt has failed; the job is ready after p_delay seconds, behind all others
--   dead           the job is a dead letter, for p_delay seconds; if they are 0, for ever
--   cancel         it ends as cancelled, to be remembered for p_delay seconds
-- Return 'settled'; 'lost' if its lease was lost; or 'cancelled' if the job ended as cancelled instead, as was asked.
CREATE FUNCTION settle_one(
  q queue, p_end text, p_place bigint, p_seq bigint, p_owner bigint, p_delay float8, p_reason bytea, p_error bytea
) RETURNS text
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  at constant tid := lock_one(q.key, p_place, p_seq, p_owner);
  settled text;
  asked_ttl float8;
BEGIN
  IF at IS NULL THEN RETURN 'lost'; END IF;
  IF p_end = 'release' THEN
    UPDATE job SET token = NULL, progress = NULL
    WHERE ctid = at RETURNING id INTO settled;
  ELSIF p_end = 'release_later' THEN
    UPDATE job SET token = NULL, progress = NULL, place = NULL, seq = nextval('block') << 16,
      due = clock_timestamp() + p_delay * interval '1 s'
    WHERE ctid = at RETURNING id INTO settled;
  ELSIF p_end = 'cancel' THEN
    DELETE FROM job WHERE ctid = at RETURNING id INTO settled;
  ELSIF p_end = 'dead' THEN
    UPDATE job SET token = NULL, progress = NULL, place = NULL, death = nextval('death'), died = clock_timestamp(),
      dead_until = CASE WHEN p_delay > 0 THEN clock_timestamp() + p_delay * interval '1 s' END,
      reason = p_reason, error = p_error
    WHERE ctid = at RETURNING id INTO settled;
  ELSE
    UPDATE job SET token = NULL, progress = NULL, attempt = least(attempt, 2147483646) + 1,
      failed = (failed || attempt)[greatest(1, coalesce(cardinality(failed), 0) + 2 - {{max_history}}):],
      failures = (failures || p_error)[greatest(1, coalesce(cardinality(failures), 0) + 2 - {{max_history}}):],
      place = CASE WHEN p_delay <= 0 THEN place_now(q.kind, priority) END,
      seq = nextval('block') << 16,
      due = CASE WHEN p_delay > 0 THEN clock_timestamp() + p_delay * interval '1 s' END
    WHERE ctid = at RETURNING id INTO settled;
  END IF;

  -- Afterwards: this may have waited for the row, until who held it had asked.
  DELETE FROM asked WHERE queue = q.key AND seq = p_seq RETURNING ttl INTO asked_ttl;
  IF p_end = 'cancel' THEN
    PERFORM keep_cancelled(q, ARRAY[settled], ARRAY[p_delay]);
  ELSIF asked_ttl IS NOT NULL THEN
    DELETE FROM job WHERE queue = q.key AND id = settled;
    PERFORM keep_cancelled(q, ARRAY[settled], ARRAY[asked_ttl]);
    RETURN 'cancelled';
  END IF;
  RETURN 'settled';
END
$$;
