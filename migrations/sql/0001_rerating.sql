-- Closed periods rated anew, where a rate card was wrong: docs/invoices.md.
--
--   planned ──▶ done          every charge of the period anew, and the difference in the books, once
--      └──────▶ refused       its invoice could not be credited: nothing was done
--
-- Issuances keep the charge they had. What they should have been charged stands beside them, by which rule and from where
-- in its month, so that `ledger verify` computes it again; the difference is what an entry of kind adjustment books, and
-- what a subscription includes pays its part of that by one of kind included.
CREATE TABLE rerating (
    id           uuid PRIMARY KEY,              -- UUIDv7: of two, the higher one is the later
    gateway_id   uuid NOT NULL,
    begins_at    timestamptz NOT NULL,          -- of the period
    card         text NOT NULL,                 -- the correction, and its highest rule: cards as they were with it
    version      integer NOT NULL,
    as_of        bigint NOT NULL,
    reason       text NOT NULL CHECK (length(reason) BETWEEN 1 AND 300),
    actor        text NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    calls_count  bigint NOT NULL CHECK (calls_count > 0),  -- that were charged by any card
    difference   monetary NOT NULL,             -- of usage: to be charged in addition; below 0: too much was
    included     monetary NOT NULL,             -- what a subscription includes pays so much of it; below 0: so much less
    invoice_id   uuid REFERENCES invoice,       -- whose place another takes; NULL: nobody was asked for the period
    state        text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'done', 'refused')),
    problem      text CHECK (length(problem) <= 1000),
    -- An entry of the difference, and one of what is included, each unless it is 0; where nobody was asked for the period,
    -- one of both.
    transfer_id  uuid UNIQUE REFERENCES transfer,
    included_id  uuid UNIQUE REFERENCES transfer,
    ended_at     timestamptz,
    FOREIGN KEY (gateway_id, begins_at) REFERENCES billing_period,
    FOREIGN KEY (card, version) REFERENCES rate_card,
    CHECK ((state = 'planned') = (ended_at IS NULL)),
    CHECK (state = 'refused' OR (state = 'done' AND difference <> CASE WHEN invoice_id IS NULL THEN included ELSE 0 END)
               = (transfer_id IS NOT NULL)),
    CHECK (state = 'refused' OR (state = 'done' AND invoice_id IS NOT NULL AND included <> 0) = (included_id IS NOT NULL))
);
CREATE UNIQUE INDEX rerating_once ON rerating (gateway_id, begins_at, as_of) WHERE state <> 'refused';
-- What the next one starts from is known when this one is done.
CREATE UNIQUE INDEX rerating_under_way ON rerating (gateway_id) WHERE state = 'planned';

-- Every call of the period that was charged by a card: as it was charged, and as it is by the cards as of then. The other
-- columns say of `charge` what those of issuance say of its own.
CREATE TABLE rerated_call (
    rerating_id    uuid NOT NULL REFERENCES rerating DEFERRABLE INITIALLY DEFERRED,  -- its sum is known after them
    issuance_id    uuid NOT NULL,
    charged        cost NOT NULL,
    charge         cost NOT NULL,
    rate_rule      bigint NOT NULL,
    quantity       numeric,
    at_least_cost  boolean NOT NULL,
    volume_before  numeric,
    lead_before    numeric,
    PRIMARY KEY (rerating_id, issuance_id)
);
CREATE INDEX rerated_call_issuance ON rerated_call (issuance_id);

-- The period's lines then: as billing_line has them, with what the same calls were charged before.
CREATE TABLE rerated_line (
    rerating_id    uuid NOT NULL REFERENCES rerating,
    app            text NOT NULL,
    pipeline       text NOT NULL,
    model          text NOT NULL,
    markup_bps     integer NOT NULL,
    calls_count    bigint NOT NULL CHECK (calls_count > 0),
    tickets_count  bigint NOT NULL,
    ev_wei         wei NOT NULL,
    fee_wei        numeric(78, 0) NOT NULL,
    charged        monetary NOT NULL,
    charge         monetary NOT NULL,
    rate_rule      text NOT NULL DEFAULT '',
    quantity       numeric,
    unit           text,
    PRIMARY KEY (rerating_id, app, pipeline, model, markup_bps, rate_rule)
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rerated_call
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Rate the period once more.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON rerated_line
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Rate the period once more.');
CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON rerating
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Rate the period once more.');

CREATE FUNCTION rerating_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    progress CONSTANT text[] := '{state,problem,transfer_id,included_id,ended_at}';
BEGIN
    IF OLD.state <> 'planned' OR to_jsonb(OLD) - progress <> to_jsonb(NEW) - progress THEN
        RAISE EXCEPTION 'a re-rating that is % stays so', OLD.state
            USING ERRCODE = 'insufficient_privilege', HINT = 'Rate the period once more.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER moves_forward BEFORE UPDATE ON rerating FOR EACH ROW EXECUTE FUNCTION rerating_moves_forward();

CREATE FUNCTION invoice_gives_way_once() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.replaced_at IS NOT NULL
       OR NOT EXISTS (SELECT FROM rerating WHERE invoice_id = NEW.id AND state = 'planned') THEN
        RAISE EXCEPTION 'an invoice gives its place to another once, where its period is rated anew'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Rate the period anew.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER gives_way_once BEFORE UPDATE ON invoice FOR EACH ROW
    WHEN (OLD.replaced_at IS DISTINCT FROM NEW.replaced_at) EXECUTE FUNCTION invoice_gives_way_once();
