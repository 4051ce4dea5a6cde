-- What happened on the chain to the escrows of our senders, and the protocol's rounds, as a quorum of endpoints tells it.
-- Rows of blocks that may still be replaced are undone when they are; everything else stays.

-- Blocks whose hash is remembered. The newest is the one up to which everything was read; the oldest is confirmed. A block
-- stands for all blocks below it: where it is the same, so are they. Between the two, one for each range that was read.
CREATE TABLE chain_block (
    number  bigint PRIMARY KEY,
    hash    hash32 NOT NULL
);

CREATE TABLE chain_follower (
    only_row          boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    chain_id          bigint NOT NULL,
    begins_at_block   bigint NOT NULL,           -- the first block that was read
    confirmed_block   bigint NOT NULL,           -- rows up to here are not undone any more
    head_block        bigint NOT NULL,
    read_at           timestamptz NOT NULL DEFAULT now()
);

-- Whose events are read, and from which block on.
CREATE TABLE chain_sender (
    sender           address PRIMARY KEY,
    begins_at_block  bigint NOT NULL
);

CREATE DOMAIN uint256 AS numeric(78, 0) CHECK (VALUE >= 0);

-- Redeemed tickets. What became of a row when it was compared with what was issued:
--   matched   issued by us
--   foreign   no ticket of ours has this recipientRand and nonce: the key is used elsewhere
--   altered   one has, with another face value, win probability, round, recipient or sender, or has been redeemed
--             already: the key is used elsewhere too
-- Only what is matched leaves the book of open tickets (0001_exposure.sql), and comes back where it is undone.
CREATE TABLE winning_ticket (
    block_number               bigint NOT NULL,
    log_index                  bigint NOT NULL,
    block_hash                 hash32 NOT NULL,
    transaction_hash           hash32 NOT NULL,
    sender                     address NOT NULL,
    recipient                  address NOT NULL,
    face_value_wei             uint256 NOT NULL,
    win_prob                   uint256 NOT NULL,
    sender_nonce               uint256 NOT NULL,
    recipient_rand             hash32 NOT NULL,
    recipient_rand_hash        hash32 NOT NULL,
    creation_round             uint256 NOT NULL,
    creation_round_block_hash  hash32 NOT NULL,
    status                     text NOT NULL DEFAULT 'unmatched'
                               CHECK (status IN ('unmatched', 'matched', 'foreign', 'altered')),
    gateway_id                 uuid,             -- of the issuance
    issuance_id                uuid,
    recorded_at                timestamptz NOT NULL DEFAULT now(),  -- when it was read: never before it happened
    PRIMARY KEY (block_number, log_index)
);
CREATE INDEX winning_ticket_unmatched ON winning_ticket (block_number, log_index) WHERE status = 'unmatched';
CREATE INDEX winning_ticket_foreign ON winning_ticket (block_number) WHERE status IN ('foreign', 'altered');
CREATE INDEX winning_ticket_rand ON winning_ticket (recipient_rand_hash, sender_nonce);

CREATE TABLE escrow_event (
    block_number      bigint NOT NULL,
    log_index         bigint NOT NULL,
    block_hash        hash32 NOT NULL,
    transaction_hash  hash32 NOT NULL,
    kind              text NOT NULL,
    sender            address NOT NULL,
    party             address,                   -- who was paid, or who claimed
    amount_wei        uint256,                   -- of a withdrawal, the deposit
    reserve_wei       uint256,                   -- of a withdrawal
    start_round       uint256,                   -- of an unlock
    end_round         uint256,
    recorded_at       timestamptz NOT NULL DEFAULT now(),  -- as of a redeemed ticket: the last column, it is not given
    PRIMARY KEY (block_number, log_index)
);

CREATE TABLE protocol_round (
    block_number      bigint NOT NULL,
    log_index         bigint NOT NULL,
    block_hash        hash32 NOT NULL,
    transaction_hash  hash32 NOT NULL,
    round             uint256 NOT NULL,
    round_block_hash  hash32 NOT NULL,
    PRIMARY KEY (block_number, log_index)
);
CREATE INDEX protocol_round_round ON protocol_round (round);

-- Everything, in the order of the chain.
CREATE VIEW chain_event AS
    SELECT block_number, log_index, transaction_hash, 'ticket_redeemed' AS kind, sender, recipient AS party,
           face_value_wei AS amount_wei, NULL::numeric AS reserve_wei, creation_round AS round, status,
           gateway_id, issuance_id
      FROM winning_ticket
    UNION ALL
    SELECT block_number, log_index, transaction_hash, kind, sender, party, amount_wei, reserve_wei, end_round, NULL,
           NULL, NULL
      FROM escrow_event
    UNION ALL
    SELECT block_number, log_index, transaction_hash, 'new_round', NULL, NULL, NULL, NULL, round, NULL, NULL, NULL
      FROM protocol_round;

-- What was redeemed above a block was never redeemed: its tickets are in the book again.
CREATE FUNCTION undo_redemptions(a_above bigint) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH undone AS (DELETE FROM winning_ticket WHERE block_number > a_above RETURNING *)
    INSERT INTO exposure_delta (
        sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, num_tickets, ev_numerator)
    SELECT key.sender, key.gateway_id, key.creation_round, key.recipient, key.face_value_wei, key.win_prob,
           key.issued_hour, 1, CASE WHEN key.face_value_wei IS NULL THEN undone.face_value_wei * undone.win_prob END
      FROM undone JOIN exposure_key AS key ON key.gateway_id = undone.gateway_id AND key.issuance_id = undone.issuance_id
     WHERE undone.status = 'matched';
$$;

-- Begins anew after this block: what is above it is forgotten, and read again.
CREATE FUNCTION begin_chain(a_chain_id bigint, a_number bigint, a_hash bytea) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO chain_follower AS known (chain_id, begins_at_block, confirmed_block, head_block)
    VALUES (a_chain_id, a_number + 1, a_number, a_number)
        ON CONFLICT (only_row) DO UPDATE SET
            begins_at_block = least(known.begins_at_block, excluded.begins_at_block),
            confirmed_block = excluded.confirmed_block, read_at = now();
    DELETE FROM chain_block;
    INSERT INTO chain_block (number, hash) VALUES (a_number, a_hash);
    PERFORM undo_redemptions(a_number);
    DELETE FROM escrow_event WHERE block_number > a_number;
    DELETE FROM protocol_round WHERE block_number > a_number;
    UPDATE chain_sender SET begins_at_block = least(begins_at_block, a_number + 1);
END $$;

-- Senders whose events are wanted from now on. Returns those that are new.
CREATE FUNCTION follow_chain_senders(a_senders bytea[]) RETURNS SETOF bytea
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    INSERT INTO chain_sender (sender, begins_at_block)
    SELECT DISTINCT given.sender, (SELECT max(number) + 1 FROM chain_block) FROM unnest(a_senders) AS given (sender)
        ON CONFLICT (sender) DO NOTHING
    RETURNING sender::bytea;
$$;

-- Records what the blocks after a_at up to a_end have, and moves on. Only from where the reader stands: false where
-- somebody else has moved on meanwhile, and then nothing is recorded.
CREATE FUNCTION record_chain_range(
    a_at bigint, a_at_hash bytea, a_end bigint, a_end_hash bytea, a_head bigint, a_confirmed bigint,
    a_tickets jsonb, a_escrow jsonb, a_rounds jsonb
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM chain_follower FOR UPDATE;
    IF NOT EXISTS (SELECT FROM (SELECT number, hash FROM chain_block ORDER BY number DESC LIMIT 1) AS newest
                    WHERE number = a_at AND hash = a_at_hash) THEN
        RETURN false;
    END IF;
    INSERT INTO chain_block (number, hash) VALUES (a_end, a_end_hash) ON CONFLICT DO NOTHING;
    UPDATE chain_follower SET confirmed_block = greatest(confirmed_block, least(a_confirmed, a_end)),
           head_block = a_head, read_at = now();
    DELETE FROM chain_block WHERE number < (SELECT max(number) FROM chain_block WHERE number <= a_confirmed);
    INSERT INTO winning_ticket (block_number, log_index, block_hash, transaction_hash, sender, recipient, face_value_wei,
        win_prob, sender_nonce, recipient_rand, recipient_rand_hash, creation_round, creation_round_block_hash)
    SELECT * FROM jsonb_to_recordset(a_tickets) AS given (
        block_number bigint, log_index bigint, block_hash bytea, transaction_hash bytea, sender bytea, recipient bytea,
        face_value_wei numeric, win_prob numeric, sender_nonce numeric, recipient_rand bytea,
        recipient_rand_hash bytea, creation_round numeric, creation_round_block_hash bytea);
    INSERT INTO escrow_event
    SELECT * FROM jsonb_to_recordset(a_escrow) AS given (
        block_number bigint, log_index bigint, block_hash bytea, transaction_hash bytea, kind text, sender bytea,
        party bytea, amount_wei numeric, reserve_wei numeric, start_round numeric, end_round numeric);
    INSERT INTO protocol_round
    SELECT * FROM jsonb_to_recordset(a_rounds) AS given (
        block_number bigint, log_index bigint, block_hash bytea, transaction_hash bytea, round numeric,
        round_block_hash bytea);
    RETURN true;
END $$;

-- After a reorganisation: everything above a block that is still the same was never so. Only from where the reader
-- stands; false where somebody else has moved.
CREATE FUNCTION undo_chain(a_at bigint, a_at_hash bytea, a_to bigint) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM chain_follower FOR UPDATE;
    IF NOT EXISTS (SELECT FROM (SELECT number, hash FROM chain_block ORDER BY number DESC LIMIT 1) AS newest
                    WHERE number = a_at AND hash = a_at_hash) THEN
        RETURN false;
    END IF;
    DELETE FROM chain_block WHERE number > a_to;
    PERFORM undo_redemptions(a_to);
    DELETE FROM escrow_event WHERE block_number > a_to;
    DELETE FROM protocol_round WHERE block_number > a_to;
    RETURN true;
END $$;

-- The smallest UUIDv7 of a millisecond.
CREATE FUNCTION uuid7_from(a_at timestamptz) RETURNS uuid LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM a_at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid
$$;

-- Compares redeemed tickets with what was issued, at most so many. A nonce is found through its recipientRand, and its
-- issuance among those that the gateway had while that recipientRand lasted: there is no index for it, which every
-- payment would have to keep. Of what the webhook approved no ticket was seen: there the two alone must fit.
CREATE FUNCTION match_winning_tickets(a_max integer) RETURNS TABLE (o_status text, o_count bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off AS $$
    WITH due AS MATERIALIZED (
        SELECT * FROM winning_ticket WHERE status = 'unmatched' ORDER BY block_number, log_index LIMIT a_max),
    compared AS (
        SELECT due.block_number, due.log_index, due.recipient_rand_hash, due.sender_nonce, issued.gateway_id,
               issued.id AS issuance_id,
               CASE WHEN issued.id IS NULL THEN 'foreign'
                    WHEN issued.sender <> due.sender OR issued.face_value_wei <> due.face_value_wei
                         OR issued.win_prob <> due.win_prob OR issued.creation_round <> due.creation_round
                         OR issued.recipient <> due.recipient THEN 'altered'
                    ELSE 'matched' END AS status
          FROM due
          LEFT JOIN LATERAL (
               SELECT issuance.*, session.recipient
                 FROM recipient_rand AS rand
                 JOIN session ON session.id = rand.session_id
                 JOIN issuance ON issuance.gateway_id = rand.gateway_id
                  AND issuance.id BETWEEN rand.first_issuance_id AND rand.last_issuance_id
                  AND issuance.recipient_rand_hash = rand.hash
                  AND due.sender_nonce >= issuance.first_nonce
                  AND due.sender_nonce < issuance.first_nonce + issuance.num_tickets
                WHERE rand.hash = due.recipient_rand_hash AND due.sender_nonce <= rand.last_nonce
                LIMIT 1) AS issued ON true),
    judged AS (  -- a nonce of ours is one ticket. Where the ticket was not seen, another one would fit as well.
        SELECT compared.*, CASE WHEN status = 'matched' AND (
                   row_number() OVER (PARTITION BY recipient_rand_hash, sender_nonce, status
                                      ORDER BY block_number, log_index) > 1
                   OR EXISTS (SELECT FROM winning_ticket AS other
                               WHERE other.recipient_rand_hash = compared.recipient_rand_hash
                                 AND other.sender_nonce = compared.sender_nonce AND other.status = 'matched'))
                   THEN 'altered' ELSE status END AS verdict
          FROM compared),
    noted AS (
        UPDATE winning_ticket AS ticket
           SET status = judged.verdict, gateway_id = judged.gateway_id, issuance_id = judged.issuance_id
          FROM judged
         WHERE ticket.block_number = judged.block_number AND ticket.log_index = judged.log_index
           AND ticket.status = 'unmatched'  -- it may have been compared by somebody else meanwhile
        RETURNING ticket.*),
    booked AS (
        INSERT INTO exposure_delta (
            sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, num_tickets,
            ev_numerator)
        SELECT key.sender, key.gateway_id, key.creation_round, key.recipient, key.face_value_wei, key.win_prob,
               key.issued_hour, -1, CASE WHEN key.face_value_wei IS NULL THEN -(noted.face_value_wei * noted.win_prob) END
          FROM noted JOIN exposure_key AS key ON key.gateway_id = noted.gateway_id AND key.issuance_id = noted.issuance_id
         WHERE noted.status = 'matched')
    SELECT status, count(*) FROM noted GROUP BY status;
$$;
