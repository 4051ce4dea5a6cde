-- Top-ups of an escrow, which cost real money: what was meant, what was signed, what was sent, what became of it.
--
--   planned ──▶ signed ──▶ sent ──▶ confirmed   it is in the escrow, deep enough in the chain
--      │           └─────────┴────▶ failed      it was mined and the contract refused it: gas is all it cost
--      │                     └────▶ cancelled   our own empty transaction took its nonce
--      │                     └────▶ displaced   a transaction that we did not sign took its nonce
--      └──▶ abandoned                           nothing of it was ever signed
--
-- Only bytes that are stored here are ever sent. All transactions of a top-up have its nonce, so the chain can take one
-- of them, once, however often they are sent and by whomever.

CREATE TABLE topup (
    id                     uuid PRIMARY KEY,
    state                  text NOT NULL DEFAULT 'planned' CHECK (state IN
                           ('planned', 'signed', 'sent', 'confirmed', 'failed', 'cancelled', 'displaced', 'abandoned')),
    chain_id               bigint NOT NULL,
    ticket_broker          address NOT NULL,
    sender                 address NOT NULL,     -- whose escrow it is for
    payer                  address NOT NULL,     -- whose wallet it comes from; may be the sender's own
    deposit_wei            wei NOT NULL,
    reserve_wei            wei NOT NULL,
    nonce                  bigint CHECK (nonce >= 0),  -- of the wallet: fixed with the first signature
    -- What was known when it was planned.
    snapshot_at            timestamptz,          -- of the coverage that advised it; NULL: somebody named the amounts
    observed_block         bigint NOT NULL,
    observed_deposit_wei   wei NOT NULL,
    observed_reserve_wei   wei NOT NULL,
    actor                  text NOT NULL,
    reason                 text NOT NULL DEFAULT '' CHECK (length(reason) <= 1000),
    created_at             timestamptz NOT NULL,
    is_cancelling          boolean NOT NULL DEFAULT false,  -- an empty transaction was signed to take its place
    overtaken_since_block  bigint,               -- from when on the chain had another transaction with its nonce
    -- How it ended.
    ended_at               timestamptz,
    mined_hash             hash32,
    mined_block            bigint,
    fee_wei                wei,
    CHECK (deposit_wei + reserve_wei > 0),
    CHECK ((ended_at IS NULL) = (state IN ('planned', 'signed', 'sent'))),
    CHECK ((nonce IS NULL) = (state IN ('planned', 'abandoned'))),
    CHECK ((mined_hash IS NOT NULL) = (state IN ('confirmed', 'failed', 'cancelled')))
);
-- One at a time, whoever plans it.
CREATE UNIQUE INDEX topup_in_flight ON topup ((true)) WHERE ended_at IS NULL;
-- A nonce that something was signed with is never used for something else.
CREATE UNIQUE INDEX topup_nonce ON topup (chain_id, payer, nonce) WHERE nonce IS NOT NULL;
CREATE INDEX topup_newest ON topup (created_at DESC);

-- Every transaction that was ever signed. No row is changed or removed.
CREATE TABLE topup_transaction (
    topup_id                      uuid NOT NULL REFERENCES topup,
    attempt                       integer NOT NULL CHECK (attempt > 0),  -- a later one replaces those before it
    purpose                       text NOT NULL CHECK (purpose IN ('fund', 'cancel')),
    hash                          hash32 NOT NULL UNIQUE,
    raw                           bytea NOT NULL,
    gas_limit_count               bigint NOT NULL,
    max_fee_per_gas_wei           wei NOT NULL,
    priority_fee_per_gas_wei      wei NOT NULL,
    signed_at                     timestamptz NOT NULL,
    PRIMARY KEY (topup_id, attempt)
);

-- Who did what, when and why, with the numbers. No row is changed or removed.
CREATE TABLE topup_event (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topup_id  uuid REFERENCES topup,  -- NULL: of none, such as that none could be sent
    at        timestamptz NOT NULL,
    kind      text NOT NULL,
    actor     text NOT NULL,
    facts     jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX topup_event_topup ON topup_event (topup_id, id);

-- The audit stays as it was written, whoever asks: what may be paid again is decided from it.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON topup_transaction
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('It may have been sent, or still may.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON topup_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Later events say what was wrong with earlier ones.');
CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON topup
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('`clearinghouse topup cancel` ends one.');

-- Of a top-up only how far it has got changes: what was planned, by whom and why does not, nor a nonce that was given,
-- and what was abandoned, or is being cancelled, remains so.
CREATE FUNCTION keep_topup_plan() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    progress CONSTANT text[] := '{state,nonce,is_cancelling,overtaken_since_block,ended_at,mined_hash,mined_block,fee_wei}';
BEGIN
    IF to_jsonb(OLD) - progress <> to_jsonb(NEW) - progress OR OLD.nonce <> coalesce(NEW.nonce, -1)
       OR OLD.is_cancelling AND NOT NEW.is_cancelling OR OLD.state = 'abandoned' THEN
        RAISE EXCEPTION 'topup is append-only but for how far it has got: % is refused', TG_OP
            USING ERRCODE = 'insufficient_privilege', HINT = 'Cancel it, and plan another.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keeps_its_plan BEFORE UPDATE ON topup FOR EACH ROW EXECUTE FUNCTION keep_topup_plan();

-- How things stand, for alerts and whoever asks: one row, written by every look.
CREATE TABLE topup_standing (
    is_one               boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    observed_at          timestamptz NOT NULL,
    mode                 text NOT NULL,
    condition            text,                   -- why nothing is sent that should be; NULL: nothing is wrong
    said                 text NOT NULL,
    since                timestamptz NOT NULL,   -- of this condition
    payer                address,
    balance_wei          wei,                    -- of the wallet, where it was read; with the time
    balance_at           timestamptz,
    balance_is_low       boolean NOT NULL DEFAULT false,
    advised_deposit_wei  wei,                    -- what would be, or is about to be, sent
    advised_reserve_wei  wei
);

-- What was sent in the day before a_now and may have arrived, or may still.
CREATE FUNCTION topup_day_wei(a_now timestamptz) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT coalesce(sum(deposit_wei + reserve_wei), 0) FROM topup
     WHERE (ended_at IS NULL OR state = 'confirmed') AND coalesce(ended_at, a_now) > a_now - interval '24 hours';
$$;

-- Returns NULL where it is planned, or why not: in_flight, day_cap, reading_too_old.
CREATE FUNCTION plan_topup(
    a_id uuid, a_now timestamptz, a_chain_id bigint, a_ticket_broker bytea, a_sender bytea, a_payer bytea,
    a_deposit_wei numeric, a_reserve_wei numeric, a_day_max_wei numeric, a_snapshot_at timestamptz,
    a_observed_block bigint, a_observed_deposit_wei numeric, a_observed_reserve_wei numeric, a_actor text, a_reason text)
RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('topup'));  -- the sum of a day has no row to lock
    IF EXISTS (SELECT FROM topup WHERE ended_at IS NULL) THEN
        RETURN 'in_flight';
    END IF;
    -- Somebody else's top-up arrived after the escrow was read: it may be all that was needed.
    IF EXISTS (SELECT FROM topup WHERE state = 'confirmed' AND chain_id = a_chain_id
                  AND mined_block > a_observed_block) THEN
        RETURN 'reading_too_old';
    END IF;
    IF topup_day_wei(a_now) + a_deposit_wei + a_reserve_wei > a_day_max_wei THEN
        RETURN 'day_cap';
    END IF;
    INSERT INTO topup (id, chain_id, ticket_broker, sender, payer, deposit_wei, reserve_wei, snapshot_at,
                       observed_block, observed_deposit_wei, observed_reserve_wei, actor, reason, created_at)
    VALUES (a_id, a_chain_id, a_ticket_broker, a_sender, a_payer, a_deposit_wei, a_reserve_wei, a_snapshot_at,
            a_observed_block, a_observed_deposit_wei, a_observed_reserve_wei, a_actor, a_reason, a_now);
    INSERT INTO topup_event (topup_id, at, kind, actor, facts)
    VALUES (a_id, a_now, 'planned', a_actor, jsonb_build_object(
        'deposit_wei', a_deposit_wei::text, 'reserve_wei', a_reserve_wei::text, 'block', a_observed_block,
        'escrow_deposit_wei', a_observed_deposit_wei::text, 'escrow_reserve_wei', a_observed_reserve_wei::text,
        'snapshot_at', a_snapshot_at, 'reason', a_reason));
    RETURN NULL;
END $$;

-- From here on these bytes may be sent. Returns false where somebody else was first: then they never are.
CREATE FUNCTION store_topup_transaction(
    a_topup_id uuid, a_attempt integer, a_purpose text, a_nonce bigint, a_hash bytea, a_raw bytea,
    a_gas_limit_count bigint, a_max_fee_per_gas_wei numeric, a_priority_fee_per_gas_wei numeric,
    a_now timestamptz, a_actor text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    found topup;
BEGIN
    SELECT * INTO found FROM topup WHERE id = a_topup_id FOR UPDATE;
    IF found.id IS NULL OR found.ended_at IS NOT NULL OR found.nonce <> a_nonce
       OR (found.is_cancelling AND a_purpose <> 'cancel')
       OR (found.nonce IS NULL AND a_purpose = 'cancel')
       OR a_attempt <> 1 + (SELECT count(*) FROM topup_transaction WHERE topup_id = a_topup_id) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM topup WHERE chain_id = found.chain_id AND payer = found.payer AND nonce = a_nonce
                  AND id <> a_topup_id) THEN
        RETURN false;
    END IF;
    INSERT INTO topup_transaction VALUES (a_topup_id, a_attempt, a_purpose, a_hash, a_raw, a_gas_limit_count,
                                          a_max_fee_per_gas_wei, a_priority_fee_per_gas_wei, a_now);
    UPDATE topup SET nonce = a_nonce, is_cancelling = is_cancelling OR a_purpose = 'cancel',
                     state = CASE state WHEN 'planned' THEN 'signed' ELSE state END
     WHERE id = a_topup_id;
    INSERT INTO topup_event (topup_id, at, kind, actor, facts)
    VALUES (a_topup_id, a_now, CASE WHEN a_purpose = 'cancel' THEN 'cancel_signed'
                                    WHEN a_attempt = 1 THEN 'signed' ELSE 'replacement_signed' END, a_actor,
            jsonb_build_object('attempt', a_attempt, 'nonce', a_nonce, 'hash', '0x' || encode(a_hash, 'hex'),
                'gas_limit_count', a_gas_limit_count, 'max_fee_per_gas_wei', a_max_fee_per_gas_wei::text,
                'priority_fee_per_gas_wei', a_priority_fee_per_gas_wei::text));
    RETURN true;
END $$;

-- That an attempt was sent, and what the endpoints said. That it was sent again and known already is no event.
CREATE FUNCTION note_topup_sent(a_topup_id uuid, a_attempt integer, a_answers jsonb, a_now timestamptz, a_actor text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    was_sent boolean := EXISTS (SELECT FROM topup_event WHERE topup_id = a_topup_id AND kind = 'sent'
                                   AND (facts ->> 'attempt')::integer = a_attempt);
BEGIN
    UPDATE topup SET state = 'sent' WHERE id = a_topup_id AND state = 'signed';
    INSERT INTO topup_event (topup_id, at, kind, actor, facts)
    SELECT a_topup_id, a_now, CASE WHEN was_sent THEN 'sent_again' ELSE 'sent' END, a_actor,
           jsonb_build_object('attempt', a_attempt, 'hash', '0x' || encode(hash, 'hex'), 'answers', a_answers)
      FROM topup_transaction WHERE topup_id = a_topup_id AND attempt = a_attempt
       AND (NOT was_sent OR EXISTS (SELECT FROM jsonb_each_text(a_answers) WHERE value = 'taken'));
END $$;

-- That the chain has, or no longer has (NULL), a transaction of somebody else with the top-up's nonce.
CREATE FUNCTION note_topup_overtaken(a_topup_id uuid, a_block bigint, a_now timestamptz, a_actor text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE topup SET overtaken_since_block = a_block WHERE id = a_topup_id AND ended_at IS NULL
       AND (overtaken_since_block IS NULL) <> (a_block IS NULL);
    IF FOUND THEN
        INSERT INTO topup_event (topup_id, at, kind, actor, facts)
        VALUES (a_topup_id, a_now, CASE WHEN a_block IS NULL THEN 'nonce_free_again' ELSE 'nonce_taken' END, a_actor,
                jsonb_build_object('block', a_block));
    END IF;
END $$;

-- Returns false where it had ended already. Only what was never signed can be abandoned.
CREATE FUNCTION end_topup(a_topup_id uuid, a_state text, a_mined_hash bytea, a_mined_block bigint, a_fee_wei numeric,
                          a_why text, a_now timestamptz, a_actor text)
RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE topup SET state = a_state, ended_at = a_now, mined_hash = a_mined_hash, mined_block = a_mined_block,
                     fee_wei = a_fee_wei
     WHERE id = a_topup_id AND ended_at IS NULL AND (state = 'planned') = (a_state = 'abandoned');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO topup_event (topup_id, at, kind, actor, facts)
    VALUES (a_topup_id, a_now, a_state, a_actor, jsonb_strip_nulls(jsonb_build_object(
        'hash', '0x' || encode(a_mined_hash, 'hex'), 'block', a_mined_block, 'fee_wei', a_fee_wei::text,
        'why', a_why)));
    RETURN true;
END $$;

-- The chain says otherwise of one that had ended. Returns whether it is in flight again: not while another one is.
CREATE FUNCTION reopen_topup(a_topup_id uuid, a_now timestamptz, a_actor text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('topup'));
    UPDATE topup SET state = 'sent', ended_at = NULL, mined_hash = NULL, mined_block = NULL, fee_wei = NULL,
                     overtaken_since_block = NULL
     WHERE id = a_topup_id AND ended_at IS NOT NULL AND nonce IS NOT NULL AND NOT EXISTS (SELECT FROM topup WHERE ended_at IS NULL);
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO topup_event (topup_id, at, kind, actor) VALUES (a_topup_id, a_now, 'reorganised', a_actor);
    RETURN true;
END $$;

-- How things stand. A condition that begins or ends is an event.
CREATE FUNCTION note_topup_standing(
    a_now timestamptz, a_mode text, a_condition text, a_said text, a_payer bytea, a_balance_wei numeric,
    a_balance_is_low boolean, a_advised_deposit_wei numeric, a_advised_reserve_wei numeric, a_actor text)
RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    before topup_standing;
BEGIN
    SELECT * INTO before FROM topup_standing FOR UPDATE;
    INSERT INTO topup_standing VALUES (true, a_now, a_mode, a_condition, a_said, a_now, a_payer, a_balance_wei,
        CASE WHEN a_balance_wei IS NOT NULL THEN a_now END, coalesce(a_balance_is_low, false),
        a_advised_deposit_wei, a_advised_reserve_wei)
    ON CONFLICT (is_one) DO UPDATE SET
        observed_at = excluded.observed_at, mode = excluded.mode, condition = excluded.condition, said = excluded.said,
        since = CASE WHEN topup_standing.condition IS DISTINCT FROM excluded.condition THEN excluded.since
                     ELSE topup_standing.since END,
        payer = coalesce(excluded.payer, topup_standing.payer),
        balance_wei = coalesce(excluded.balance_wei, topup_standing.balance_wei),
        balance_at = coalesce(excluded.balance_at, topup_standing.balance_at),
        balance_is_low = coalesce(a_balance_is_low, topup_standing.balance_is_low),
        advised_deposit_wei = excluded.advised_deposit_wei, advised_reserve_wei = excluded.advised_reserve_wei;
    IF before.condition IS DISTINCT FROM a_condition THEN
        INSERT INTO topup_event (at, kind, actor, facts)
        VALUES (a_now, CASE WHEN a_condition IS NULL THEN 'all_well' ELSE 'hindered' END, a_actor,
                jsonb_strip_nulls(jsonb_build_object('condition', a_condition, 'said', a_said)));
    END IF;
END $$;
