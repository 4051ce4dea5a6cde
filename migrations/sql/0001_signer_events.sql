-- What remote signers report to have signed (their Kafka events), what the service threw away after it was signed, and
-- what does not fit between these and the issuances. Nobody is charged for anything here.

-- One row per reported event. Rows are only added; a copy that arrives later is counted, and noticed where it says
-- something else. Texts come from callers, so they are cut to a bounded length before they get here.
CREATE TABLE signer_event (
    id                   uuid PRIMARY KEY,
    digest               bytea NOT NULL,          -- of everything below but where and when it was received
    happened_at          timestamptz NOT NULL,    -- by the signer's clock
    source               text NOT NULL,           -- file and line, or topic, partition and offset
    auth_id              text NOT NULL,
    gateway_id           uuid,                    -- what the AuthID names; NULL where it is none of ours
    session_id           uuid,
    state_id             text NOT NULL,
    sequence             bigint NOT NULL,
    recipient_rand_hash  bytea NOT NULL,
    num_tickets          bigint NOT NULL,
    fee_wei              numeric NOT NULL,
    balance_wei          numeric NOT NULL,        -- of the state after this payment, rounded by the signer
    orchestrator         bytea NOT NULL,
    manifest_id          text NOT NULL,
    copies               bigint NOT NULL DEFAULT 1,
    differing_copies     bigint NOT NULL DEFAULT 0,
    received_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX signer_event_time ON signer_event (happened_at);
CREATE INDEX signer_event_chain ON signer_event (state_id, sequence);
CREATE INDEX signer_event_foreign ON signer_event (happened_at) WHERE session_id IS NULL;

-- Payments as a signer made them, also those that a webhook then rejected: the only sight of whom a ticket pays and of
-- its face value where a signer is not asked through the service.
CREATE TABLE signer_payment (
    id                   uuid PRIMARY KEY,
    digest               bytea NOT NULL,
    happened_at          timestamptz NOT NULL,
    source               text NOT NULL,
    sender               bytea NOT NULL,
    recipient            bytea NOT NULL,
    face_value_wei       numeric NOT NULL,
    num_tickets          bigint NOT NULL,
    manifest_id          text NOT NULL,
    copies               bigint NOT NULL DEFAULT 1,
    differing_copies     bigint NOT NULL DEFAULT 0,
    received_at          timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX signer_payment_time ON signer_payment (happened_at);

-- What a signer was asked for and may have signed, and nobody was given: a commit refused, an answer that failed its
-- checks, a time-out, a caller gone. Written with best effort; it explains events that have no issuance.
CREATE TABLE unreleased (
    id                   uuid PRIMARY KEY,
    gateway_id           uuid NOT NULL,
    session_id           uuid NOT NULL,
    sequence             bigint NOT NULL,
    recipient_rand_hash  hash32 NOT NULL,
    signatures           integer NOT NULL CHECK (signatures > 0),  -- at most so many payments were signed
    reason               text NOT NULL,
    at                   timestamptz NOT NULL
);
CREATE INDEX unreleased_time ON unreleased (at);

-- What does not fit. A finding that is looked at again and not found is resolved; one that returns is open again, unless
-- somebody has looked into it and accepted it.
CREATE TABLE signer_event_finding (
    kind           text NOT NULL,
    subject        text NOT NULL,
    severity       text NOT NULL CHECK (severity IN ('critical', 'warning', 'info')),
    detail         text NOT NULL,
    happened_at    timestamptz NOT NULL,
    first_seen_at  timestamptz NOT NULL DEFAULT now(),
    last_seen_at   timestamptz NOT NULL DEFAULT now(),
    resolved_at    timestamptz,
    accepted_at    timestamptz,
    accepted_by    text NOT NULL DEFAULT '',
    reason         text NOT NULL DEFAULT '' CHECK (length(reason) <= 1000),
    PRIMARY KEY (kind, subject)
);
CREATE INDEX signer_event_finding_time ON signer_event_finding (happened_at);
CREATE INDEX signer_event_finding_open ON signer_event_finding (kind) WHERE resolved_at IS NULL AND accepted_at IS NULL;

-- For alerts: what is wrong now.
CREATE VIEW open_signer_event_finding AS
    SELECT kind, subject, severity, detail, happened_at, first_seen_at, last_seen_at
      FROM signer_event_finding WHERE resolved_at IS NULL AND accepted_at IS NULL;

-- Up to where events were compared with the issuances. Whatever arrives late moves it back.
CREATE TABLE signer_event_progress (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    reconciled_until  timestamptz NOT NULL
);

-- Records a batch, in which no id stands twice. `is_new` is false for what was there before. The same line or offset
-- read again is no further copy: whoever was interrupted reads on from where its work was last safe.
CREATE FUNCTION record_signer_events(
    a_id uuid[], a_digest bytea[], a_happened_at timestamptz[], a_source text[], a_auth_id text[], a_gateway uuid[],
    a_session uuid[], a_state text[], a_sequence bigint[], a_rand bytea[], a_tickets bigint[], a_fee numeric[],
    a_balance numeric[], a_orchestrator bytea[], a_manifest text[], a_copies bigint[], a_differing bigint[]
) RETURNS TABLE (is_new boolean) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY
        INSERT INTO signer_event AS known (
            id, digest, happened_at, source, auth_id, gateway_id, session_id, state_id, sequence, recipient_rand_hash,
            num_tickets, fee_wei, balance_wei, orchestrator, manifest_id, copies, differing_copies)
        SELECT * FROM unnest(
            a_id, a_digest, a_happened_at, a_source, a_auth_id, a_gateway, a_session, a_state, a_sequence, a_rand,
            a_tickets, a_fee, a_balance, a_orchestrator, a_manifest, a_copies, a_differing) AS given
         ORDER BY 1  -- in one order everywhere, so that two readers cannot deadlock
        ON CONFLICT (id) DO UPDATE SET
            copies = known.copies + excluded.copies - (known.source = excluded.source)::integer,
            differing_copies = known.differing_copies + excluded.differing_copies
                + (known.digest <> excluded.digest)::integer
        RETURNING xmax = 0;
    PERFORM reconcile_signer_events_from((SELECT min(at) FROM unnest(a_happened_at) AS given (at)));
END $$;

CREATE FUNCTION record_signer_payments(
    a_id uuid[], a_digest bytea[], a_happened_at timestamptz[], a_source text[], a_sender bytea[], a_recipient bytea[],
    a_face_value numeric[], a_tickets bigint[], a_manifest text[], a_copies bigint[], a_differing bigint[]
) RETURNS TABLE (is_new boolean) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    RETURN QUERY
        INSERT INTO signer_payment AS known (
            id, digest, happened_at, source, sender, recipient, face_value_wei, num_tickets, manifest_id, copies,
            differing_copies)
        SELECT * FROM unnest(
            a_id, a_digest, a_happened_at, a_source, a_sender, a_recipient, a_face_value, a_tickets, a_manifest,
            a_copies, a_differing) AS given
         ORDER BY 1
        ON CONFLICT (id) DO UPDATE SET
            copies = known.copies + excluded.copies - (known.source = excluded.source)::integer,
            differing_copies = known.differing_copies + excluded.differing_copies
                + (known.digest <> excluded.digest)::integer
        RETURNING xmax = 0;
    PERFORM reconcile_signer_events_from((SELECT min(at) FROM unnest(a_happened_at) AS given (at)));
END $$;

CREATE FUNCTION record_unreleased(
    a_id uuid[], a_gateway uuid[], a_session uuid[], a_sequence bigint[], a_rand bytea[], a_signatures integer[],
    a_reason text[], a_at timestamptz[]
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO unreleased (id, gateway_id, session_id, sequence, recipient_rand_hash, signatures, reason, at)
    SELECT * FROM unnest(a_id, a_gateway, a_session, a_sequence, a_rand, a_signatures, a_reason, a_at) AS given
        ON CONFLICT (id) DO NOTHING;  -- sent again because its outcome was unknown
    UPDATE signer_event_progress SET reconciled_until = earliest.at
      FROM (SELECT min(at) - interval '2 minutes' AS at FROM unnest(a_at) AS given (at)) AS earliest
     WHERE reconciled_until > earliest.at;
END $$;

-- Events of this time and later are to be compared, again where they were already; and what was issued two minutes before
-- them, because clocks differ by up to half a minute and a call takes no longer than that again.
CREATE FUNCTION reconcile_signer_events_from(a_happened_at timestamptz) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO signer_event_progress AS progress (reconciled_until)
    SELECT a_happened_at - interval '2 minutes' WHERE a_happened_at IS NOT NULL
        ON CONFLICT (only_row) DO UPDATE SET reconciled_until = excluded.reconciled_until
     WHERE progress.reconciled_until > excluded.reconciled_until;
$$;

-- Moves on from a value that was read, unless something late has moved it back meanwhile. Returns whether it moved.
CREATE FUNCTION signer_events_reconciled(a_from timestamptz, a_until timestamptz) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE signer_event_progress SET reconciled_until = a_until WHERE reconciled_until = a_from;
    RETURN FOUND;
END $$;

-- Writes down what was found in a span of time. What was found there before and is not now is resolved, for the kinds of
-- which everything was looked at; never where the event itself is no longer kept.
CREATE FUNCTION note_signer_event_findings(
    a_from timestamptz, a_until timestamptz, a_complete_kinds text[],
    a_kind text[], a_subject text[], a_severity text[], a_detail text[], a_happened_at timestamptz[]
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO signer_event_finding AS known (kind, subject, severity, detail, happened_at)
    SELECT * FROM unnest(a_kind, a_subject, a_severity, a_detail, a_happened_at) AS given ORDER BY 1, 2
        ON CONFLICT (kind, subject) DO UPDATE SET
            severity = excluded.severity, detail = excluded.detail, happened_at = excluded.happened_at,
            last_seen_at = now(), resolved_at = NULL;
    UPDATE signer_event_finding AS known SET resolved_at = now()
     WHERE happened_at >= a_from AND happened_at < a_until AND resolved_at IS NULL
       AND kind = ANY (a_complete_kinds)
       AND NOT EXISTS (SELECT FROM unnest(a_kind, a_subject) AS found (kind, subject)
                        WHERE found.kind = known.kind AND found.subject = known.subject)
       AND happened_at >= (SELECT happened_at FROM signer_event ORDER BY happened_at LIMIT 1);
END $$;

-- Somebody has looked into an open finding: no alarm any more. Returns whether there was one.
CREATE FUNCTION accept_signer_event_finding(a_kind text, a_subject text, a_reason text, a_actor text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE signer_event_finding SET accepted_at = now(), accepted_by = a_actor, reason = a_reason
     WHERE kind = a_kind AND subject = a_subject AND resolved_at IS NULL AND accepted_at IS NULL;
    RETURN FOUND;
END $$;

-- Forgets what is older, by the time it was received as well: an old file that was read today is kept. Returns how many
-- rows that were, at most 10,000 of each table.
CREATE FUNCTION forget_signer_events(older_than interval) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH events AS (
        DELETE FROM signer_event WHERE id IN (
            SELECT id FROM signer_event WHERE happened_at < now() - older_than AND received_at < now() - older_than
             ORDER BY happened_at LIMIT 10000 FOR UPDATE SKIP LOCKED)
        RETURNING 1),
    payments AS (
        DELETE FROM signer_payment WHERE id IN (
            SELECT id FROM signer_payment WHERE happened_at < now() - older_than AND received_at < now() - older_than
             ORDER BY happened_at LIMIT 10000 FOR UPDATE SKIP LOCKED)
        RETURNING 1),
    thrown_away AS (
        DELETE FROM unreleased WHERE id IN (
            SELECT id FROM unreleased WHERE at < now() - older_than ORDER BY at LIMIT 10000 FOR UPDATE SKIP LOCKED)
        RETURNING 1)
    SELECT (SELECT count(*) FROM events) + (SELECT count(*) FROM payments) + (SELECT count(*) FROM thrown_away);
$$;
