-- Plans: limits and price ceilings that many gateways share. A gateway is on one plan. A limit of its own stands in
-- place of the plan's, be it higher, lower or none; of two ceilings on a price the lower one holds.
--
-- What that comes to is copied to the gateway and its account, the rows that a call reads anyway: nothing is joined for
-- it. refresh_limits makes the copies, whenever one of the two changes; `ledger verify` compares them.
CREATE DOMAIN price_max AS numeric CHECK (VALUE > 0);  -- in wei per unit of the job type

CREATE TABLE limit_kind (
    name        text PRIMARY KEY,
    is_ceiling  boolean NOT NULL  -- on a price: the lower of two holds
);
INSERT INTO limit_kind (name, is_ceiling) VALUES
    ('requests_per_s', false), ('burst_count', false), ('calls_per_day', false), ('spend_per_day', false),
    ('spend_per_month', false), ('ev_open', false), ('sessions_open', false), ('sessions_open_per_orchestrator', false),
    ('price_live', true), ('price_lv2v', true), ('price_fixed', true), ('price_untyped', true);

CREATE TABLE plan (
    name             text PRIMARY KEY CHECK (length(name) BETWEEN 1 AND 128),
    currency         currency,  -- that its limits on spend are in; no gateway of another currency is on such a plan
    version          bigint NOT NULL DEFAULT 1,  -- counts its changes
    applied_version  bigint NOT NULL DEFAULT 1,  -- the last one that all its gateways have
    changed_at       timestamptz NOT NULL DEFAULT now(),
    changed_by       text NOT NULL DEFAULT ''
);

-- No row: no limit. Only money and prices have decimals.
CREATE TABLE plan_limit (
    plan   text NOT NULL REFERENCES plan ON DELETE CASCADE,
    name   text NOT NULL REFERENCES limit_kind,
    value  numeric NOT NULL,
    CHECK (value >= 0 AND (value = trunc(value) OR name ~ '^(spend|price)_')),
    PRIMARY KEY (plan, name)
);
INSERT INTO plan (name) VALUES ('default');
INSERT INTO plan_limit (plan, name, value) VALUES
    ('default', 'sessions_open', 20000), ('default', 'sessions_open_per_orchestrator', 5000);

-- What a gateway has for itself. NULL: no limit, whatever its plan says. No row: as the plan says.
CREATE TABLE gateway_override (
    gateway_id  uuid NOT NULL REFERENCES gateway,
    name        text NOT NULL REFERENCES limit_kind,
    value       numeric,
    CHECK (value >= 0 AND (value = trunc(value) OR name ~ '^(spend|price)_')),
    PRIMARY KEY (gateway_id, name)
);

ALTER TABLE gateway
    ADD plan text NOT NULL DEFAULT 'default' REFERENCES plan,
    ADD price_live_max     price_max,
    ADD price_lv2v_max     price_max,
    ADD price_fixed_max    price_max,
    ADD price_untyped_max  price_max,
    ADD own_ceilings       text[] NOT NULL DEFAULT '{}',  -- which of these are the gateway's and not its plan's
    ADD ceilings_version   bigint NOT NULL DEFAULT 0;     -- counts their changes: a commit is on the newest
CREATE INDEX gateway_plan ON gateway (plan, id);

-- Every limit of every gateway, and whose it is.
CREATE VIEW effective_limit AS
    SELECT gateway.id AS gateway_id, kind.name,
           CASE WHEN kind.is_ceiling THEN least(own.value, planned.value)
                WHEN own.name IS NOT NULL THEN own.value ELSE planned.value END AS value,
           CASE WHEN kind.is_ceiling THEN own.value IS NOT NULL AND (planned.value IS NULL OR own.value < planned.value)
                ELSE own.name IS NOT NULL END AS is_own, kind.is_ceiling
      FROM gateway CROSS JOIN limit_kind AS kind
      LEFT JOIN plan_limit AS planned ON planned.plan = gateway.plan AND planned.name = kind.name
      LEFT JOIN gateway_override AS own ON own.gateway_id = gateway.id AND own.name = kind.name;

-- The same as the columns that it is copied to.
CREATE VIEW due_limits AS
    SELECT gateway_id,
           max(value) FILTER (WHERE name = 'requests_per_s')::integer AS requests_per_s,
           max(value) FILTER (WHERE name = 'burst_count')::integer AS burst_count,
           max(value) FILTER (WHERE name = 'calls_per_day')::bigint AS calls_day_max,
           max(value) FILTER (WHERE name = 'spend_per_day') AS spend_day_max,
           max(value) FILTER (WHERE name = 'spend_per_month') AS spend_month_max,
           max(value) FILTER (WHERE name = 'ev_open') AS ev_open_max_wei,
           max(value) FILTER (WHERE name = 'sessions_open')::bigint AS sessions_open_max,
           max(value) FILTER (WHERE name = 'sessions_open_per_orchestrator')::bigint
               AS sessions_open_per_orchestrator_max,
           max(value) FILTER (WHERE name = 'price_live') AS price_live_max,
           max(value) FILTER (WHERE name = 'price_lv2v') AS price_lv2v_max,
           max(value) FILTER (WHERE name = 'price_fixed') AS price_fixed_max,
           max(value) FILTER (WHERE name = 'price_untyped') AS price_untyped_max,
           coalesce(array_agg(name ORDER BY name) FILTER (WHERE is_ceiling AND is_own), '{}') AS own_ceilings
      FROM effective_limit GROUP BY gateway_id;

-- Copies a gateway's limits to where calls look. It holds the account, so that no call is judged by the half of a
-- change, and shares the plan, so that the plan cannot change between the look and the end of the transaction.
CREATE FUNCTION refresh_limits(a_gateway uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    its plan;
    due due_limits;
BEGIN
    SELECT * INTO STRICT holder FROM account WHERE id = a_gateway FOR NO KEY UPDATE;
    SELECT * INTO STRICT its FROM plan WHERE name = (SELECT plan FROM gateway WHERE id = a_gateway) FOR SHARE;
    IF its.currency <> holder.currency OR (its.currency IS NULL AND EXISTS (
        SELECT FROM plan_limit WHERE plan = its.name AND name IN ('spend_per_day', 'spend_per_month'))) THEN
        RAISE check_violation USING MESSAGE = format('plan %s does not limit spend in %s', its.name, holder.currency);
    END IF;
    SELECT * INTO STRICT due FROM due_limits WHERE gateway_id = a_gateway;
    UPDATE account SET calls_day_max = due.calls_day_max, spend_day_max = due.spend_day_max,
           spend_month_max = due.spend_month_max, ev_open_max_wei = due.ev_open_max_wei,
           sessions_open_max = due.sessions_open_max,
           sessions_open_per_orchestrator_max = due.sessions_open_per_orchestrator_max
     WHERE id = a_gateway AND
           (calls_day_max, spend_day_max, spend_month_max, ev_open_max_wei, sessions_open_max,
            sessions_open_per_orchestrator_max) IS DISTINCT FROM
           (due.calls_day_max, due.spend_day_max, due.spend_month_max, due.ev_open_max_wei, due.sessions_open_max,
            due.sessions_open_per_orchestrator_max);
    UPDATE gateway SET requests_per_s = due.requests_per_s, burst_count = due.burst_count
     WHERE id = a_gateway AND (requests_per_s, burst_count) IS DISTINCT FROM (due.requests_per_s, due.burst_count);
    UPDATE gateway SET price_live_max = due.price_live_max, price_lv2v_max = due.price_lv2v_max,
           price_fixed_max = due.price_fixed_max, price_untyped_max = due.price_untyped_max,
           own_ceilings = due.own_ceilings, ceilings_version = ceilings_version + 1
     WHERE id = a_gateway AND
           (price_live_max, price_lv2v_max, price_fixed_max, price_untyped_max, own_ceilings) IS DISTINCT FROM
           (due.price_live_max, due.price_lv2v_max, due.price_fixed_max, due.price_untyped_max, due.own_ceilings);
    PERFORM refresh_rate_card(a_gateway, holder.currency);
END $$;

CREATE FUNCTION put_on_plan(a_gateway uuid, a_plan text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM account WHERE id = a_gateway FOR NO KEY UPDATE;  -- first the account, as everybody does
    UPDATE gateway SET plan = a_plan WHERE id = a_gateway AND plan <> a_plan;
    PERFORM refresh_limits(a_gateway);
END $$;

-- An account begins with the limits of its gateway's plan.
CREATE FUNCTION begin_on_plan() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM refresh_limits(NEW.gateway_id);
    RETURN NULL;
END $$;
CREATE TRIGGER begin_on_plan AFTER INSERT ON account
    FOR EACH ROW WHEN (NEW.gateway_id IS NOT NULL) EXECUTE FUNCTION begin_on_plan();

-- Takes a changed plan to the next of its gateways, in the order of their ids: at most so many, whose accounts it holds
-- until the transaction ends. Where none were left, all gateways have the version that the caller set out with: that is
-- noted in a transaction of its own, because whoever shares the plan and then changes it would wait for those who do too.
CREATE FUNCTION apply_plan(a_plan text, a_version bigint, a_after uuid, a_at_most integer)
RETURNS TABLE (o_last uuid, o_count integer)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    due uuid;
BEGIN
    o_count := 0;
    FOR due IN SELECT id FROM gateway WHERE plan = a_plan AND id > a_after ORDER BY id LIMIT a_at_most LOOP
        PERFORM refresh_limits(due);
        o_last := due;
        o_count := o_count + 1;
    END LOOP;
    IF o_count = 0 THEN
        UPDATE plan SET applied_version = greatest(applied_version, a_version) WHERE name = a_plan;
    END IF;
    RETURN NEXT;
END $$;
