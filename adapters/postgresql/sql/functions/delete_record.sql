-- Delete a record that has the expected version, NULL for any; return whether there was such a one.
CREATE FUNCTION delete_record(p_key text, p_expected bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
BEGIN
  DELETE FROM shared_record
  WHERE key = p_key AND (p_expected IS NULL OR version = p_expected) AND (ends IS NULL OR ends > clock_timestamp());
  RETURN FOUND;
END
$$;
