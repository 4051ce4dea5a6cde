-- Who pays for a gateway, and how: by which way, in which periods. One gateway, one customer, one currency: its account's.
CREATE TABLE customer (
    gateway_id          uuid PRIMARY KEY REFERENCES gateway,
    name                text NOT NULL CHECK (length(name) BETWEEN 1 AND 256),  -- as it stands on invoices
    email               text NOT NULL CHECK (length(email) BETWEEN 3 AND 512),
    line1               text NOT NULL DEFAULT '' CHECK (length(line1) <= 256),
    line2               text NOT NULL DEFAULT '' CHECK (length(line2) <= 256),
    city                text NOT NULL DEFAULT '' CHECK (length(city) <= 256),
    postal_code         text NOT NULL DEFAULT '' CHECK (length(postal_code) <= 32),
    state               text NOT NULL DEFAULT '' CHECK (length(state) <= 256),
    country             text CHECK (country ~ '^[A-Z]{2}$'),  -- ISO 3166-1
    tax_id_type         text CHECK (tax_id_type ~ '^[a-z]{2}_[a-z_]{1,16}$'),  -- as Stripe names them: eu_vat, us_ein
    tax_id              text CHECK (length(tax_id) BETWEEN 1 AND 64),
    is_taxed            boolean NOT NULL DEFAULT false,  -- by Stripe Tax
    locale              text NOT NULL DEFAULT 'en' CHECK (locale ~ '^[a-z]{2,3}(-[A-Z0-9]{2,3})?$'),
    po_number           text NOT NULL DEFAULT '' CHECK (length(po_number) <= 128),
    collection          text NOT NULL DEFAULT 'send_invoice'  -- manual: Stripe asks for nothing
                        CHECK (collection IN ('charge_automatically', 'send_invoice', 'manual')),
    manual_until        timestamptz,            -- what was owed by then was asked for without Stripe; NULL: never was
    net_days            integer NOT NULL DEFAULT 14 CHECK (net_days BETWEEN 0 AND 365),  -- until an invoice is due
    version             bigint NOT NULL DEFAULT 1,  -- counts the changes
    stripe_customer_id  text UNIQUE,
    stripe_version      bigint,                 -- of which Stripe's copy is; NULL: of none for certain
    stripe_refusal      text,                   -- why Stripe does not take this version
    stripe_attempts     integer NOT NULL DEFAULT 0,  -- customers that Stripe lost, or failed to make: part of the next key
    changed_at          timestamptz NOT NULL DEFAULT now(),
    changed_by          text NOT NULL DEFAULT '',
    CHECK ((tax_id_type IS NULL) = (tax_id IS NULL))
);

-- Whoever changes what Stripe is to be told, it is another version.
CREATE FUNCTION count_customer_change() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    untold CONSTANT text[] := ARRAY['version', 'stripe_customer_id', 'stripe_version', 'stripe_refusal',
                                    'stripe_attempts', 'changed_at', 'changed_by'];
BEGIN
    IF to_jsonb(NEW) - untold <> to_jsonb(OLD) - untold THEN
        NEW.version := OLD.version + 1;
        NEW.stripe_refusal := NULL;
        NEW.changed_at := now();
    END IF;
    IF OLD.collection = 'manual' AND NEW.collection <> 'manual' THEN
        NEW.manual_until := clock_timestamp();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER count_customer_change BEFORE UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION count_customer_change();

-- The way a gateway is billed from `begins_at` on, which is where a period of the terms before it ends: changing the way
-- never rewrites the past. A gateway without any is prepaid, in months of UTC.
CREATE TABLE billing_terms (
    gateway_id         uuid NOT NULL REFERENCES gateway,
    begins_at          timestamptz NOT NULL,
    way                text NOT NULL CHECK (way IN ('prepaid', 'automatic', 'postpaid', 'subscription', 'free')),
    cadence            text NOT NULL DEFAULT 'monthly' CHECK (cadence IN ('weekly', 'monthly')),
    anchor_day         integer NOT NULL DEFAULT 1,  -- of the month, or of the week: Monday is 1
    time_zone          text NOT NULL DEFAULT 'UTC' CHECK (length(time_zone) BETWEEN 1 AND 64),  -- IANA
    credit_limit       monetary NOT NULL DEFAULT 0 CHECK (credit_limit >= 0),
    -- Automatic top-up: below the first up to the second, so far apart, at most so much in a day and a month of UTC.
    refill_below       monetary CHECK (refill_below >= 0),
    refill_to          monetary,
    refill_cooldown_s  integer CHECK (refill_cooldown_s >= 60),
    refill_day_max     monetary CHECK (refill_day_max > 0),
    refill_month_max   monetary CHECK (refill_month_max >= refill_day_max),
    -- A subscription: its price in advance, and the usage that is in it.
    fee                monetary CHECK (fee >= 0),
    included           monetary CHECK (included >= 0),
    ends_at            timestamptz,             -- of a grant's terms: nothing is signed for free after it
    created_at         timestamptz NOT NULL DEFAULT now(),
    created_by         text NOT NULL DEFAULT '',
    PRIMARY KEY (gateway_id, begins_at),
    CHECK (anchor_day BETWEEN 1 AND CASE cadence WHEN 'weekly' THEN 7 ELSE 31 END),
    CHECK (way IN ('postpaid', 'subscription') OR credit_limit = 0),
    -- An automatic top-up may also stand behind a subscription.
    CHECK (way <> 'automatic' OR refill_to IS NOT NULL),
    CHECK (CASE WHEN refill_to IS NULL
                THEN coalesce(refill_below, refill_cooldown_s, refill_day_max, refill_month_max) IS NULL
                ELSE refill_to > refill_below AND refill_cooldown_s IS NOT NULL AND refill_day_max IS NOT NULL
                     AND refill_month_max IS NOT NULL AND way IN ('automatic', 'subscription') END),
    CHECK ((way = 'subscription') = (fee IS NOT NULL AND included IS NOT NULL)),
    CHECK (ends_at IS NULL OR way = 'free' AND ends_at > begins_at)
);

-- What may not be signed for a gateway because of what it owes: the strongest of what dunning, disputes and operators
-- have said, each for itself. Payment lifts it; an operator's suspension is another matter and stays.
CREATE TABLE billing_hold (
    gateway_id  uuid NOT NULL REFERENCES gateway,
    source      text NOT NULL CHECK (source IN ('dunning', 'dispute', 'operator')),
    hold        text NOT NULL CHECK (hold IN ('new_sessions', 'signing')),
    reason      text NOT NULL CHECK (length(reason) BETWEEN 1 AND 1000),
    set_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (gateway_id, source)
);
ALTER TABLE gateway
    ADD COLUMN billing_hold text NOT NULL DEFAULT 'none' CHECK (billing_hold IN ('none', 'new_sessions', 'signing')),
    ADD COLUMN billing_hold_reason text NOT NULL DEFAULT '' CHECK (length(billing_hold_reason) <= 1000);

-- 'none' is what a source says that has nothing against the gateway any more. Returns whether what holds is another.
CREATE FUNCTION set_billing_hold(a_gateway uuid, a_hold text, a_reason text, a_source text DEFAULT 'dunning')
RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM FROM gateway WHERE id = a_gateway FOR NO KEY UPDATE;
    IF a_hold = 'none' THEN
        DELETE FROM billing_hold WHERE gateway_id = a_gateway AND source = a_source;
    ELSE
        INSERT INTO billing_hold AS held (gateway_id, source, hold, reason)
        VALUES (a_gateway, a_source, a_hold, a_reason)
            ON CONFLICT (gateway_id, source) DO UPDATE SET hold = a_hold, reason = a_reason, set_at = now()
         WHERE (held.hold, held.reason) <> (a_hold, a_reason);
    END IF;
    UPDATE gateway SET billing_hold = strongest.hold, billing_hold_reason = strongest.reason
      FROM (SELECT hold, reason FROM (
                SELECT hold, reason, source FROM billing_hold WHERE gateway_id = a_gateway
                 UNION ALL SELECT 'none', '', '') AS said
             ORDER BY array_position(ARRAY['signing', 'new_sessions', 'none'], hold), source LIMIT 1) AS strongest
     WHERE id = a_gateway AND (billing_hold, billing_hold_reason) <> (strongest.hold, strongest.reason);
    RETURN FOUND;
END $$;
