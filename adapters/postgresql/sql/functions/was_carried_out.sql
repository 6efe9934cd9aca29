-- Find out whether a request was carried out, and if it wasn't, have it never be: from now on its token is taken. Asked
-- again, it answers the same.
CREATE FUNCTION was_carried_out(p_token bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE {{names}} AS $$
BEGIN
  INSERT INTO request (token, queue, ends) VALUES (p_token, 0, clock_timestamp() + interval '1 h')
  ON CONFLICT (token) DO NOTHING;
  RETURN EXISTS (SELECT FROM request WHERE token = p_token AND queue <> 0);
END
$$;
