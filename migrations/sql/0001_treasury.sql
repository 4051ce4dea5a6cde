-- Treasury, as operators write it down: what ETH was bought for, and what moved in an escrow without a top-up of ours.
-- No row is changed or removed. What was written down wrongly is voided by a row of its own: then it is as if it were
-- not, but it stays to be seen.

CREATE TABLE treasury_conversion (
    id           uuid PRIMARY KEY,               -- UUIDv7
    venue        text NOT NULL CHECK (length(venue) BETWEEN 1 AND 100),      -- where it was bought
    reference    text NOT NULL CHECK (length(reference) BETWEEN 1 AND 200),  -- what the trade is known by there
    currency     currency NOT NULL CHECK (currency <> 'ETH'),
    paid_minor   numeric(38, 0) NOT NULL CHECK (paid_minor > 0),  -- all that left the bank, in minor units
    fee_minor    numeric(38, 0) NOT NULL CHECK (fee_minor >= 0 AND fee_minor < paid_minor),  -- the part of it that was the fee
    bought_wei   wei NOT NULL CHECK (bought_wei > 0),
    traded_at    timestamptz NOT NULL,
    note         text NOT NULL CHECK (length(note) <= 1000),
    recorded_by  text NOT NULL,
    recorded_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX treasury_conversion_time ON treasury_conversion (traded_at);

-- Of one transaction, one kind and one escrow: all of it together.
CREATE TABLE treasury_movement (
    id                uuid PRIMARY KEY,          -- UUIDv7
    chain_id          bigint NOT NULL,
    transaction_hash  hash32 NOT NULL,
    block_number      bigint NOT NULL CHECK (block_number >= 0),
    kind              text NOT NULL CHECK (kind IN ('deposit_funded', 'reserve_funded', 'withdrawal')),
    sender            address NOT NULL,          -- whose escrow it is
    amount_wei        wei NOT NULL CHECK (amount_wei > 0),  -- of a withdrawal, deposit and reserve
    note              text NOT NULL CHECK (length(note) BETWEEN 1 AND 1000),  -- who, and why
    recorded_by       text NOT NULL,
    recorded_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX treasury_movement_hash ON treasury_movement (transaction_hash);

CREATE TABLE treasury_void (
    record_id  uuid PRIMARY KEY,                 -- a conversion, or a movement
    reason     text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
    voided_by  text NOT NULL,
    voided_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON treasury_conversion
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('`clearinghouse treasury void` takes one back.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON treasury_movement
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('`clearinghouse treasury void` takes one back.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON treasury_void
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Record it again: that makes a record of its own.');

-- What counts.
CREATE VIEW treasury_conversion_in_force AS
    SELECT * FROM treasury_conversion AS record
     WHERE NOT EXISTS (SELECT FROM treasury_void WHERE record_id = record.id);
CREATE VIEW treasury_movement_in_force AS
    SELECT * FROM treasury_movement AS record
     WHERE NOT EXISTS (SELECT FROM treasury_void WHERE record_id = record.id);

-- One at a time: whether something is in force has no row to lock, nor an index that could be unique.
CREATE FUNCTION hold_treasury() RETURNS void LANGUAGE sql SET search_path = public, pg_temp AS $$
    SELECT pg_advisory_xact_lock(hashtext('treasury'));
$$;

-- The trade with this reference: the new record, or the one that was there. What differs is for the caller to see.
CREATE FUNCTION record_conversion(
    a_id uuid, a_venue text, a_reference text, a_currency text, a_paid_minor numeric, a_fee_minor numeric,
    a_bought_wei numeric, a_traded_at timestamptz, a_note text, a_actor text)
RETURNS treasury_conversion
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    found treasury_conversion;
BEGIN
    PERFORM hold_treasury();
    SELECT * INTO found FROM treasury_conversion_in_force
     WHERE lower(venue) = lower(a_venue) AND lower(reference) = lower(a_reference);
    IF found.id IS NULL THEN
        INSERT INTO treasury_conversion VALUES (a_id, a_venue, a_reference, a_currency, a_paid_minor, a_fee_minor,
                                                a_bought_wei, a_traded_at, a_note, a_actor) RETURNING * INTO found;
    END IF;
    RETURN found;
END $$;

-- The same of a movement. What a top-up of ours has paid, or still may, is its record already: check_violation.
CREATE FUNCTION record_movement(
    a_id uuid, a_chain_id bigint, a_hash bytea, a_block bigint, a_kind text, a_sender bytea, a_amount_wei numeric,
    a_note text, a_actor text)
RETURNS treasury_movement
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    found treasury_movement;
    ours uuid := (SELECT topup.id FROM topup_transaction AS sent JOIN topup ON topup.id = sent.topup_id
                   WHERE sent.hash = a_hash AND topup.chain_id = a_chain_id
                     AND topup.state NOT IN ('failed', 'cancelled', 'displaced', 'abandoned'));
BEGIN
    PERFORM hold_treasury();
    IF ours IS NOT NULL THEN
        RAISE check_violation USING MESSAGE = ours::text, CONSTRAINT = 'movement_is_no_top_up';
    END IF;
    SELECT * INTO found FROM treasury_movement_in_force
     WHERE chain_id = a_chain_id AND transaction_hash = a_hash AND kind = a_kind AND sender = a_sender;
    IF found.id IS NULL THEN
        INSERT INTO treasury_movement VALUES (a_id, a_chain_id, a_hash, a_block, a_kind, a_sender, a_amount_wei, a_note,
                                              a_actor) RETURNING * INTO found;
    END IF;
    RETURN found;
END $$;

-- From here on it is as if it were not. The new row, or the one that was there; no_data_found where there is no such
-- record.
CREATE FUNCTION void_treasury_record(a_id uuid, a_reason text, a_actor text) RETURNS treasury_void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    found treasury_void;
BEGIN
    PERFORM hold_treasury();
    IF NOT EXISTS (SELECT FROM treasury_conversion WHERE id = a_id UNION ALL
                   SELECT FROM treasury_movement WHERE id = a_id) THEN
        RAISE no_data_found;
    END IF;
    SELECT * INTO found FROM treasury_void WHERE record_id = a_id;
    IF found.record_id IS NULL THEN
        INSERT INTO treasury_void VALUES (a_id, a_reason, a_actor) RETURNING * INTO found;
    END IF;
    RETURN found;
END $$;
