-- The book of released tickets (promise 8): what they can cost the deposit, exact at any moment, and small. And what the
-- commit is told of it: how far the deposit of a sender covers what was released on it.
--
--     commit, redemption ──insert──▶ exposure_delta ──roll_up_exposure──▶ exposure_counter
--                                          └──────────── exposure_book ───────────┘
--
-- A commit only adds rows to a table that nothing else looks for rows in: it waits for nobody and nobody for it. Sums are
-- integers over 2^256 - 1 and are divided only when read.

-- Changes of the book that are not in its counters yet. No index and no domains: every payment would pay for them.
CREATE TABLE exposure_delta (
    sender          bytea NOT NULL,
    gateway_id      uuid NOT NULL,
    creation_round  bigint,                    -- this and the next three are NULL where the webhook approved
    recipient       bytea,
    face_value_wei  numeric,
    win_prob        numeric,
    issued_hour     timestamptz NOT NULL,      -- of the issuance, also where a ticket of it was redeemed
    num_tickets     bigint NOT NULL,           -- negative: redeemed
    ev_numerator    numeric                    -- NULL where it is num_tickets * face_value_wei * win_prob
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
        autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000);
CREATE TRIGGER append_only BEFORE UPDATE OR TRUNCATE ON exposure_delta
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE TABLE exposure_counter (
    sender          bytea NOT NULL,
    gateway_id      uuid NOT NULL,
    creation_round  bigint,
    recipient       bytea,
    face_value_wei  numeric,
    win_prob        numeric,
    issued_hour     timestamptz NOT NULL,
    num_tickets     bigint NOT NULL,
    ev_numerator    numeric NOT NULL,
    CONSTRAINT exposure_counter_key UNIQUE NULLS NOT DISTINCT
        (sender, creation_round, issued_hour, gateway_id, recipient, face_value_wei, win_prob)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX exposure_counter_hour ON exposure_counter (issued_hour);

-- Hours before this one are no longer in the book, whatever its tables still have of them.
CREATE TABLE exposure_horizon (
    only_row   boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    kept_from  timestamptz NOT NULL
);
INSERT INTO exposure_horizon (kept_from) VALUES ('1970-01-02 00:00Z');

-- Counters and what is not rolled up yet, not added up: a key has several rows.
CREATE VIEW exposure_entry AS
    SELECT sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, num_tickets, ev_numerator
      FROM exposure_counter WHERE issued_hour >= (SELECT kept_from FROM exposure_horizon)
    UNION ALL
    SELECT sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, num_tickets,
           coalesce(ev_numerator, num_tickets * face_value_wei * win_prob, 0)
      FROM exposure_delta WHERE issued_hour >= (SELECT kept_from FROM exposure_horizon);

-- The book, of every hour that is kept, open or not: a row for each kind of ticket. Of tickets that the webhook approved
-- only their number and ev_numerator are known.
CREATE VIEW exposure_book AS
    SELECT sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour,
           sum(num_tickets)::bigint AS num_tickets, sum(ev_numerator) AS ev_numerator
      FROM exposure_entry
     GROUP BY sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour
    HAVING sum(num_tickets) <> 0 OR sum(ev_numerator) <> 0;

-- Where in the book the tickets of an issuance are, and what they came to when they were released.
CREATE VIEW exposure_key AS
    SELECT issuance.gateway_id, issuance.id AS issuance_id, issuance.sender::bytea AS sender, issuance.creation_round,
           session.recipient::bytea AS recipient, issuance.face_value_wei::numeric AS face_value_wei,
           issuance.win_prob::numeric AS win_prob, date_trunc('hour', issuance.created_at, 'UTC') AS issued_hour,
           issuance.num_tickets::bigint AS num_tickets,
           coalesce(issuance.ev_numerator, issuance.num_tickets * issuance.face_value_wei * issuance.win_prob, 0)
           AS ev_numerator
      FROM issuance LEFT JOIN session ON session.id = issuance.session_id;

-- Moves deltas into the counters, at most so many, in one transaction. Returns how many: fewer means that there are no
-- more, or that somebody else is at it. What is deleted is counted, by whoever deleted it, or neither happened.
CREATE FUNCTION roll_up_exposure(a_rows_max integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    rolled_up bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(x'6578706f726f6c6c'::bigint) THEN  -- one is enough, and they would wait for each other
        RETURN 0;
    END IF;
    WITH taken AS (
        DELETE FROM exposure_delta WHERE ctid = ANY (ARRAY(SELECT ctid FROM exposure_delta LIMIT a_rows_max)) RETURNING *),
    counted AS (
        INSERT INTO exposure_counter AS counter
               (sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, num_tickets,
                ev_numerator)
        SELECT sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, sum(num_tickets),
               sum(coalesce(ev_numerator, num_tickets * face_value_wei * win_prob, 0))
          FROM taken WHERE issued_hour >= (SELECT kept_from FROM exposure_horizon)
         GROUP BY sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour
            ON CONFLICT ON CONSTRAINT exposure_counter_key DO UPDATE
           SET num_tickets = counter.num_tickets + excluded.num_tickets,
               ev_numerator = counter.ev_numerator + excluded.ev_numerator)
    SELECT count(*) INTO rolled_up FROM taken;
    RETURN rolled_up;
END $$;

-- Forgets the hours before `a_before`, but none of the last three days, and none that has tickets of the newest two
-- rounds of the chain, however long ago that was. Returns how many counters that were; 0 where somebody rolls up.
CREATE FUNCTION forget_exposure(a_before timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    forgotten bigint;
BEGIN
    IF NOT pg_try_advisory_xact_lock(x'6578706f726f6c6c'::bigint) THEN
        RETURN 0;
    END IF;
    UPDATE exposure_horizon SET kept_from = due.kept_from
      FROM (SELECT date_trunc('hour', least(a_before, now() - interval '3 days', (
                SELECT min(issued_hour) FROM exposure_entry
                 WHERE creation_round > (SELECT max(round) FROM protocol_round) - 2)), 'UTC') AS kept_from) AS due
     WHERE exposure_horizon.kept_from < due.kept_from;
    DELETE FROM exposure_counter WHERE issued_hour < (SELECT kept_from FROM exposure_horizon);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END $$;

-- What is missing in the book (negative: too much in it), compared with the issuances less their redeemed tickets, all of
-- one snapshot. Ids begin with the time that they were made at, by a clock that differs from created_at's; not by a day.
CREATE FUNCTION exposure_difference() RETURNS TABLE (
    sender bytea, gateway_id uuid, creation_round bigint, recipient bytea, face_value_wei numeric, win_prob numeric,
    issued_hour timestamptz, num_tickets bigint, ev_numerator numeric
) LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
        WITH kept AS MATERIALIZED (
            SELECT kept_from, uuid7_from(kept_from - interval '1 day') AS first_id FROM exposure_horizon)
        SELECT part.sender, part.gateway_id, part.creation_round, part.recipient, part.face_value_wei, part.win_prob,
               part.issued_hour, sum(part.num_tickets)::bigint, sum(part.ev_numerator)
          FROM (SELECT key.sender, key.gateway_id, key.creation_round, key.recipient, key.face_value_wei, key.win_prob,
                       key.issued_hour, key.num_tickets, key.ev_numerator
                  FROM kept JOIN exposure_key AS key
                    ON key.issuance_id >= kept.first_id AND key.issued_hour >= kept.kept_from
                UNION ALL
                SELECT key.sender, key.gateway_id, key.creation_round, key.recipient, key.face_value_wei, key.win_prob,
                       key.issued_hour, -1, -(ticket.face_value_wei * ticket.win_prob)
                  FROM kept CROSS JOIN winning_ticket AS ticket
                  JOIN exposure_key AS key ON key.gateway_id = ticket.gateway_id AND key.issuance_id = ticket.issuance_id
                 WHERE ticket.status = 'matched' AND key.issued_hour >= kept.kept_from
                UNION ALL
                SELECT entry.sender, entry.gateway_id, entry.creation_round, entry.recipient, entry.face_value_wei,
                       entry.win_prob, entry.issued_hour, -entry.num_tickets, -entry.ev_numerator
                  FROM exposure_entry AS entry) AS part
         GROUP BY 1, 2, 3, 4, 5, 6, 7
        HAVING sum(part.num_tickets) <> 0 OR sum(part.ev_numerator) <> 0;
END $$;

-- Adds what is missing. Payments go on meanwhile: each adds the same to both sides. Returns how many kinds of tickets
-- were wrong.
CREATE FUNCTION mend_exposure() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    mended bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN  -- else the look could be older than the lock
        RAISE 'mend_exposure needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(x'6578706f6d656e64'::bigint);  -- two would add the same
    INSERT INTO exposure_delta (
        sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, num_tickets, ev_numerator)
    SELECT * FROM exposure_difference();
    GET DIAGNOSTICS mended = ROW_COUNT;
    RETURN mended;
END $$;

-- How far a sender's deposit covers what was released on it, as whoever watches it last said; it says so again and
-- again, and past valid_until nothing is known. Judged by the commit, for every item, by its sender.
CREATE TABLE coverage_gate (
    sender              bytea PRIMARY KEY,
    level               text NOT NULL CHECK (level IN ('ok', 'watch', 'low', 'critical')),
    face_value_max_wei  numeric CHECK (face_value_max_wei >= 0),  -- NULL: no cap
    evaluated_at        timestamptz NOT NULL,
    valid_until         timestamptz NOT NULL
) WITH (fillfactor = 50);

-- All expected value ever released for the gateway, in wei: it only grows.
ALTER TABLE account ADD ev_total_wei numeric NOT NULL DEFAULT 0;

-- Up to where account.ev_total_wei may go while the sender's level is critical. No row: no further.
CREATE TABLE cover_share (
    sender            bytea NOT NULL,
    gateway_id        uuid NOT NULL,
    ev_total_max_wei  numeric NOT NULL,
    PRIMARY KEY (sender, gateway_id)
) WITH (fillfactor = 50);

-- What a commit may do from now on. A share is the gateway's ev_total_wei in the snapshot that was divided, plus what it
-- was given; every gateway of that snapshot has one, also those that were given nothing. What a gateway has released
-- since beyond its new share (the old one allowed it) is taken from what the others are left: so all of them together
-- release no more after the snapshot than was divided, or than they had released before the shares were set.
CREATE FUNCTION set_coverage_gate(
    a_sender bytea, a_level text, a_face_value_max_wei numeric, a_valid_s integer, a_gateways uuid[],
    a_ev_total_max_wei numeric[]
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN  -- else the look could be older than the lock
        RAISE 'set_coverage_gate needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    IF a_level = 'critical' THEN
        -- Commits hold this lock, shared, from their judgement to their end: those that judged by old shares are over.
        PERFORM pg_advisory_xact_lock(x'636f766572676174'::bigint);
    END IF;
    INSERT INTO coverage_gate (sender, level, face_value_max_wei, evaluated_at, valid_until)
    SELECT a_sender, a_level, a_face_value_max_wei, at, at + make_interval(secs => a_valid_s)
      FROM (SELECT clock_timestamp() AS at) AS clock
        ON CONFLICT (sender) DO UPDATE SET level = excluded.level, face_value_max_wei = excluded.face_value_max_wei,
           evaluated_at = excluded.evaluated_at, valid_until = excluded.valid_until;
    DELETE FROM cover_share WHERE sender = a_sender;
    IF a_level <> 'critical' THEN
        RETURN;
    END IF;
    INSERT INTO cover_share (sender, gateway_id, ev_total_max_wei)
    SELECT a_sender, id, ev_total_wei + greatest(unused_wei - greatest(overdrawn_wei - taken_wei, 0), 0)
      FROM (SELECT id, ev_total_wei, greatest(left_wei, 0) AS unused_wei,
                   sum(greatest(-left_wei, 0)) OVER () AS overdrawn_wei,
                   coalesce(sum(greatest(left_wei, 0)) OVER (
                       ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS taken_wei
              FROM (SELECT account.id, ev_total_wei, coalesce(given.ev_total_max_wei, 0) - ev_total_wei AS left_wei
                      FROM account LEFT JOIN unnest(a_gateways, a_ev_total_max_wei) AS given (id, ev_total_max_wei)
                                          ON given.id = account.id
                     WHERE account.gateway_id IS NOT NULL) AS held) AS divided
     WHERE unused_wei > 0;
END $$;
