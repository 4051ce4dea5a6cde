-- What is told to whom: the conditions that serving processes report of themselves, operators' alerts and silences,
-- gateways' notices, and the outbox that both are sent from. Written by `clearinghouse work`, in transactions of its own.

-- --- what serving processes say of themselves: a heartbeat -----------------------------------------------------------

-- What only a process knows, such as that its signer hangs or that its RPC endpoints disagree. One row for each process
-- and part of it, written every few seconds; a process that stops takes its rows with it, one that is killed does not.
CREATE TABLE service_condition (
    process_id  uuid NOT NULL,
    process     text NOT NULL,                   -- host and process, for people
    name        text NOT NULL,
    is_well     boolean NOT NULL,
    detail      text NOT NULL,
    since       timestamptz NOT NULL,            -- when is_well became what it is
    seen_at     timestamptz NOT NULL,
    PRIMARY KEY (process_id, name)
) WITH (fillfactor = 50);

-- One heartbeat. Rows of processes that were killed are forgotten after a day.
CREATE FUNCTION note_service_conditions(
    a_process_id uuid, a_process text, a_names text[], a_are_well boolean[], a_details text[]
) RETURNS void LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DELETE FROM service_condition
     WHERE seen_at < now() - interval '1 day' OR (process_id = a_process_id AND name <> ALL (a_names));
    INSERT INTO service_condition AS known (process_id, process, name, is_well, detail, since, seen_at)
    SELECT a_process_id, a_process, given.name, given.is_well, given.detail, now(), now()
      FROM unnest(a_names, a_are_well, a_details) AS given (name, is_well, detail)
        ON CONFLICT (process_id, name) DO UPDATE SET
            is_well = excluded.is_well, detail = excluded.detail, seen_at = excluded.seen_at,
            since = CASE WHEN known.is_well = excluded.is_well THEN known.since ELSE excluded.since END;
$$;

CREATE FUNCTION forget_service(a_process_id uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    DELETE FROM service_condition WHERE process_id = a_process_id;
$$;

-- --- alerts (settlement/alerts) --------------------------------------------------------------------------------------

-- One row from when a condition was first seen until it was gone; then it stays as what once was. What was only pending
-- and went away leaves no row.
CREATE TABLE alert (
    id               uuid PRIMARY KEY,
    fingerprint      text NOT NULL,              -- of the rule and the labels
    rule             text NOT NULL,
    severity         text NOT NULL CHECK (severity IN ('warning', 'critical')),
    state            text NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    condition        jsonb NOT NULL,             -- as it was last seen: labels, summary, facts, advice
    since            timestamptz NOT NULL,       -- when the condition began
    last_held_at     timestamptz NOT NULL,
    fired_at         timestamptz CHECK ((fired_at IS NULL) = (state = 'pending')),
    resolved_at      timestamptz CHECK ((resolved_at IS NULL) = (state <> 'resolved')),
    said_count       integer NOT NULL DEFAULT 0,
    first_said_at    timestamptz,
    last_said_at     timestamptz,
    acknowledged_at  timestamptz,
    acknowledged_by  text NOT NULL DEFAULT '',
    escalated_at     timestamptz,
    told             text[] NOT NULL DEFAULT '{}'  -- channels
);
-- Of two that evaluate at once one fails: there is one open alert about one thing.
CREATE UNIQUE INDEX alert_open ON alert (fingerprint) WHERE state <> 'resolved';
CREATE INDEX alert_newest ON alert (since);

-- The time of the newest evaluation. Who evaluates holds this row; what was seen before it is not judged after it.
CREATE TABLE alert_evaluation (
    only_row      boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    evaluated_at  timestamptz NOT NULL
);
INSERT INTO alert_evaluation (evaluated_at) VALUES ('-infinity');

CREATE TABLE silence (
    id          uuid PRIMARY KEY,
    matches     jsonb NOT NULL CHECK (jsonb_typeof(matches) = 'object' AND matches <> '{}'),
    starts_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL CHECK (ends_at >= starts_at),
    reason      text NOT NULL DEFAULT '' CHECK (length(reason) <= 1000),
    actor       text NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX silence_end ON silence (ends_at);

-- --- notices (settlement/notices) ------------------------------------------------------------------------------------

-- Where a gateway wants to hear of itself, and from which amounts on. NULL: as the settings say.
CREATE TABLE notice_target (
    gateway_id      uuid PRIMARY KEY REFERENCES gateway,
    webhook_url     text CHECK (length(webhook_url) <= 2000),
    email           text CHECK (length(email) <= 320),
    low_balance     monetary CHECK (low_balance >= 0),
    depleted_below  monetary CHECK (depleted_below >= 0),
    -- The webhook's signing secret is derived from the pepper, the gateway and this number: none is kept here.
    secret_version  integer NOT NULL DEFAULT 1 CHECK (secret_version > 0),
    previous_until  timestamptz,                 -- until then it is also signed with the secret before
    changed_at      timestamptz NOT NULL DEFAULT now(),
    changed_by      text NOT NULL
);

-- What a gateway was last told of one thing: of its balance, of its standing, of one key.
CREATE TABLE notice_state (
    gateway_id  uuid NOT NULL REFERENCES gateway,
    subject     text NOT NULL,                   -- balance, standing, or the id of a key
    state       text NOT NULL,
    changed_at  timestamptz NOT NULL,
    PRIMARY KEY (gateway_id, subject)
);

CREATE TABLE notice (
    id          uuid PRIMARY KEY,
    gateway_id  uuid NOT NULL REFERENCES gateway,
    number      bigint NOT NULL,                 -- from 1 for each gateway: whoever misses one can tell
    type        text NOT NULL,
    data        jsonb NOT NULL,
    created_at  timestamptz NOT NULL,
    UNIQUE (gateway_id, number)
);

-- --- the outbox (settlement/delivery) --------------------------------------------------------------------------------

-- One row for each message and channel, written with what it tells of, in one transaction: neither without the other.
CREATE TABLE delivery (
    id               uuid PRIMARY KEY,
    position         bigint GENERATED ALWAYS AS IDENTITY,  -- messages about one subject go to a channel in this order
    kind             text NOT NULL CHECK (kind IN ('alert', 'notice')),
    subject          uuid NOT NULL,              -- the alert, or the notice's gateway
    number           bigint NOT NULL,            -- of the message about its subject: a second one of a number is refused
    channel          text NOT NULL,              -- of the settings; for a notice: webhook, email
    message          jsonb NOT NULL,
    created_at       timestamptz NOT NULL,
    state            text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'delivered', 'dead')),
    attempts_count   integer NOT NULL DEFAULT 0, -- also the fence: who began a later attempt has the row
    attempts_before  integer NOT NULL DEFAULT 0, -- of them, those before it was put back by hand
    next_attempt_at  timestamptz NOT NULL,       -- while one is under way: when it counts as lost
    ended_at         timestamptz CHECK ((ended_at IS NULL) = (state = 'waiting')),
    error            text NOT NULL DEFAULT '',   -- of the last attempt
    UNIQUE (kind, subject, number, channel)
);
CREATE INDEX delivery_waiting ON delivery (next_attempt_at) WHERE state = 'waiting';
CREATE INDEX delivery_order ON delivery (subject, channel, position) WHERE state = 'waiting';
CREATE INDEX delivery_dead ON delivery (ended_at) WHERE state = 'dead';

CREATE TABLE delivery_attempt (
    delivery_id  uuid NOT NULL REFERENCES delivery,
    number       integer NOT NULL,
    started_at   timestamptz NOT NULL,
    ended_at     timestamptz,                    -- NULL: under way, or whoever made it was killed
    outcome      text CHECK (outcome IN ('delivered', 'failed', 'refused')),
    detail       text NOT NULL DEFAULT '',
    PRIMARY KEY (delivery_id, number)
);
