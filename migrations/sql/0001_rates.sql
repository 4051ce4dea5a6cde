-- Rate cards: what calls are sold at (docs/rates.md), in versions that never change, and whose calls are charged by which.
--
-- A version holds from its effective_from until another does; of two that begin at one instant, the higher one. So what
-- holds at an instant follows from the rows, and every issuance names the rule that it was charged by. Versions are added
-- under a lock that commits share from before they look at the clock to their end: an issuance is never charged by a
-- version that another one had taken the place of when the issuance was made (`ledger verify` looks).
CREATE TABLE rate_card (
    card            text NOT NULL CHECK (card NOT IN ('none', 'inherit')),
    version         integer NOT NULL CHECK (version > 0),
    currency        currency NOT NULL,
    effective_from  timestamptz NOT NULL,
    document        jsonb NOT NULL,              -- all of it, as clearinghouse.rates.document writes and reads it
    sha256          hash32 NOT NULL,             -- of the document, in its one spelling
    applied_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by      text NOT NULL,
    PRIMARY KEY (card, version)
);
CREATE INDEX rate_card_in_force ON rate_card (card, effective_from, version);

-- What charges are computed from, and computed again. Names that are NULL fit any.
CREATE TABLE rate_rule (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    card            text NOT NULL,
    version         integer NOT NULL,
    ordinal         integer NOT NULL,            -- its place in the document, from 0 on
    application     text,
    pipeline        text,
    model           text,
    per             text NOT NULL,
    base_per_unit   numeric NOT NULL CHECK (base_per_unit > 0),  -- of what quantities are counted in: nanoseconds, pixels
    floor           text NOT NULL CHECK (floor IN ('period', 'call', 'none')),
    minimum_charge  monetary NOT NULL CHECK (minimum_charge >= 0),
    -- Whether a charge depends on what came before it in the month: then the commit computes it, from rate_position.
    counts          boolean NOT NULL,
    meter           text NOT NULL,               -- what is counted together: unit, application, pipeline, model, as JSON
    UNIQUE (card, version, ordinal),
    FOREIGN KEY (card, version) REFERENCES rate_card
);

-- The price of the units beyond `begins_at`, and what all before it cost, times base_per_unit. Both in the unit's base.
CREATE TABLE rate_tier (
    rule_id    bigint NOT NULL REFERENCES rate_rule,
    begins_at  numeric NOT NULL CHECK (begins_at >= 0),
    price      numeric NOT NULL CHECK (price >= 0),
    below      numeric NOT NULL CHECK (below >= 0),
    PRIMARY KEY (rule_id, begins_at)
);

-- How far the calls of a month (UTC) have come that one rate is for: sums over its issuances, in the unit's base and in
-- the account's currency. `rated` is what they came to by the rate, `cost` what their tickets were worth.
CREATE TABLE rate_position (
    gateway_id  uuid NOT NULL,
    month       date NOT NULL,
    meter       text NOT NULL,
    volume      numeric NOT NULL,
    rated       numeric NOT NULL,
    cost        numeric NOT NULL,
    PRIMARY KEY (gateway_id, month, meter)
) WITH (fillfactor = 50);

-- Who was put on which card, and by whom. The newest row of a gateway or a plan is what it has; NULL: of a plan none, of
-- a gateway its plan's; 'none': none, whatever the plan has.
CREATE TABLE rate_assignment (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gateway_id   uuid REFERENCES gateway,
    plan         text,                           -- no reference: plans are deleted, and this is kept
    card         text,
    below_cost   boolean,                        -- of a plan: its gateways may be charged less than their tickets cost
    assigned_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    assigned_by  text NOT NULL,
    CHECK ((gateway_id IS NULL) <> (plan IS NULL) AND (below_cost IS NULL) = (plan IS NULL))
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rate_card
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('What should change is another version.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rate_rule
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('What should change is another version.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rate_tier
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('What should change is another version.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rate_assignment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Assign another card.');

-- A version is complete when it is applied: no rate and no tier is added to it in a later transaction.
CREATE FUNCTION keep_rate_version() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM rate_card JOIN rate_rule AS rule USING (card, version)
                    WHERE rule.id = (to_jsonb(NEW) ->> TG_ARGV[0])::bigint
                      AND rate_card.xmin = pg_current_xact_id()::xid) THEN
        RAISE EXCEPTION '% is append-only: a version that was applied gets no further rate', TG_TABLE_NAME
            USING ERRCODE = 'insufficient_privilege', HINT = 'What should change is another version.';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER complete AFTER INSERT ON rate_rule FOR EACH ROW EXECUTE FUNCTION keep_rate_version('id');
CREATE TRIGGER complete AFTER INSERT ON rate_tier FOR EACH ROW EXECUTE FUNCTION keep_rate_version('rule_id');

-- Until the transaction ends no commit looks at cards, and no other version is added. Returns the time from then on.
CREATE FUNCTION hold_rate_cards() RETURNS timestamptz
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN  -- else the look could be older than the lock
        RAISE 'hold_rate_cards needs READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(x'7261746563617264'::bigint);
    RETURN clock_timestamp();
END $$;

-- Whoever adds one holds them, and cannot say when that was.
CREATE FUNCTION stamp_rate_card() RETURNS trigger LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    NEW.applied_at := hold_rate_cards();
    RETURN NEW;
END $$;
CREATE TRIGGER stamp_rate_card BEFORE INSERT ON rate_card FOR EACH ROW EXECUTE FUNCTION stamp_rate_card();

CREATE FUNCTION rate_version_at(a_card text, a_at timestamptz) RETURNS integer
LANGUAGE sql STABLE AS $$
    SELECT version FROM rate_card WHERE card = a_card AND effective_from <= a_at
     ORDER BY effective_from DESC, version DESC LIMIT 1
$$;

-- What the first `a_volume` cost by a rule, rounded up to the 34th decimal: clearinghouse.rates.card.Rate.total_grains.
CREATE FUNCTION rate_total(a_rule bigint, a_volume numeric) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT div((tier.below + tier.price * (a_volume - tier.begins_at)) * 1e34 + rule.base_per_unit - 1,
               rule.base_per_unit) * 1e-34
      FROM rate_tier AS tier JOIN rate_rule AS rule ON rule.id = tier.rule_id
     WHERE tier.rule_id = a_rule AND (tier.begins_at < a_volume OR tier.begins_at = 0)
     ORDER BY tier.begins_at DESC LIMIT 1
$$;

-- What a call is charged, in the same steps: clearinghouse.rates.quote. `a_lead` is what the calls before it in the month
-- came to by their rate, less what their tickets were worth. A month is charged the larger of the two sums, at any time
-- within it, and a call what it adds to that.
CREATE FUNCTION rate_charge(a_floor text, a_at_least_cost boolean, a_rated numeric, a_cost numeric, a_lead numeric)
RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN NOT a_at_least_cost THEN a_rated
                WHEN a_floor = 'call' THEN greatest(a_rated, a_cost)
                ELSE greatest(a_lead + a_rated, a_cost) - greatest(a_lead, 0) END
$$;

-- What the tickets of an issuance are worth, and the volume of it that a rule is applied to.
CREATE FUNCTION rate_cost(a_ev numeric, a_price numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$ SELECT a_ev * a_price * 1e-18 $$;
CREATE FUNCTION rate_volume(a_quantity numeric, a_ev numeric, a_price numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$ SELECT coalesce(a_quantity, a_ev * a_price * 1e12) $$;

ALTER TABLE plan
    ADD rate_card text,
    ADD below_cost boolean NOT NULL DEFAULT false;

-- What calls are charged by is copied to the gateway (refresh_limits), and ceilings_version counts its changes, too.
ALTER TABLE gateway
    ADD own_rate_card text,
    ADD rate_card text,
    ADD below_cost boolean NOT NULL DEFAULT false;

ALTER TABLE issuance
    ADD rate_rule bigint,         -- that the charge follows from; NULL: from the markup and minimum of the gateway
    ADD quantity numeric,         -- that was charged, in the base of the rule's unit; NULL where the rule is per cost
    ADD at_least_cost boolean,    -- whether the charge had to cover the tickets; NULL without a rule
    -- Of a rule that counts: where its month had come to, and by how much the rated charges were ahead of the cost.
    ADD volume_before numeric,
    ADD lead_before numeric;

CREATE VIEW due_rate_card AS
    SELECT gateway.id AS gateway_id, plan.below_cost,
           CASE WHEN own_rate_card = 'none' THEN NULL ELSE coalesce(own_rate_card, plan.rate_card) END AS rate_card
      FROM gateway JOIN plan ON plan.name = gateway.plan;

-- The part of refresh_limits that is about rate cards: it holds the account and shares the plan.
CREATE FUNCTION refresh_rate_card(a_gateway uuid, a_currency text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    due due_rate_card;
BEGIN
    SELECT * INTO STRICT due FROM due_rate_card WHERE gateway_id = a_gateway;
    IF EXISTS (SELECT FROM rate_card WHERE card = due.rate_card AND currency <> a_currency) THEN
        RAISE check_violation USING MESSAGE = format('the rate card %s is not in %s', due.rate_card, a_currency);
    END IF;
    UPDATE gateway SET rate_card = due.rate_card, below_cost = due.below_cost, ceilings_version = ceilings_version + 1
     WHERE id = a_gateway AND (rate_card, below_cost) IS DISTINCT FROM (due.rate_card, due.below_cost);
END $$;

-- NULL: as its plan; 'none': no card.
CREATE FUNCTION assign_rate_card(a_gateway uuid, a_card text, a_actor text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM account WHERE id = a_gateway FOR NO KEY UPDATE;  -- first the account, as everybody does
    INSERT INTO rate_assignment (gateway_id, card, assigned_by) VALUES (a_gateway, a_card, a_actor);
    UPDATE gateway SET own_rate_card = a_card WHERE id = a_gateway AND own_rate_card IS DISTINCT FROM a_card;
    PERFORM refresh_limits(a_gateway);
END $$;

-- apply_plan then takes it to the gateways.
CREATE FUNCTION assign_plan_rate_card(a_plan text, a_card text, a_below_cost boolean, a_actor text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE plan SET rate_card = a_card, below_cost = a_below_cost, version = version + 1, changed_at = now(),
           changed_by = a_actor WHERE name = a_plan;
    INSERT INTO rate_assignment (plan, card, below_cost, assigned_by) VALUES (a_plan, a_card, a_below_cost, a_actor);
END $$;
