-- The books: gateways and their keys, accounts and transfers, sessions, issuances. PostgreSQL 15 or newer.

-- Money is exact: a charge is wei (18 decimals) x price (up to 12) x markup in basis points (4), never rounded here.
-- Rounding happens once, at an invoice line.
CREATE DOMAIN monetary AS numeric CHECK (scale(VALUE) <= 34 AND abs(VALUE) < 1e40);
CREATE DOMAIN wei AS numeric(78, 0) CHECK (VALUE >= 0);
CREATE DOMAIN address AS bytea CHECK (length(VALUE) = 20);
CREATE DOMAIN hash32 AS bytea CHECK (length(VALUE) = 32);
CREATE DOMAIN currency AS text CHECK (VALUE ~ '^[A-Z]{3,8}$');
-- The rules for single values of the hot tables are domains: a table's own CHECKs are read anew by every statement.
CREATE DOMAIN cost AS monetary CHECK (VALUE >= 0);  -- 0 where a plan and its rate card allow it
CREATE DOMAIN credit_amount AS monetary CHECK (VALUE >= 0);  -- a credit limit, or how far a balance is beyond one
CREATE DOMAIN price AS numeric CHECK (VALUE > 0);
CREATE DOMAIN ticket_count AS integer CHECK (VALUE > 0);
CREATE DOMAIN nonce AS bigint CHECK (VALUE BETWEEN 0 AND 4294967295);

CREATE TABLE gateway (
    id              uuid PRIMARY KEY,
    name            text NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 128),
    status          text NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'suspended')),
    status_reason   text NOT NULL DEFAULT '',
    markup_bps      integer NOT NULL DEFAULT 0 CHECK (markup_bps BETWEEN 0 AND 1000000),
    minimum_charge  monetary NOT NULL DEFAULT 0 CHECK (minimum_charge >= 0),  -- per call, in the account's currency
    created_at      timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_key (
    id           uuid PRIMARY KEY,
    gateway_id   uuid NOT NULL REFERENCES gateway,
    public_id    text NOT NULL UNIQUE,           -- the part of the key that may be shown
    secret_hmac  bytea NOT NULL CHECK (length(secret_hmac) = 32),  -- HMAC-SHA256 of the secret under the pepper
    name         text NOT NULL DEFAULT '' CHECK (length(name) <= 128),
    created_at   timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);
CREATE INDEX api_key_gateway ON api_key (gateway_id);

-- A gateway's account has the gateway's id. System accounts (where money comes from and goes to) are summed from the
-- transfers and never updated in place, so that no hot row serialises the service: their balance here stays 0.
CREATE TABLE account (
    id              uuid PRIMARY KEY,
    gateway_id      uuid UNIQUE REFERENCES gateway,
    name            text NOT NULL,
    currency        currency NOT NULL,
    balance         monetary NOT NULL DEFAULT 0,
    credit_limit    credit_amount NOT NULL DEFAULT 0,
    overdrawn       credit_amount NOT NULL DEFAULT 0,  -- by how much the balance is below minus the limit: usage never
                                                -- takes it there, money that is taken back may
    usage_total     monetary NOT NULL DEFAULT 0,   -- sum of all usage charges
    lots_usage      monetary NOT NULL DEFAULT 0,   -- the part of usage_total already taken from credit lots
    next_expiry_at  timestamptz,                -- of the earliest credit lot with something left
    created_at      timestamptz NOT NULL DEFAULT now(),
    UNIQUE (name, currency),
    CONSTRAINT account_of_gateway_or_system CHECK (CASE WHEN gateway_id IS NULL THEN balance = 0 ELSE gateway_id = id END),
    CONSTRAINT account_within_credit_limit CHECK (balance >= -credit_limit - overdrawn)
) WITH (fillfactor = 50);

-- A transfer is both its postings: `amount` leaves the source and enters the destination, in one currency. An
-- unbalanced entry cannot be written down. Usage is written down the same way, in `issuance`; see the view `posting`.
CREATE TABLE transfer (
    id           uuid PRIMARY KEY,
    kind         text NOT NULL CHECK (kind IN ('grant', 'withdrawal', 'expiry', 'payment', 'refund', 'dispute',
                                               'dispute_won', 'write_off', 'rounding', 'adjustment', 'fee', 'included')),
    source       uuid NOT NULL,
    destination  uuid NOT NULL CHECK (destination <> source),
    amount       monetary NOT NULL CHECK (amount > 0),
    currency     text NOT NULL,
    key          text UNIQUE,                    -- idempotency key
    reason       text NOT NULL DEFAULT '' CHECK (length(reason) <= 1000),
    actor        text NOT NULL DEFAULT '',
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp()  -- after the account's lock: in the order of its entries
);
CREATE INDEX transfer_source ON transfer (source, id);
CREATE INDEX transfer_destination ON transfer (destination, id);

-- Credit that expires. Usage is taken from the lowest rank first (0 granted, 1 included in a subscription), there from
-- the lot that expires first; what no lot covers is permanent credit.
CREATE TABLE credit_lot (
    id          uuid PRIMARY KEY,                -- of the granting transfer
    account_id  uuid NOT NULL REFERENCES account,
    rank        smallint NOT NULL DEFAULT 0 CHECK (rank IN (0, 1)),
    amount      monetary NOT NULL CHECK (amount > 0),
    remaining   monetary NOT NULL CHECK (remaining BETWEEN 0 AND amount),
    expires_at  timestamptz NOT NULL
);
CREATE INDEX credit_lot_open ON credit_lot (account_id, expires_at) WHERE remaining > 0;

-- A stream of payments: one signer session, owned by one gateway, pinned to what it began with.
-- The newest answer is kept here, so that an identical request gets it again; older ones are forgotten.
CREATE TABLE session (
    id               uuid PRIMARY KEY,           -- also inside every signed state, as the end of its AuthID
    gateway_id       uuid NOT NULL,
    orchestrator     address NOT NULL,
    recipient        address,                    -- NULL: the session is approved at the webhook, which is shown none
    job_type         text NOT NULL,
    manifest_id      text,                       -- pinned when the caller first names one
    app              text NOT NULL,
    transcoder       text NOT NULL,
    pipeline         text NOT NULL,
    model            text NOT NULL,
    head_state_hash  hash32 NOT NULL,            -- SHA-256 of the newest released state
    head_sequence    bigint NOT NULL,
    request_hash     hash32 NOT NULL,            -- of the request that the newest answer belongs to
    issuance_id      uuid NOT NULL,
    answer           bytea NOT NULL,
    approved         bytea,                      -- at the webhook: the states that the next one can go on from
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 40, toast_tuple_target = 8160);
ALTER TABLE session ALTER COLUMN answer SET STORAGE EXTERNAL;  -- signatures do not compress

-- Nonces used per recipientRandHash. last_nonce = 0: seen, nothing released.
CREATE TABLE recipient_rand (
    hash        hash32 PRIMARY KEY,
    session_id  uuid NOT NULL,
    gateway_id  uuid NOT NULL,
    last_nonce  nonce NOT NULL,
    -- The ids of its issuances lie between these, both included: there is no index to find them by. NULL: it has none.
    first_issuance_id  uuid,
    last_issuance_id   uuid
) WITH (fillfactor = 70);

-- One row per released payment: what was signed, for whom, and what it cost. It is the entry in the books as well:
-- `charge` leaves the gateway's account and enters revenue. No foreign keys on the hot tables: their row locks on shared
-- parents would serialise tenants; the commit reads the parents and `ledger verify` checks.
CREATE TABLE issuance (
    gateway_id           uuid NOT NULL,
    id                   uuid NOT NULL,          -- UUIDv7
    session_id           uuid NOT NULL,
    sequence             bigint NOT NULL,        -- of the signer's state: 0 for a session's first payment
    key_id               uuid NOT NULL,
    end_user             text NOT NULL DEFAULT '',
    sender               address NOT NULL,
    recipient_rand_hash  hash32 NOT NULL,
    first_nonce          bigint NOT NULL,
    num_tickets          ticket_count NOT NULL,
    face_value_wei       wei,                    -- this and the next two are NULL where the webhook approved: it is
    win_prob             wei,                    -- shown no ticket. Numerator over 2^256 - 1
    creation_round       bigint,
    ev_numerator         numeric,                -- and then this is num_tickets * face_value_wei * win_prob, exactly
    ev_wei               wei NOT NULL,           -- of all tickets together, rounded up once
    fee_wei              numeric(78, 0) NOT NULL, -- the signer's own fee; recorded, never charged
    charge               cost NOT NULL,
    currency             text NOT NULL,
    price                price NOT NULL,         -- `currency` per ETH
    price_source         text NOT NULL,          -- and what it knows it by, such as the round of each feed
    price_observed_at    timestamptz NOT NULL,
    markup_bps           integer NOT NULL,
    balance_after        monetary NOT NULL,
    created_at           timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway_id, id)
);

CREATE FUNCTION system_account_id(name text, currency text) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT md5('system:' || name || ':' || currency)::uuid $$;

-- The books, posting by posting. `entry_id` is the transfer's or the issuance's id.
CREATE VIEW posting AS
    SELECT id AS entry_id, source AS account_id, currency, -amount AS amount, created_at FROM transfer
    UNION ALL
    SELECT id, destination, currency, amount, created_at FROM transfer
    UNION ALL
    SELECT id, gateway_id, currency, -charge, created_at FROM issuance
    UNION ALL
    SELECT id, system_account_id('revenue', currency), currency, charge, created_at FROM issuance;

-- Answers to requests with an Idempotency-Key, kept for a stated time.
CREATE TABLE keyed_answer (
    gateway_id    uuid NOT NULL,
    key           text NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    request_hash  hash32 NOT NULL,
    issuance_id   uuid NOT NULL,
    answer        bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway_id, key)
) WITH (toast_tuple_target = 8160);
ALTER TABLE keyed_answer ALTER COLUMN answer SET STORAGE EXTERNAL;
CREATE INDEX keyed_answer_age ON keyed_answer (created_at);

-- Promise 5: ledger rows are append-only, and the database itself refuses to change them, whoever asks. Another table
-- has another hint, as the argument.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: % is refused', TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'insufficient_privilege', HINT = coalesce(TG_ARGV[0], 'Correct a mistake with a further transfer.');
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfer
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON issuance
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
