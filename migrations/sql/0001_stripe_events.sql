-- What Stripe told us: stored before it is acknowledged, acted upon after.
--
--   received ──▶ processing ──▶ done       its handler has asked Stripe for the object, and our books agree with it
--      ▲             │ └──────▶ parked     no handler can help: a person has to look
--      └─────────────┘                     it failed, or whoever had it is no more: the lease ran out
--
-- The first columns are as they arrived and never change. None of them is believed: they say which object to ask for.
CREATE TABLE stripe_event (
    id              text PRIMARY KEY CHECK (id ~ '^evt_[0-9A-Za-z_]{1,250}$'),  -- Stripe's own: once, however often told
    type            text NOT NULL CHECK (length(type) BETWEEN 1 AND 200),
    object_type     text NOT NULL CHECK (length(object_type) BETWEEN 1 AND 200),
    object_id       text CHECK (length(object_id) BETWEEN 1 AND 255),  -- NULL: Stripe gives that object no id
    api_version     text CHECK (length(api_version) <= 100),
    created_at      timestamptz NOT NULL,  -- by Stripe
    received_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    source          text NOT NULL CHECK (source IN ('delivered', 'listed')),  -- listed: it was never delivered
    payload         text NOT NULL CHECK (octet_length(payload) <= 1048576),   -- as it came, for people alone
    -- How far it has got.
    state           text NOT NULL DEFAULT 'received' CHECK (state IN ('received', 'processing', 'done', 'parked')),
    due_at          timestamptz NOT NULL DEFAULT clock_timestamp(),  -- when it is somebody's turn; processing: anybody's
    attempts_count  integer NOT NULL DEFAULT 0,  -- the newest has the lease: whoever ends another one ends nothing
    failures_count  integer NOT NULL DEFAULT 0,  -- in a row, that were not Stripe's being away
    said            text CHECK (length(said) <= 500),  -- what was done, or what stood in the way
    ended_at        timestamptz,
    CHECK ((ended_at IS NULL) = (state IN ('received', 'processing')))
);
CREATE INDEX stripe_event_due ON stripe_event (due_at) WHERE state IN ('received', 'processing');
CREATE INDEX stripe_event_processing ON stripe_event (object_id) WHERE state = 'processing';
CREATE INDEX stripe_event_parked ON stripe_event (received_at) WHERE state = 'parked';
CREATE INDEX stripe_event_ended ON stripe_event (ended_at) WHERE state = 'done';
CREATE INDEX stripe_event_newest ON stripe_event (received_at DESC);

CREATE FUNCTION tell_of_stripe_events() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('stripe_event', '');
    RETURN NULL;
END $$;
CREATE TRIGGER told AFTER INSERT ON stripe_event FOR EACH STATEMENT EXECUTE FUNCTION tell_of_stripe_events();

-- Up to when Stripe's own list of events was read for those that were never delivered.
CREATE TABLE stripe_listing (
    is_one     boolean PRIMARY KEY DEFAULT true CHECK (is_one),
    listed_to  timestamptz NOT NULL
);

-- How far the sweep has got through the objects of each type that are not final. It begins anew at their end.
CREATE TABLE stripe_sweep (
    object_type  text PRIMARY KEY,
    after_id     text NOT NULL,
    swept_at     timestamptz NOT NULL
);
