-- The webhook way in: a signer shows the state after a payment and asks whether it may be released. The states tell what
-- its tickets are worth together, exactly, and nothing else of them.

-- A payment whose answer was lost is shown again, a moment later and with the same nonces. That is approved for nothing;
-- but the tickets behind the nonces are not shown, so a gateway gets it only so many times an hour. Counted under the
-- lock of the account.
ALTER TABLE account
    ADD repeats_hour   timestamptz NOT NULL DEFAULT '1970-01-01',  -- the hour that the counter is of
    ADD repeats_count  integer NOT NULL DEFAULT 0;

-- Takes one of the hour's repeats: NULL, or the code of the refusal. The caller holds the account's row lock.
CREATE FUNCTION take_repeat(a_account uuid, a_max_count integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    this_hour timestamptz := date_trunc('hour', clock_timestamp(), 'UTC');
BEGIN
    UPDATE account SET repeats_count = CASE WHEN repeats_hour >= this_hour THEN repeats_count ELSE 0 END + 1,
           repeats_hour = greatest(repeats_hour, this_hour)
     WHERE id = a_account AND CASE WHEN repeats_hour >= this_hour THEN repeats_count ELSE 0 END < a_max_count;
    RETURN CASE WHEN NOT FOUND THEN 'repeats_used_up' END;
END $$;

-- Promise 8, recomputed: what the released tickets of each sender and creation round can cost the deposit. The sum is
-- kept as an integer over 2^256 - 1 and divided only when read. Of what the webhook approved the round is not known, and
-- of the face values what was set at the signers; NULL where nothing was.
CREATE VIEW exposure AS
    SELECT issued.sender, creation_round, issuances, tickets, ev_numerator,
           CASE WHEN unseen = 0 THEN seen_max_wei
                WHEN signer.is_bounded THEN greatest(seen_max_wei, signer.max_wei) END AS face_value_max_wei
      FROM (SELECT sender, creation_round, count(*) AS issuances, sum(num_tickets) AS tickets,
                   sum(coalesce(ev_numerator, num_tickets * face_value_wei * win_prob)) AS ev_numerator,
                   max(face_value_wei) AS seen_max_wei, count(*) - count(face_value_wei) AS unseen
              FROM issuance GROUP BY sender, creation_round) AS issued
      LEFT JOIN (SELECT sender, max(face_value_max_wei) AS max_wei, every(face_value_max_wei IS NOT NULL) AS is_bounded
                   FROM webhook_signer GROUP BY sender) AS signer ON signer.sender = issued.sender;
